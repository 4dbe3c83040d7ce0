"""Features: the columns a pipeline's feature matrix has, and the plan by which kernels fill them.

The plan turns the declared features into a few arrays of small integers, so that one compiled kernel serves every
pipeline. Aggregates of the same window share their *lanes*: a lane is one number per bucket (rows, values present, or
the sum of a field), and count, sum and mean only read lanes. What a window covers is defined in docs/features.md.
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
RAW, TOTAL, MEAN, ELAPSED, SINE, COSINE = 0, 1, 2, 3, 4, 5
# Lanes: what a bucket counts.
ROWS, PRESENT, SUM = 0, 1, 2
# Periods of cyclic features, each from its start to its end in UTC.
PERIODS = {"hour": 0, "weekday": 1, "month": 2}

DAY_US = 86_400_000_000
WEEK_US = 7 * DAY_US
MONDAY_US = 4 * DAY_US  # 1970-01-05, the first Monday after the epoch
DAYS_TO_1970 = 719_468  # from 0000-03-01, where the years of the civil calendar begin here
FIRST_WINDOW_WORD = 1  # word 0 of an entity's head is its newest time
WINDOW_WORDS = 2  # limit and chunk, before the lanes

Lane = tuple[int, int]  # (kind, field)


class Plan(NamedTuple):
    """What kernels need to know of a pipeline's features; F columns, W windows, T lanes of all windows together."""

    operation_F: npt.NDArray[np.int64]
    first_F: npt.NDArray[np.int64]  # field, lane or period, by operation
    second_F: npt.NDArray[np.int64]  # MEAN: the lane that is divided
    width_W: npt.NDArray[np.int64]  # window length, us
    word_W: npt.NDArray[np.int64]  # where a window's words begin in an entity's head
    lane_start: npt.NDArray[np.int64]  # [W+1]
    lane_kind_T: npt.NDArray[np.int64]
    lane_field_T: npt.NDArray[np.int64]


class FeaturePlan(NamedTuple):
    """The columns of a pipeline, the fields they read (numbered in this order), and the plan for the kernels."""

    columns: tuple[Column, ...]
    fields: tuple[Field, ...]
    plan: Plan
    is_keyed: bool  # whether any column needs the entity's state
    head_words: int  # length of an entity's head


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
    windowed = [f for f in pipeline.features if f.window_us is not None]
    windows: dict[int, dict[Lane, int]] = {feature.window_us: {} for feature in windowed if feature.window_us}
    for feature in windowed:
        for lane in _lanes(feature, numbers):
            windows[feature.window_us or 0].setdefault(lane, 0)
    lanes = [(width, lane) for width, window in windows.items() for lane in window]
    places = {pair: place for place, pair in enumerate(lanes)}

    steps = [(RAW, number, 0) for number in range(len(fields))] if pipeline.raw_features else []
    for feature in pipeline.features:
        steps += _steps(feature, numbers, places)
    sizes = [len(window) for window in windows.values()]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    words = FIRST_WINDOW_WORD + WINDOW_WORDS * np.arange(len(sizes), dtype=np.int64) + 2 * starts[:-1]
    table = np.array(steps, np.int64).reshape(-1, 3)
    operation_F, first_F, second_F = (np.ascontiguousarray(table[:, place]) for place in range(3))
    plan = Plan(
        operation_F,
        first_F,
        second_F,
        np.array(list(windows), np.int64),
        words,
        starts,
        np.array([lane[0] for _, lane in lanes], np.int64),
        np.array([lane[1] for _, lane in lanes], np.int64),
    )
    is_keyed = any(step[0] in (TOTAL, MEAN, ELAPSED) for step in steps)
    head_words = FIRST_WINDOW_WORD + WINDOW_WORDS * len(sizes) + 2 * len(lanes)
    return FeaturePlan(columns(pipeline), fields, plan, is_keyed, head_words)


def _lanes(feature: Feature, numbers: dict[str, int]) -> list[Lane]:
    if feature.of == "*":
        return [(ROWS, 0)]
    field = numbers[feature.of]
    lanes = {"count": [(PRESENT, field)], "sum": [(SUM, field)], "mean": [(PRESENT, field), (SUM, field)]}
    return lanes[feature.operation]


def _steps(
    feature: Feature, numbers: dict[str, int], places: dict[tuple[int, Lane], int]
) -> list[tuple[int, int, int]]:
    if feature.operation == "elapsed":
        return [(ELAPSED, 0, 0)]
    if feature.operation == "cyclic":
        return [(SINE, PERIODS[feature.of], 0), (COSINE, PERIODS[feature.of], 0)]
    lanes = [places[feature.window_us or 0, lane] for lane in _lanes(feature, numbers)]
    return [(MEAN, lanes[0], lanes[1])] if feature.operation == "mean" else [(TOTAL, lanes[0], 0)]


@inlined
def write_vector_kernel(
    plan: Plan,
    values_KB: npt.NDArray[np.float64],
    row: int,
    time_us: int,
    elapsed_s: float,
    totals_T: npt.NDArray[np.float64],
    vectors_BF: npt.NDArray[np.float64],
    at: int,
) -> None:
    """Fill one row of the feature matrix from the event's fields and its entity's totals."""
    for column in range(plan.operation_F.size):
        operation, first = plan.operation_F[column], plan.first_F[column]
        if operation == RAW:
            value = values_KB[first, row]
        elif operation == TOTAL:
            value = totals_T[first]
        elif operation == MEAN:
            present = totals_T[first]
            value = totals_T[plan.second_F[column]] / present if present > 0 else math.nan
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
