"""Trails: what an entity's head keeps of its last events, whatever their age: last value, lag k, exponential weights.

They go by the order of the log among events in order: one older than its entity's newest reads NaN and changes nothing
(PROTOCOL 14). Words of a trail are zero before the first value.

Exponential weights follow pandas' `ewm(halflife, times)` with `adjust=True`: a value weighs 0.5 ** (age / half-life).
The deviation is corrected for bias as there: squares * W / (W^2 - sum of squared weights), where the difference is kept
as such, the sum of the products of different weights: it would lose all its digits when old weights are small.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.plan import (
    TRAIL_FIELD,
    TRAIL_KIND,
    TRAIL_LAG,
    TRAIL_LAST,
    TRAIL_PLACES,
    TRAIL_SLOT,
    TRAIL_SPAN,
    TRAIL_WORD,
    Plan,
    Totals,
)

HELD = 0  # word of LAST and LAG: values taken so far; then time and value, of each that is kept
# Words of exponential weights: how many values, sum of weights, sum of the products of any two different ones, weighted
# mean, weighted sum of squared differences from it, time of the last value.
WEIGHED, WEIGHT, CROSS, AVERAGE, SQUARES, TIME = 0, 1, 2, 3, 4, 5

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@inlined
def observe_trails_kernel(
    plan: Plan, words: Words, sums: Floats, head: int, time_us: int, values_KB: Floats, row: int, totals: Totals
) -> None:
    """Give what all trails of a head say to an event in order, then add it."""
    for trail in range(plan.trails_M6.shape[0]):
        place = head + plan.trails_M6[trail, TRAIL_WORD]
        span, slot = plan.trails_M6[trail, TRAIL_SPAN], plan.trails_M6[trail, TRAIL_SLOT]
        value, kind = values_KB[plan.trails_M6[trail, TRAIL_FIELD], row], plan.trails_M6[trail, TRAIL_KIND]
        if kind == TRAIL_LAST:
            totals.sums_T[slot] = _recalled(words, sums, place, words[place + HELD] > 0, time_us, span)
            if not math.isnan(value):
                words[place + HELD] = 1
                words[place + 1] = time_us
                sums[place + 2] = value
        elif kind == TRAIL_LAG:
            places, held = plan.trails_M6[trail, TRAIL_PLACES], words[place + HELD]
            at = place + 2 * (held % places)
            totals.sums_T[slot] = _recalled(words, sums, at, held >= places, time_us, span)
            words[place + HELD] = held + 1
            words[at + 1] = time_us
            sums[at + 2] = value
        else:
            _read_weights(sums, place, totals.sums_T, slot)
            if not math.isnan(value):
                _add_weighed(words, sums, place, time_us, value, span)


@inlined
def forget_trails_kernel(plan: Plan, totals: Totals) -> None:
    """Give what trails say to an event out of order: nothing."""
    for slot in range(plan.lane_field_T2.shape[0], totals.sums_T.size):
        totals.sums_T[slot] = math.nan


@inlined
def _recalled(words: Words, sums: Floats, place: int, is_held: bool, time_us: int, span_us: int) -> float:
    """Give a kept value if it is there and, with a window, not older than that."""
    if is_held and (span_us == 0 or time_us - words[place + 1] < span_us):
        return float(sums[place + 2])
    return math.nan


@inlined
def _read_weights(sums: Floats, place: int, totals: Floats, slot: int) -> None:
    """Give weighted mean and deviation; neither changes while nothing is added."""
    totals[slot] = sums[place + AVERAGE] if sums[place + WEIGHED] >= 1 else math.nan
    totals[slot + 1] = math.nan
    if sums[place + WEIGHED] >= 2 and sums[place + CROSS] > 0:
        totals[slot + 1] = math.sqrt(sums[place + SQUARES] * sums[place + WEIGHT] / sums[place + CROSS])


@inlined
def _add_weighed(words: Words, sums: Floats, place: int, time_us: int, value: float, half_life_us: int) -> None:
    if sums[place + WEIGHED] > 0:
        faded = 0.5 ** ((time_us - words[place + TIME]) / half_life_us)
        sums[place + WEIGHT] *= faded
        sums[place + CROSS] *= faded * faded
        sums[place + SQUARES] *= faded
    sums[place + WEIGHED] += 1
    sums[place + CROSS] += 2 * sums[place + WEIGHT]
    sums[place + WEIGHT] += 1
    difference = value - sums[place + AVERAGE]
    sums[place + AVERAGE] += difference / sums[place + WEIGHT]
    sums[place + SQUARES] += difference * (value - sums[place + AVERAGE])
    words[place + TIME] = time_us
