"""The confidence sequence: many digits by mpmath, the mixture it is a bound of, and walks that cross it."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import stats

from models.confidence import critical_value, rare_losses, share_of_alpha, students

SHARES = (0.3, 0.0304, 0.001, 1e-6)
TIMES = (50, 100, 317, 1_000, 100_000)


@pytest.mark.parametrize("a", SHARES)
@pytest.mark.parametrize("t", TIMES)
def test_the_critical_value_is_that_of_forty_digits(a: float, t: int) -> None:
    with mpmath.workdps(40):
        q = -2 * mpmath.log(2 * mpmath.mpf(a))
        rho = mpmath.sqrt((q + mpmath.log(1 + q)) / 100)
        grown = t * rho**2 + 1
        margin = mpmath.sqrt(2 * grown / (t * rho) ** 2 * mpmath.log(1 + mpmath.sqrt(grown) / (2 * a)))
        expected = margin * mpmath.sqrt(t)  # the paper's margin is of the mean

        assert critical_value(t, a) == pytest.approx(float(expected), rel=1e-13)


def mixture(walk: float, t: int, a: float) -> float:
    """The supermartingale at sum `walk`: exponential ones, mixed over slopes that are half-normal, integrated."""
    q = -2.0 * math.log(2.0 * a)
    rho = math.sqrt((q + math.log1p(q)) / 100.0)
    peak, width = max(walk / (t + 1.0 / rho**2), 0.0), 1.0 / math.sqrt(t + 1.0 / rho**2)

    def density(slope: Any) -> Any:
        weight = mpmath.exp(-(slope**2) / (2 * rho**2)) * mpmath.sqrt(2 / mpmath.pi) / rho
        return mpmath.exp(slope * walk - slope**2 * t / 2) * weight

    ends = sorted({0.0, max(peak - 10 * width, 0.0), peak, peak + 10 * width, peak + 60 * width})
    return float(mpmath.quad(density, ends))


@pytest.mark.parametrize("a", [0.0304, 0.001])
@pytest.mark.parametrize("t", [50, 100, 1_000])
def test_it_is_a_bound_by_villes_inequality_and_hardly_wider(a: float, t: int) -> None:
    """A mixture of exponential supermartingales that starts at 1 reaches 1/a with chance a: no sooner than at z."""
    z = critical_value(t, a)

    assert mixture(z * math.sqrt(t), t, a) >= 1.0 / a
    assert mixture(0.98 * z * math.sqrt(t), t, a) < 1.0 / a


def test_walks_cross_it_at_any_time_no_more_often_than_told() -> None:
    rng, a = np.random.default_rng(0), 0.05
    walks = rng.normal(size=(2_000, 4_000)).cumsum(axis=0)
    z = np.array([critical_value(t, a) for t in range(1, 2_001)])
    crossed = float((walks > (z * np.sqrt(np.arange(1, 2_001)))[:, None]).any(axis=0).mean())

    assert 0.2 * a < crossed <= a


@pytest.mark.parametrize("f", [49, 60, 99])
@pytest.mark.parametrize("z", [2.5, 3.2, 4.0])
def test_students_correction_is_students_distribution(z: float, f: int) -> None:
    """Chances of some ten-thousandths are met within 1 %."""
    assert stats.t.sf(students(z, f), f) == pytest.approx(stats.norm.sf(z), rel=0.01)


@pytest.mark.parametrize("challengers", [1, 3])
def test_all_shares_of_all_epochs_add_up_to_alpha(challengers: int) -> None:
    total = challengers * sum(share_of_alpha(0.05, epoch, challengers) for epoch in range(1, 100_001))

    assert total == pytest.approx(0.05, rel=1e-5)
    assert total < 0.05


def test_losses_that_none_has_seen_are_as_rare_as_told() -> None:
    """Were a share p of losses the largest, none would be seen in N events with chance exp(-pN): p C is the term."""
    unseen = rare_losses(6.9, 0.01, 10_000)

    assert math.exp(-unseen / 6.9 * 10_000) == pytest.approx(0.01)
