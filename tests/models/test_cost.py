"""The cost of a candidate: what one call took, divided between predicting and learning."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.cost import MEASURED_STEPS, Cost


def test_the_costs_of_mixed_steps_are_told_apart() -> None:
    """Within the noise of the clock, here 5 % of each step."""
    rng, cost = np.random.default_rng(1), Cost()
    spent = np.zeros(2)
    for _ in range(400):
        predicted, learned = (int(n) for n in rng.integers(0, 1_000, 2))
        each = 3e-6 * predicted, 7e-6 * learned
        spent += each
        cost.add(sum(each) * rng.normal(1.0, 0.05), predicted, learned)

    assert (cost.predict_us, cost.learn_us) == pytest.approx((3.0, 7.0), rel=0.05)
    assert cost.take() == pytest.approx(tuple(spent), rel=0.05)
    assert cost.predict_p99_us == pytest.approx(3.0, rel=0.2)
    assert cost.take() == (0.0, 0.0)


def test_a_candidate_that_became_slower_is_seen_within_a_few_hundred_steps() -> None:
    rng, cost = np.random.default_rng(2), Cost()
    for slower in (1.0, 10.0):
        for _ in range(500):
            predicted, learned = (int(n) for n in rng.integers(1, 1_000, 2))
            cost.add(slower * (1e-6 * predicted + 2e-6 * learned), predicted, learned)

    assert (cost.predict_us, cost.learn_us) == pytest.approx((10.0, 20.0), rel=0.05)


def test_steps_that_are_all_alike_share_their_time_evenly() -> None:
    """Two unknowns cannot be told from one kind of step; a guess must not be negative or endless."""
    cost = Cost()
    for _ in range(10):
        cost.add(30e-6, 10, 20)

    assert (cost.predict_us, cost.learn_us) == pytest.approx((1.0, 1.0))
    assert cost.take() == pytest.approx((100e-6, 200e-6))


def test_nothing_done_costs_nothing() -> None:
    cost = Cost()
    cost.add(1.0, 0, 0)

    assert math.isnan(cost.predict_us)
    assert (cost.take(), cost.predict_p99_us) == ((0.0, 0.0), 0.0)


def test_the_percentile_is_of_the_newest_steps() -> None:
    cost = Cost()
    for micros in [1_000.0] * MEASURED_STEPS + [1.0] * (MEASURED_STEPS - 1) + [50.0]:
        cost.add(micros * 1e-6, 1, 0)

    assert cost.predict_p99_us == pytest.approx(1.0)
