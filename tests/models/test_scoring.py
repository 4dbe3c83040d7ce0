"""Scores equal their definitions, and the curve's area is within the error it states."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scoring import Scores
from models.scoring_binary import BinaryQuality
from models.tally import ROLLING_LABELS, add_score, log_loss
from streams.errors import ModelError
from streams.pipeline import Task
from tests.scoring import judged, scored


def brute_force_auc(p: npt.NDArray[np.float64], y: npt.NDArray[np.bool_]) -> float:
    """Compare every positive with every negative."""
    difference = p[y][:, None] - p[~y][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 0.25, 1e-9, 1 - 1e-9])),
            st.booleans(),
        ),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=150, deadline=None)
def test_scores_equal_their_definitions(pairs: list[tuple[float, bool]]) -> None:
    p, y = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    scores = scored(Task(), p, y)
    start, rolling = judged(scores, BinaryQuality)

    loss = -np.log(np.clip(np.where(y, p, 1 - p), 0.001, 0.999)).mean()
    for quality in (start, rolling):
        assert quality.labels == len(pairs)
        assert quality.log_loss == pytest.approx(loss, abs=1e-12)
        assert quality.accuracy == pytest.approx(((p >= 0.5) == y).mean(), abs=1e-12)
    if y.all() or not y.any():
        assert math.isnan(start.auc)
        assert math.isnan(rolling.auc)
    else:
        assert rolling.auc == pytest.approx(brute_force_auc(p, y), abs=1e-12)
        assert abs(start.auc - brute_force_auc(p, y)) <= start.auc_error + 1e-12


def test_the_binned_area_of_a_realistic_model_is_within_a_ten_thousandth() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(-4, 1.5, 20_000)  # rare positives: most scores lie near 0
    y = rng.random(20_000) < 1 / (1 + np.exp(-logit))
    p = 1 / (1 + np.exp(-logit - rng.normal(0, 0.5, 20_000)))
    start, _ = judged(scored(Task(), p, y), BinaryQuality)

    assert abs(start.auc - brute_force_auc(p, y)) <= start.auc_error < 2e-4
    assert abs(start.auc - brute_force_auc(p, y)) < 1e-5


def test_rolling_scores_cover_exactly_the_last_ten_thousand_labels() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.random(ROLLING_LABELS + 500), rng.random(ROLLING_LABELS + 500) < 0.3
    (_, whole), last = (
        judged(scored(Task(), p, y), BinaryQuality),
        judged(scored(Task(), p[500:], y[500:]), BinaryQuality),
    )

    assert whole.auc == last[1].auc == pytest.approx(brute_force_auc(p[500:], y[500:]), abs=1e-12)
    assert whole.log_loss == pytest.approx(last[0].log_loss, abs=1e-12)
    assert whole.labels == ROLLING_LABELS


@pytest.mark.parametrize(
    ("p", "is_positive", "expected"),
    [
        (0.25, True, math.log(4)),
        (0.25, False, -math.log(0.75)),
        (0.0, True, -math.log(0.001)),
        (1.0, True, -math.log(0.999)),
        (math.nan, True, -math.log(0.001)),
        (math.nan, False, -math.log(0.001)),
    ],
)
def test_log_loss_is_bounded_and_a_broken_prediction_costs_the_most(
    p: float, is_positive: bool, expected: float
) -> None:
    assert log_loss(p, is_positive) == pytest.approx(expected, abs=1e-12)


def test_without_labels_nothing_is_claimed() -> None:
    scores = Scores()

    assert scores.since_start().labels == scores.rolling().labels == 0
    assert all(math.isnan(value) for quality in judged(scores, BinaryQuality) for value in quality[1:])


def test_restored_scores_go_on() -> None:
    rng = np.random.default_rng(2)
    p, y = rng.random(400), rng.random(400) < 0.5
    first, whole = scored(Task(), p[:250], y[:250]), scored(Task(), p, y)
    second = Scores()
    second.restore(first.state())
    for row in range(250, 400):
        add_score(second.tally, p[:, None], row, float(y[row]))

    assert second.since_start() == whole.since_start()
    assert second.rolling() == whole.rolling()
    with pytest.raises(ModelError, match="bins is not whole"):
        second.restore({**first.state(), "bins": np.zeros(3, np.int64)})
