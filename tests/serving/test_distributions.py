"""Distributions of feature columns: against numpy's and Python's own, by hand where it is short."""

from __future__ import annotations

import doctest
import math
import statistics

import numpy as np
import pytest

from serving import distributions
from serving.distributions import BINS, CategoryColumn, Histogram, NumberColumn, bars
from streams.frames import Column


def number(*values: float) -> NumberColumn:
    """The description of one column of numbers."""
    found = distributions.distributions([Column("x", is_category=False)], np.array(values).reshape(-1, 1))[0]
    assert isinstance(found, NumberColumn)
    return found


def test_a_column_of_numbers_is_told_without_its_missing_values() -> None:
    """0 to 100 in any order, and as many gaps again."""
    values = [*map(float, range(100, -1, -1)), *[math.nan] * 101]
    found = number(*values)
    percentiles = statistics.quantiles(range(101), n=100, method="inclusive")

    assert (found.values, found.missing, found.mean, found.least, found.most) == (101, 0.5, 50.0, 0.0, 100.0)
    assert (found.low, found.median, found.high) == (percentiles[4], percentiles[49], percentiles[94])
    assert found.histogram is not None
    assert (found.histogram.low, found.histogram.high) == (percentiles[0], percentiles[98])
    assert sum(found.histogram.counts) == 101


def test_bins_are_of_equal_width_and_outliers_count_at_the_ends() -> None:
    """One value a million times too large leaves all others where they are."""
    found = number(*np.repeat(np.arange(12.0), 100), 1e9, -1e9).histogram

    assert found == Histogram(0.0, 11.0, (101, *[100] * 10, 101))
    assert len(found.counts) == BINS


def test_values_that_are_nearly_all_one_show_where_the_others_lie() -> None:
    """The 1 % and 99 % quantiles are the same, so the bins reach from the smallest to the largest."""
    found = number(*[0.0] * 999, 12.0).histogram

    assert found == Histogram(0.0, 12.0, (999, *[0] * 10, 1))
    assert number(*[7.0] * 5).histogram == Histogram(7.0, 7.0, (5,))


def test_a_column_without_values_has_nothing_to_tell() -> None:
    """Not even a mean."""
    assert number(math.nan, math.nan) == NumberColumn("x", 0, 1.0, None, None, None, None, None, None, None)


def test_an_infinity_is_told_and_not_drawn() -> None:
    """A ratio may be too large for a float."""
    found = number(1.0, 2.0, math.inf)

    assert (found.values, found.mean, found.most) == (3, math.inf, math.inf)
    assert found.histogram is not None
    assert sum(found.histogram.counts) == 2
    assert number(math.inf).histogram is None


def test_a_column_of_codes_is_told_by_how_many_and_the_most_frequent() -> None:
    """Codes are no numbers: they have no mean."""
    values = np.array([[3.0], [5.0], [3.0], [math.nan], [3.0]])
    column = Column("shop", is_category=True)

    assert distributions.distributions([column], values) == (CategoryColumn("shop", 4, 1 - 4 / 5, 2, 0.75),)
    assert distributions.distributions([column], values[3:4]) == (CategoryColumn("shop", 0, 1.0, 0, None),)


@pytest.mark.parametrize(
    ("counts", "drawn"),
    [((0, 1, 8), " ▁█"), ((1, 1_000_000), "▁█"), ((4, 5, 8), "▄▅█"), ((3,), "█"), ((0, 2, 0), " █ ")],
)
def test_bars_are_as_high_as_their_counts(counts: tuple[int, ...], drawn: str) -> None:
    """In eighths of the highest; a single value can be seen."""
    assert bars(Histogram(0.0, 1.0, counts)) == drawn


def test_examples_in_the_docstrings_run() -> None:
    """What they print is what is printed."""
    assert doctest.testmod(distributions).failed == 0
