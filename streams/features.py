"""Features: the columns a pipeline's feature matrix has, and the plan by which kernels fill them.

The plan turns the declared features into a few arrays of small integers, so that one compiled kernel serves every
pipeline. Aggregates of the same window share *lanes*, the words that a bucket consists of: a sum lane is the sum of a
field, a count lane holds two counters of 32 bits (of rows, or of a field's values that are present). Count, sum and
mean only read lanes. What a window covers is defined in docs/features.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.frames import Column
from streams.pipeline import Feature, Field, Pipeline

# Operations: what a column is made of.
RAW, COUNT, SUM, MEAN, ELAPSED, SINE, COSINE = 0, 1, 2, 3, 4, 5, 6
# What a lane's counter counts besides a field's values, which have the field's number.
EVERY_ROW, NOTHING = -1, -2
COUNTER_BITS = 32
COUNTER_MASK = (1 << COUNTER_BITS) - 1
# Periods of cyclic features, each from its start to its end in UTC.
PERIODS = {"hour": 0, "weekday": 1, "month": 2}

DAY_US = 86_400_000_000
WEEK_US = 7 * DAY_US
MONDAY_US = 4 * DAY_US  # 1970-01-05, the first Monday after the epoch
DAYS_TO_1970 = 719_468  # from 0000-03-01, where the years of the civil calendar begin here
FIRST_WINDOW_WORD = 1  # word 0 of an entity's head is its newest time
WINDOW_WORDS = 2  # limit and chunk, before the lanes

Counters = dict[int, list[int]]  # by window: what is counted (a field or EVERY_ROW); sums likewise


class Plan(NamedTuple):
    """What kernels need to know of a pipeline's features; F columns, W windows, T lanes of all windows together."""

    operation_F: npt.NDArray[np.int64]
    first_F: npt.NDArray[np.int64]  # field, counter (2 * lane + half), sum lane or period, by operation
    second_F: npt.NDArray[np.int64]  # MEAN: the sum lane
    width_W: npt.NDArray[np.int64]  # window length, us
    word_W: npt.NDArray[np.int64]  # where a window's words begin in an entity's head
    lane_start: npt.NDArray[np.int64]  # [W+1]
    sum_start_W: npt.NDArray[np.int64]  # the first sum lane of a window; its count lanes come before
    lane_field_T2: npt.NDArray[np.int64]  # sum lane: the field; count lane: what its two counters count
    head_words: int  # length of an entity's head


class FeaturePlan(NamedTuple):
    """The columns of a pipeline, the fields they read (numbered in this order), and the plan for the kernels."""

    columns: tuple[Column, ...]
    fields: tuple[Field, ...]
    plan: Plan
    is_keyed: bool  # whether any column needs the entity's state


def columns(pipeline: Pipeline) -> tuple[Column, ...]:
    """Name the feature matrix: raw fields in declared order, then features in declared order.

    A cyclic feature gives two columns, `<name>_sin` and `<name>_cos`.
    """
    raw = pipeline.events.fields if pipeline.raw_features else ()
    named = [Column(field.name, field.kind == "category") for field in raw]
    named += [Column(name, is_category=False) for feature in pipeline.features for name in feature.columns]
    return tuple(named)


def make_plan(pipeline: Pipeline) -> FeaturePlan:
    """Compile the declared features into the plan that the kernels follow."""
    read = {feature.of for feature in pipeline.features if feature.operation in ("count", "sum", "mean")}
    fields = tuple(f for f in pipeline.events.fields if pipeline.raw_features or f.name in read)
    numbers = {field.name: number for number, field in enumerate(fields)}
    counted: Counters = {}
    summed: Counters = {}
    for feature in pipeline.features:
        if feature.window_us is not None:
            _note(counted, feature, numbers, ("count", "mean"))
            _note(summed, feature, numbers, ("sum", "mean"))
    lanes, starts, sum_starts = _lanes(counted, summed)

    steps = [(RAW, number, 0) for number in range(len(fields))] if pipeline.raw_features else []
    places = dict(zip(counted, zip(starts, sum_starts, strict=False), strict=True))
    for feature in pipeline.features:
        steps += _steps(feature, numbers, counted, summed, places)
    table = np.array(steps, np.int64).reshape(-1, 3)
    operation_F, first_F, second_F = (np.ascontiguousarray(table[:, place]) for place in range(3))
    word_W = FIRST_WINDOW_WORD + WINDOW_WORDS * np.arange(len(counted)) + 2 * np.array(starts[:-1], np.int64)
    plan = Plan(
        operation_F,
        first_F,
        second_F,
        np.array(list(counted), np.int64),
        word_W.astype(np.int64),
        np.array(starts, np.int64),
        np.array(sum_starts, np.int64),
        np.array(lanes, np.int64).reshape(-1, 2),
        FIRST_WINDOW_WORD + WINDOW_WORDS * len(counted) + 2 * len(lanes),
    )
    is_keyed = any(step[0] in (COUNT, SUM, MEAN, ELAPSED) for step in steps)
    return FeaturePlan(columns(pipeline), fields, plan, is_keyed)


