"""Lanes: the words of a bucket. Counts and sums, then *extras*: minimum, maximum, deviation, sketches.

A lane's words are zero while nothing was added, so that state begins as zeros: a minimum is kept as its bits XOR those
of infinity. Buckets are *folded* into one another, oldest first, and never taken out again.

Moments are folded by Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances" (1979), and added to by Welford's update (1962): no large sums of squares are ever subtracted.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.distinct import add_distinct_kernel, fold_distinct_kernel
from streams.intrinsics import bits_float, float_bits
from streams.plan import COUNTER_BITS, EVERY_ROW, MAXIMUM, MINIMUM, MOMENTS, REGISTERS, Plan
from streams.quantiles import add_quantile_kernel, fold_quantile_kernel

LEAST_BITS = 0x7FF0000000000000  # +infinity: the minimum of nothing
MOST_BITS = -0x0010000000000000  # -infinity
COUNTED, AVERAGE, SQUARES = 0, 1, 2  # words of moments: how many, mean, sum of squared differences from it

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@inlined
def add_lanes_kernel(
    plan: Plan, window: int, words: Words, sums: Floats, base: int, values_KB: Floats, row: int
) -> None:
    """Add a row to one bucket's lanes, lane i at `base` + i."""
    first, counts_end, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
    extras = plan.extra_start_W[window]
    for lane in range(first, counts_end):
        words[base + lane] += counted_kernel(plan, lane, values_KB, row)
    for lane in range(counts_end, extras):
        sums[base + lane] += summed_kernel(plan, lane, values_KB, row)
    if extras < stop:
        add_extras_kernel(plan, extras, stop, words, sums, base, values_KB, row)


@inlined
def counted_kernel(plan: Plan, lane: int, values_KB: Floats, row: int) -> int:
    """What a row adds to a count lane."""
    added = 0
    for half in range(2):
        what = plan.lane_field_T2[lane, half]
        if what == EVERY_ROW or (what >= 0 and not math.isnan(values_KB[what, row])):
            added += 1 << (COUNTER_BITS * half)
    return added


@inlined
def summed_kernel(plan: Plan, lane: int, values_KB: Floats, row: int) -> float:
    """What a row adds to a sum lane."""
    value: float = values_KB[plan.lane_field_T2[lane, 0], row]
    return 0.0 if math.isnan(value) else value


@inlined
def add_extras_kernel(
    plan: Plan, first: int, stop: int, words: Words, sums: Floats, base: int, values_KB: Floats, row: int
) -> None:
    """Add an event to lanes `first` to `stop`, the place of lane i being `base` + i in both views of the same words."""
    lane = first
    while lane < stop:
        kind, place, value = plan.lane_kind_T[lane], base + lane, values_KB[plan.lane_field_T2[lane, 0], row]
        if not math.isnan(value):
            if kind == MINIMUM:
                if value < bits_float(words[place] ^ LEAST_BITS):
                    words[place] = float_bits(value) ^ LEAST_BITS
            elif kind == MAXIMUM:
                if value > bits_float(words[place] ^ MOST_BITS):
                    words[place] = float_bits(value) ^ MOST_BITS
            elif kind == MOMENTS:
                _add_moment(sums, place, value)
            elif kind == REGISTERS:
                add_distinct_kernel(words, place, plan.lane_field_T2[lane, 1], value)
            else:
                add_quantile_kernel(words, place, plan.lane_field_T2[lane, 1], value)
        lane += plan.lane_size_T[lane]


@inlined
def fold_extras_kernel(
    plan: Plan,
    first: int,
    stop: int,
    to_words: Words,
    to_sums: Floats,
    to: int,
    from_words: Words,
    from_sums: Floats,
    start: int,
) -> None:
    """Fold lanes `first` to `stop` into others: lane i from `start` + i into `to` + i."""
    lane = first
    while lane < stop:
        kind, place, origin = plan.lane_kind_T[lane], to + lane, start + lane
        if kind == MINIMUM:
            if bits_float(from_words[origin] ^ LEAST_BITS) < bits_float(to_words[place] ^ LEAST_BITS):
                to_words[place] = from_words[origin]
        elif kind == MAXIMUM:
            if bits_float(from_words[origin] ^ MOST_BITS) > bits_float(to_words[place] ^ MOST_BITS):
                to_words[place] = from_words[origin]
        elif kind == MOMENTS:
            _fold_moments(to_sums, place, from_sums, origin)
        elif kind == REGISTERS:
            fold_distinct_kernel(to_words, place, from_words, origin, plan.lane_field_T2[lane, 1])
        else:
            fold_quantile_kernel(to_words, place, from_words, origin, plan.lane_field_T2[lane, 1])
        lane += plan.lane_size_T[lane]


@inlined
def extreme_kernel(word: int, empty_bits: int) -> float:
    """Read a minimum (`LEAST_BITS`) or maximum (`MOST_BITS`); NaN of nothing."""
    return bits_float(word ^ empty_bits) if word != 0 else math.nan


@inlined
def deviation_kernel(sums: Floats, place: int) -> float:
    """Read moments as the sample standard deviation; NaN of fewer than two values."""
    counted = sums[place + COUNTED]
    return math.sqrt(sums[place + SQUARES] / (counted - 1)) if counted >= 2 else math.nan


@inlined
def _add_moment(sums: Floats, place: int, value: float) -> None:
    sums[place + COUNTED] += 1
    difference = value - sums[place + AVERAGE]
    sums[place + AVERAGE] += difference / sums[place + COUNTED]
    sums[place + SQUARES] += difference * (value - sums[place + AVERAGE])


@inlined
def _fold_moments(to: Floats, place: int, origin: Floats, start: int) -> None:
    more = origin[start + COUNTED]
    if more == 0:
        return
    before = to[place + COUNTED]
    both = before + more
    difference = origin[start + AVERAGE] - to[place + AVERAGE]
    to[place + COUNTED] = both
    to[place + AVERAGE] += difference * (more / both)
    to[place + SQUARES] += origin[start + SQUARES] + difference * difference * (before * more / both)
