"""KSWIN, compiled: do the newest numbers of a window come from the same distribution as a sample of the others?

Source: Raab, Heusinger, Schleif, "Reactive soft prototype computing for concept drift streams", Neurocomputing 2020.
It alarms where River 0.26's `drift.KSWIN` does with the same seed: the sample is what Python's `random.Random(seed)`
draws (Mersenne Twister, Matsumoto and Nishimura 1998, and the rules of `random.sample`), and the p-value is the exact
one of two samples of one size n, which depends on their largest difference in ranks h alone (Hodges, "The significance
probability of the Smirnov two-sample test", Arkiv för Matematik 3, 1958), so it is worked out once for each h.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams import drift
from streams.compiled import bare, inlined

Vector = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LEAST_DIFFERENCE = 0.1  # River's: a smaller one is no drift, however sure
TWISTS, SHIFT = 624, 397  # words of the generator's state, and how far it looks ahead
IS_POOL, THRESHOLD = 0, 1  # places in `settings`
SEEN, AT = 0, 1  # in `counts`: numbers since the start, and where the next goes


class Kswin(NamedTuple):
    """The window as a ring of N numbers; a sample has n."""

    settings: Vector
    is_alarm_h: Vector  # n + 1, 1 where this difference in ranks is an alarm
    counts: Int64
    window_N: Vector
    words: Int64  # of the generator, then how many of them are used up
    seeded: Int64  # the same as it begins
    drawn: Int64  # scratch, N - n: the pool that is drawn from, or marks of what was drawn
    older: Vector  # scratch, n
    newer: Vector


def new_kswin(settings: drift.Kswin) -> Kswin:
    """Make an empty window."""
    n, others = settings.stat_size, settings.window_size - settings.stat_size
    alarms = [h / n > LEAST_DIFFERENCE and p_value(n, h) <= settings.alpha for h in range(n + 1)]
    threshold = alarms.index(True) / n if any(alarms) else math.inf
    words = np.array(random.Random(settings.seed).getstate()[1], np.int64)  # noqa: S311 - a sample, no secret
    return Kswin(
        np.array([_draws_from_pool(others, n), threshold], np.float64),
        np.array(alarms, np.float64),
        np.zeros(2, np.int64),
        np.zeros(settings.window_size),
        words,
        words.copy(),
        np.zeros(others, np.int64),
        np.zeros(n),
        np.zeros(n),
    )


def p_value(n: int, h: int) -> float:
    """Give the chance that two samples of n from one distribution differ by h ranks or more, without ties.

    2 (C(2n, n-h) - C(2n, n-2h) + ...) / C(2n, n), from the last term on, each as a share of the one before.
    """
    if h == 0:
        return 1.0
    total = 0.0
    for k in range(n // h, -1, -1):
        share = 1.0
        for j in range(h):
            share = (n - k * h - j) * share / (n + k * h + j + 1)
        total = share * (1.0 - total)
    return min(1.0, 2.0 * total)


def _draws_from_pool(population: int, sample: int) -> bool:
    """Python draws a large share of a population from a list, a small share by trying again what it has."""
    size = 21.0 if sample <= 5 else 21.0 + 4.0 ** math.ceil(math.log(sample * 3, 4))
    return population <= size


@inlined
def clear_kswin(window: Kswin) -> None:
    """Empty the window and seed its generator again."""
    window.counts[SEEN] = window.counts[AT] = 0
    for place in range(window.words.size):
        window.words[place] = window.seeded[place]


@inlined
def observe_kswin(window: Kswin, x: float, found: Vector) -> bool:
    """Add a number; gives whether the window has drifted. `found` gets the difference, its threshold, 1 if up or -1.

    About 2 us for samples of 30, once the window is full.
    """
    size = window.window_N.size
    window.window_N[window.counts[AT]] = x
    window.counts[AT] = (window.counts[AT] + 1) % size
    window.counts[SEEN] += 1
    return window.counts[SEEN] >= size and compare_kernel(window, found)


@bare
def compare_kernel(window: Kswin, found: Vector) -> bool:
    """Draw a sample of the older numbers and compare it with the newest."""
    size, n = window.window_N.size, window.newer.size
    _sample(window)
    older_sum = newer_sum = 0.0
    for place in range(n):
        window.newer[place] = window.window_N[(window.counts[AT] + size - n + place) % size]
        older_sum += window.older[place]
        newer_sum += window.newer[place]
    _sort(window.older)
    _sort(window.newer)
    h = _rank_difference(window.older, window.newer)
    if window.is_alarm_h[h] == 0.0:
        return False
    found[0], found[1], found[2] = h / n, window.settings[THRESHOLD], 1.0 if newer_sum > older_sum else -1.0
    return True


@inlined
def _sample(window: Kswin) -> None:
    """Draw as `random.sample(range(N - n), n)` does, and take the numbers at these places, 0 the oldest."""
    size, n, others, drawn = window.window_N.size, window.older.size, window.drawn.size, window.drawn
    is_pool = window.settings[IS_POOL] > 0.0
    for place in range(others):
        drawn[place] = place if is_pool else 0
    for i in range(n):
        if is_pool:
            at = _below(window.words, others - i)
            picked = drawn[at]
            drawn[at] = drawn[others - i - 1]
        else:
            picked = _below(window.words, others)
            while drawn[picked] == 1:
                picked = _below(window.words, others)
            drawn[picked] = 1
        window.older[i] = window.window_N[(window.counts[AT] + picked) % size]


@inlined
def _below(words: Int64, limit: int) -> int:
    """Give a whole number below the limit, as Python's `randrange` does: from as many bits as the limit has."""
    bits = 0
    while limit >> bits > 0:
        bits += 1
    found = _word(words) >> (32 - bits)
    while found >= limit:
        found = _word(words) >> (32 - bits)
    return int(found)


@inlined
def _word(words: Int64) -> int:
    """Give the generator's next 32 bits."""
    if words[TWISTS] >= TWISTS:
        for k in range(TWISTS):
            both = (words[k] & 0x80000000) | (words[(k + 1) % TWISTS] & 0x7FFFFFFF)
            twist = 0x9908B0DF if both & 1 else 0
            words[k] = words[(k + SHIFT) % TWISTS] ^ (both >> 1) ^ twist
        words[TWISTS] = 0
    y = words[words[TWISTS]]
    words[TWISTS] += 1
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    return int(y ^ (y >> 18))


@inlined
def _sort(values: Vector) -> None:
    """Sort by insertion: samples have some tens of numbers."""
    for i in range(1, values.size):
        value, at = values[i], i
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@inlined
def _rank_difference(first: Vector, second: Vector) -> int:
    """Give the largest difference between how many of each are at or below a number."""
    i = j = largest = 0
    while i < first.size and j < second.size:
        value = min(first[i], second[j])
        while i < first.size and first[i] == value:
            i += 1
        while j < second.size and second[j] == value:
            j += 1
        largest = max(largest, abs(i - j))
    return largest
