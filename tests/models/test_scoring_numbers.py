"""Quantile losses of numbers equal scikit-learn's, since the start to the last bit, and tell quantiles apart."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics

from models.learner import LEARN, PREDICT, make_learner
from models.scoring import Scores
from models.scoring_regression import RegressionQuality
from models.tally import ROLLING_LABELS, give_score, take_score
from streams.errors import ModelError
from streams.pipeline import Model, Task
from tests.scoring import judged, scored

Floats = npt.NDArray[np.float64]

TASK = Task("regression")


def drawn(rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Give predictions and labels; every tenth is right to the bit."""
    rng = np.random.default_rng(seed)
    label = rng.lognormal(3.0, 1.0, rows)
    said = label + rng.normal(1.0, 5.0, rows)
    said[::10] = label[::10]
    return said[:, None], label


def test_quantile_losses_equal_scikit_learns_since_the_start_and_of_late() -> None:
    said, label = drawn(3_000)

    for quality in judged(scored(TASK, said, label), RegressionQuality):
        assert quality.pinball_10 == pytest.approx(metrics.mean_pinball_loss(label, said[:, 0], alpha=0.1), rel=1e-12)
        assert quality.pinball_90 == pytest.approx(metrics.mean_pinball_loss(label, said[:, 0], alpha=0.9), rel=1e-12)
        assert quality.coverage == (label <= said[:, 0]).mean()


@pytest.mark.parametrize("q", [0.01, 0.25, 0.5, 0.75, 0.99])
def test_the_loss_of_any_quantile_lies_on_the_line_through_both(q: float) -> None:
    said, label = drawn(1_000)
    quality, _ = judged(scored(TASK, said, label), RegressionQuality)
    slope = (quality.pinball_90 - quality.pinball_10) / 0.8

    expected = metrics.mean_pinball_loss(label, said[:, 0], alpha=q)
    assert quality.pinball_10 + slope * (q - 0.1) == pytest.approx(expected, rel=1e-9)
    assert quality.pinball_10 + quality.pinball_90 == pytest.approx(quality.mae, rel=1e-12)


def test_since_the_start_they_are_rounded_once() -> None:
    said, label = drawn(500)
    errors = [Fraction(error) for error in (said[:, 0] - label).tolist()]
    of_each = [error / 10 * 9 if error > 0 else -error / 10 for error in errors]

    assert judged(scored(TASK, said, label), RegressionQuality)[0].pinball_10 == float(sum(of_each, Fraction(0))) / 500


def test_rolling_figures_are_of_the_last_ten_thousand_labels() -> None:
    said, label = drawn(ROLLING_LABELS + 300, seed=1)

    whole, late = (
        judged(scored(TASK, said, label), RegressionQuality)[1],
        judged(scored(TASK, said[300:], label[300:]), RegressionQuality)[1],
    )
    assert whole == pytest.approx(late, rel=1e-12)


def test_a_mistyped_label_that_is_amended_leaves_no_trace() -> None:
    said, label = drawn(200)
    scores, right = scored(TASK, said, label), scored(TASK, said, label)
    for mistyped in (1e30, -1e30):
        take_score(scores.tally, said, 7, label[7])
        give_score(scores.tally, said, 7, mistyped)
        take_score(scores.tally, said, 7, mistyped)
        give_score(scores.tally, said, 7, label[7])

    assert scores.since_start() == right.since_start()


def test_a_model_that_learns_a_quantile_has_the_least_loss_of_it_and_covers_it() -> None:
    rng = np.random.default_rng(2)
    label, rows = rng.exponential(1.0, 20_000), np.empty((40_000, 0))
    action = np.tile([PREDICT, LEARN], 20_000).astype(np.int8)
    found = {}
    for q in (0.1, 0.9):
        params = {"loss": "quantile", "quantile": q, "intercept_lr": 0.01}
        learner = make_learner(Model("m", "linear", params), (), None, TASK)
        said = learner.step(rows, label.repeat(2), action)[::2]
        found[q] = judged(scored(TASK, said[10_000:, None], label[10_000:]), RegressionQuality)[0]

    assert found[0.1].pinball_10 < found[0.9].pinball_10
    assert found[0.9].pinball_90 < found[0.1].pinball_90
    assert found[0.1].coverage == pytest.approx(0.1, abs=0.02)
    assert found[0.9].coverage == pytest.approx(0.9, abs=0.02)


def test_a_sum_beyond_all_numbers_is_infinite_and_nothing_raises() -> None:
    said, label = np.array([[1.7e308], [-1.7e308], [1.0]]), np.array([-1.7e308, 1.7e308, math.inf])
    for rows in (2, 3):
        with np.errstate(all="ignore"):  # NumPy would warn of what compiled code does silently
            quality, _ = judged(scored(TASK, said[:rows], label[:rows]), RegressionQuality)

        assert quality.pinball_10 == quality.pinball_90 == quality.mae == math.inf


def test_a_tally_that_did_not_tell_too_little_from_too_much_is_refused() -> None:
    """As releases before had it."""
    before = Scores(TASK).state()
    with pytest.raises(ModelError, match="the scores' exact is not whole"):
        Scores(TASK).restore({**before, "exact": before["exact"][:4]})
