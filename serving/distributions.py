"""Distributions of feature columns: what the newest vectors of a pipeline look like, column by column."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from streams.frames import Column

BINS = 12
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
BLOCKS = "▁▂▃▄▅▆▇█"

Floats = npt.NDArray[np.float64]


class Histogram(msgspec.Struct, frozen=True):
    """Counts in bins of equal width; what lies outside is counted in the first or last.

    Attributes:
        low, high: the 1 % and 99 % quantiles, so that a few far values do not make all others one bin.
    """

    low: float
    high: float
    counts: tuple[int, ...]


class NumberColumn(msgspec.Struct, frozen=True, tag="number"):
    """A column of numbers; `missing` is a share. All but the counts are None where no value is there."""

    name: str
    values: int
    missing: float
    mean: float | None
    least: float | None
    low: float | None  # 5 % quantile
    median: float | None
    high: float | None  # 95 % quantile
    most: float | None
    histogram: Histogram | None


class CategoryColumn(msgspec.Struct, frozen=True, tag="category"):
    """A column of codes.

    Attributes:
        distinct: how many different codes.
        most_frequent: the share of the most frequent code among the values.
    """

    name: str
    values: int
    missing: float
    distinct: int
    most_frequent: float | None


def distributions(columns: Sequence[Column], vectors_BF: Floats) -> tuple[NumberColumn | CategoryColumn, ...]:
    """Describe every column of some feature vectors, at least one."""
    return tuple(_of_column(column, vectors_BF[:, place]) for place, column in enumerate(columns))


def _of_column(column: Column, values_B: Floats) -> NumberColumn | CategoryColumn:
    present = values_B[~np.isnan(values_B)]
    missing = 1 - present.size / values_B.size
    if column.is_category:
        counts = np.unique_counts(present).counts
        most = float(counts.max() / present.size) if present.size else None
        return CategoryColumn(column.name, present.size, missing, counts.size, most)
    if not present.size:
        return NumberColumn(column.name, 0, missing, *(None,) * 7)
    with np.errstate(invalid="ignore", over="ignore"):  # features may be infinite, and so may be what is told of them
        _, low, median, high, _ = np.quantile(present, QUANTILES).tolist()
        mean, least, most = float(present.mean()), float(present.min()), float(present.max())
    return NumberColumn(column.name, present.size, missing, mean, least, low, median, high, most, _histogram(present))


def _histogram(values: Floats) -> Histogram | None:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, *_, high = np.quantile(finite, QUANTILES).tolist()
    if low == high:  # nearly all values are one: show where the others lie
        low, high = float(finite.min()), float(finite.max())
    counts = np.histogram(np.clip(finite, low, high), BINS, (low, high))[0] if low < high else np.array([finite.size])
    return Histogram(low, high, tuple(counts.tolist()))


def bars(histogram: Histogram) -> str:
    """Draw a histogram in one line; a bin without values is blank, one with a single value is not.

    >>> bars(Histogram(0.0, 4.0, (1, 0, 400, 800)))
    '▁ ▄█'
    """
    most = max(histogram.counts)
    return "".join(BLOCKS[-(-count * len(BLOCKS) // most) - 1] if count else " " for count in histogram.counts)
