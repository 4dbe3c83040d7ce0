"""The pyramid of means: its definition in exact fractions, and what does not change it."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from models import pyramid as pyramids
from models.pyramid import Pyramid, unpacked


def filled(values: Sequence[float]) -> Pyramid:
    pyramid = Pyramid()
    for value in values:
        pyramid.add(value)
    return pyramid


def reference(values: Sequence[float], least: int) -> tuple[int, int, Fraction, Fraction]:
    """Level, its values, its correlation and the long-run variance, from whole lists of exact fractions."""
    level, largest, found = 0, Fraction(0), (0, 0, Fraction(0))
    means = [Fraction(value) for value in values]
    while len(means) >= least:
        mean = sum(means) / len(means)
        apart = [value - mean for value in means]
        squares = sum(x * x for x in apart)
        products = sum(x * y for x, y in pairwise(apart))
        correlation = Fraction(products / squares)
        variance = squares / (len(means) - 1)
        largest = max(largest, 2**level * variance * (1 + 2 * max(Fraction(0), correlation)))
        found = level, len(means), correlation
        means = [(a + b) / 2 for a, b in zip(means[::2], means[1::2], strict=False)]
        level += 1
    return *found, largest


def remembering(phi: float, count: int, mean: float = 0.0) -> list[float]:
    rng, value, values = np.random.default_rng(0), 0.0, []
    for fresh in rng.normal(size=count).tolist():
        value = phi * value + fresh
        values.append(mean + 0.01 * value)
    return values


@pytest.mark.parametrize("phi", [0.0, 0.95, -0.7])
@pytest.mark.parametrize("count", [50, 99, 100, 317, 1_000])
def test_every_number_is_that_of_the_definition(phi: float, count: int) -> None:
    values = remembering(phi, count)
    level, size, correlation, variance = reference(values, 50)
    found = filled(values).spread(50)

    assert found is not None
    assert (found.level, found.values) == (level, size)
    assert float(found.correlation) == pytest.approx(float(correlation), rel=1e-9, abs=1e-12)
    assert float(found.long_run_variance) == pytest.approx(float(variance), rel=1e-12)
    assert float(filled(values).mean()) == pytest.approx(float(sum(map(Fraction, values)) / count), rel=1e-13)


def test_a_million_events_lose_nothing() -> None:
    """10,000 blocks whose mean is a million times as large as what they vary by."""
    values = remembering(0.9, 10_000, mean=1e4)
    _, _, _, variance = reference(values, 50)
    found = filled(values).spread(50)

    assert found is not None
    assert float(found.long_run_variance) == pytest.approx(float(variance), rel=1e-9)


def test_what_never_varies_has_no_variance_at_all() -> None:
    found = filled([0.1] * 1_000).spread(50)

    assert found is not None
    assert (float(found.long_run_variance), float(found.correlation)) == (0.0, 0.0)


def test_too_few_values_say_nothing() -> None:
    assert filled([1.0] * 49).spread(50) is None
    assert float(Pyramid().mean()) == 0.0


def test_series_side_by_side_are_those_alone_bit_for_bit() -> None:
    columns = [remembering(phi, 333) for phi in (0.0, 0.5, 0.9)]
    together = Pyramid((3,))
    for value in np.array(columns).T:
        together.add(value)
    found = together.spread(20)
    alone = [filled(column).spread(20) for column in columns]

    assert found is not None
    assert found.long_run_variance.tolist() == [float(one.long_run_variance) for one in alone if one]
    assert together.mean().tolist() == [float(filled(column).mean()) for column in columns]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 100, 511])
def test_a_packed_one_goes_on_as_if_nothing_had_been(count: int) -> None:
    values = remembering(0.5, 600)
    again = filled(values[:count])
    again = unpacked(again.packed(), again.count)
    for value in values[count:]:
        again.add(value)

    assert again.packed() == filled(values).packed()


def test_it_is_small_however_long_the_series_is() -> None:
    assert len(filled([float(i % 7) for i in range(20_000)]).packed()) <= 8 * (2 + 4 * 15)


def test_the_example_of_the_documentation_runs() -> None:
    assert doctest.testmod(pyramids).failed == 0
    assert doctest.testmod(pyramids).attempted > 0
