"""Aggregates, windows and phases computed another way: over plain rows and values, straight from the definitions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from streams.pipeline import Feature
from tests.distinct_reference import reference_count, reference_registers

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CONDITIONS: dict[str, Callable[[Row], bool]] = {
    "amount > 2": lambda row: (row.get("field.amount") or 0) > 2,
    "is_new and shop == 'north'": lambda row: bool(row.get("field.is_new")) and row.get("field.shop") == "north",
}


def aggregated(feature: Feature, values: list[float]) -> float:
    """What an aggregate says of the values it covers."""
    operation = feature.operation
    if operation == "distinct":
        return reference_count(feature.precision, reference_registers(feature.precision, values))
    if operation == "count":
        return float(len(values))
    if operation == "frequency":
        return len(values) / ((feature.window_us or 0) / 86_400e6)
    if operation == "target":
        return (math.fsum(values) + feature.prior * feature.weight) / (len(values) + feature.weight)
    if operation == "sum":
        return math.fsum(values)
    if operation == "std":
        return statistics.stdev(values) if len(values) > 1 else math.nan
    if not values:
        return math.nan
    if operation in ("min", "max"):
        return min(values) if operation == "min" else max(values)
    return math.fsum(values) / len(values)


def weighted(operation: str, kept: list[tuple[int, float]], half_life_us: int) -> float:
    """Exponentially weighted mean or deviation, from the sums that define them (pandas' `ewm`, adjusted)."""
    if not kept or (operation == "ewm_std" and len(kept) < 2):
        return math.nan
    weights = [0.5 ** ((kept[-1][0] - time) / half_life_us) for time, _ in kept]
    total = math.fsum(weights)
    mean = math.fsum(w * value for w, (_, value) in zip(weights, kept, strict=True)) / total
    if operation == "ewm_mean":
        return mean
    squares = math.fsum(w * (value - mean) ** 2 for w, (_, value) in zip(weights, kept, strict=True))
    rest = 2 * math.fsum(v * w for i, v in enumerate(weights) for w in weights[:i]) / total
    return math.sqrt(squares / rest) if rest > 0 else math.nan


def bucket(time_us: int, width_us: int) -> int:
    """The bucket of a time: floor(time / (w/12)), in exact arithmetic."""
    return math.floor(Fraction(time_us) / Fraction(width_us, 12))


def covered_rows(past: list[Row], time_us: int, newest: int | None, width_us: int) -> list[Row]:
    """The earlier rows that an event's window covers: buckets b-11..b in order, b-11..b-1 out of order.

    Buckets more than 22 before the newest are gone; only a row that is itself older than the window can miss them.
    """
    own = bucket(time_us, width_us)
    if newest is None or time_us >= newest:
        first, last = own - 11, own
    else:
        first, last = max(own - 11, bucket(newest, width_us) - 22), own - 1
    return [other for other in past if first <= bucket(other["time"], width_us) <= last]


def phase(period: str, time_us: int) -> float:
    """How much of the UTC day, week from Monday or calendar year has passed."""
    moment = EPOCH + timedelta(microseconds=time_us)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "hour":
        return (moment - day) / timedelta(days=1)
    if period == "weekday":
        return (moment - (day - timedelta(days=day.weekday()))) / timedelta(days=7)
    start = day.replace(month=1, day=1)
    return (moment - start) / (start.replace(year=start.year + 1) - start)
