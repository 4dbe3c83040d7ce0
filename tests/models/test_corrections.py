"""Metrics that were corrected equal those of the final labels alone, whatever the task."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.exact_sums import add_exactly, add_square_exactly, empty_sums, exact_total
from models.scoring import Scores
from models.scoring_regression import RegressionQuality
from models.tally import add_score, give_score, take_score
from streams.pipeline import Task

TASKS = {"binary": Task(), "multiclass": Task("multiclass", ("a", "b", "c")), "regression": Task("regression")}


def predictions(task: Task, rng: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    if task.kind == "regression":
        return rng.normal(20.0, 5.0, (size, 1))
    said: npt.NDArray[np.float64] = rng.dirichlet(np.ones(task.outputs + 1), size)[:, : task.outputs]
    return said


def a_label(task: Task, rng: random.Random) -> float:
    if task.kind == "regression":
        return rng.choice([rng.gauss(20.0, 5.0), rng.gauss(20.0, 5.0), 1e20, -1e30, 0.0])
    return float(rng.randrange(len(task.classes) or 2))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_corrected_metrics_equal_those_of_the_final_labels_alone(task: Task) -> None:
    """Some labels change several times, some are retracted and some of these set again."""
    rng = random.Random(4)
    said = predictions(task, np.random.default_rng(4), 3_000)
    corrected, final = Scores(task), [a_label(task, rng) for _ in said]
    for row, label in enumerate(final):
        add_score(corrected.tally, said, row, label)
    for _ in range(4_000):
        row = rng.randrange(len(final))
        if not math.isnan(final[row]):
            take_score(corrected.tally, said, row, final[row])
        final[row] = rng.choice([a_label(task, rng), a_label(task, rng), math.nan])
        if not math.isnan(final[row]):
            give_score(corrected.tally, said, row, final[row])
    for row, label in enumerate(final):  # in the end all mistyped numbers are put right
        if abs(label) > 1e10:
            take_score(corrected.tally, said, row, label)
            give_score(corrected.tally, said, row, 20.0)
            final[row] = 20.0
    at_once = Scores(task)
    for row, label in enumerate(final):
        if not math.isnan(label):
            add_score(at_once.tally, said, row, label)

    assert corrected.since_start() == pytest.approx(at_once.since_start(), rel=1e-12, nan_ok=True)
    if task.kind == "regression":
        assert corrected.since_start() == at_once.since_start()
        check_regression(at_once, said, np.array(final))


def check_regression(scores: Scores, said: npt.NDArray[np.float64], label: npt.NDArray[np.float64]) -> None:
    is_known = ~np.isnan(label)
    error, known = (said[:, 0] - label)[is_known], label[is_known]
    quality = scores.since_start()
    assert isinstance(quality, RegressionQuality)
    assert quality.mae == pytest.approx(np.abs(error).mean(), rel=1e-12)
    assert quality.rmse == pytest.approx(math.sqrt((error**2).mean()), rel=1e-12)
    assert quality.r2 == pytest.approx(1.0 - (error**2).sum() / ((known - known.mean()) ** 2).sum(), rel=1e-10)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(FLOATS, st.sampled_from([1, -1])), max_size=40))
@settings(max_examples=200, deadline=None)
def test_an_exact_sum_equals_that_of_fractions(values: list[tuple[float, int]]) -> None:
    sums = empty_sums(2)
    for value, sign in values:
        add_exactly(sums, 1, value, sign)

    assert exact_total(sums[1]) == sum((sign * Fraction(value) for value, sign in values), Fraction(0))
    assert not sums[0].any()


@given(st.lists(st.floats(-1e30, 1e30).filter(lambda value: value == 0.0 or abs(value) > 1e-100), max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_sum_of_squares_is_exact_where_labels_may_lie(values: list[float]) -> None:
    sums = empty_sums(1)
    for value in values:
        add_square_exactly(sums, 0, value, 1)

    assert exact_total(sums[0]) == sum((Fraction(value) ** 2 for value in values), Fraction(0))


def test_digits_that_are_full_pass_on_what_they_hold() -> None:
    """A word holds 2^30 values; here each begins with nearly as many."""
    sums = empty_sums(1)
    sums[0, 30:36] = (1 << 62) - 1
    before = exact_total(sums[0])
    assert before is not None
    for _ in range(5):
        add_exactly(sums, 0, 1.75, 1)

    assert exact_total(sums[0]) == before + Fraction(35, 4)


def test_a_value_that_is_not_finite_makes_the_sum_unknown_until_it_is_taken_away() -> None:
    sums = empty_sums(1)
    add_exactly(sums, 0, 2.5, 1)
    add_exactly(sums, 0, math.inf, 1)
    assert exact_total(sums[0]) is None

    add_exactly(sums, 0, math.inf, -1)
    assert exact_total(sums[0]) == Fraction(5, 2)