def _note(noted: Counters, feature: Feature, numbers: dict[str, int], operations: tuple[str, str]) -> None:
    """Note what a feature counts or sums in its window, once for all features that share it."""
    known = noted.setdefault(feature.window_us or 0, [])
    what = EVERY_ROW if feature.of == "*" else numbers[feature.of]
    if feature.operation in operations and what not in known:
        known.append(what)


def _lanes(counted: Counters, summed: Counters) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Give all lanes, where those of each window begin (and the last ends), and where its sum lanes begin."""
    lanes: list[tuple[int, int]] = []
    starts, sum_starts = [0], []
    for width, what in counted.items():
        padded = [*what, NOTHING]
        lanes += [(padded[at], padded[at + 1]) for at in range(0, len(what), 2)]
        sum_starts.append(len(lanes))
        lanes += [(field, NOTHING) for field in summed[width]]
        starts.append(len(lanes))
    return lanes, starts, sum_starts


def _steps(
    feature: Feature,
    numbers: dict[str, int],
    counted: Counters,
    summed: Counters,
    places: dict[int, tuple[int, int]],
) -> list[tuple[int, int, int]]:
    if feature.operation == "elapsed":
        return [(ELAPSED, 0, 0)]
    if feature.operation == "cyclic":
        return [(SINE, PERIODS[feature.of], 0), (COSINE, PERIODS[feature.of], 0)]
    width = feature.window_us or 0
    count_start, sum_start = places[width]
    what = EVERY_ROW if feature.of == "*" else numbers[feature.of]
    counter = 2 * count_start + counted[width].index(what) if what in counted[width] else 0
    total = sum_start + summed[width].index(what) if what in summed[width] else 0
    if feature.operation == "count":
        return [(COUNT, counter, 0)]
    return [(MEAN, counter, total)] if feature.operation == "mean" else [(SUM, total, 0)]


class Totals(NamedTuple):
    """What an event's windows cover: all lanes as one array, seen as count lanes and as sum lanes."""

    counts_T: npt.NDArray[np.int64]
    sums_T: npt.NDArray[np.float64]


def empty_totals(plan: Plan) -> Totals:
    """Give room for the lanes of one event."""
    counts_T = np.zeros(plan.lane_field_T2.shape[0], np.int64)
    return Totals(counts_T, counts_T.view(np.float64))


@inlined
def counter_kernel(totals: Totals, counter: int) -> float:
    """Read one of the two counters of a count lane."""
    return float((totals.counts_T[counter >> 1] >> (COUNTER_BITS * (counter & 1))) & COUNTER_MASK)


@inlined
def write_vector_kernel(
    plan: Plan,
    values_KB: npt.NDArray[np.float64],
    row: int,
    time_us: int,
    elapsed_s: float,
    totals: Totals,
    is_known: bool,
    vectors_BF: npt.NDArray[np.float64],
    at: int,
) -> None:
    """Fill one row of the feature matrix; `is_known` says whether the event has an entity, and so totals."""
    for column in range(plan.operation_F.size):
        operation, first = plan.operation_F[column], plan.first_F[column]
        if operation == RAW:
            value = values_KB[first, row]
        elif operation <= MEAN and not is_known:
            value = math.nan
        elif operation == COUNT:
            value = counter_kernel(totals, first)
        elif operation == SUM:
            value = totals.sums_T[first]
        elif operation == MEAN:
            present = counter_kernel(totals, first)
            value = totals.sums_T[plan.second_F[column]] / present if present > 0 else math.nan
        elif operation == ELAPSED:
            value = elapsed_s
        elif operation == SINE:
            value = math.sin(2 * math.pi * phase_kernel(first, time_us))
        else:
            value = math.cos(2 * math.pi * phase_kernel(first, time_us))
        vectors_BF[at, column] = value


@bare
def phase_kernel(period: int, time_us: int) -> float:
    """How much of the UTC day (0), week from Monday (1) or calendar year (2) has passed, from 0 to 1."""
    if period == 0:
        return (time_us % DAY_US) / DAY_US
    if period == 1:
        return ((time_us - MONDAY_US) % WEEK_US) / WEEK_US
    year = year_kernel(time_us // DAY_US)
    start = year_start_kernel(year)
    return (time_us - start * DAY_US) / ((year_start_kernel(year + 1) - start) * DAY_US)


@bare
def year_kernel(day: int) -> int:
    """The civil year of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms")."""
    since = day + DAYS_TO_1970
    era = since // 146_097
    day_of_era = since - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    return year_of_era + era * 400 + (1 if day_of_year >= 306 else 0)  # its years begin in March


@bare
def year_start_kernel(year: int) -> int:
    """The first of January of a civil year, in days since 1970."""
    before = year - 1
    return 365 * before + before // 4 - before // 100 + before // 400 - 719_162
