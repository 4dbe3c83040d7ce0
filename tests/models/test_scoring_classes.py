"""Figures of several classes equal scikit-learn's and their definitions, since the start within their error."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics

from models.scoring import Scores
from models.scoring_multiclass import MulticlassQuality
from models.tally import ROLLING_LABELS, add_score, give_score, take_score
from models.tally_odds import bin_centers, odds_bin, odds_bins
from streams.errors import ModelError
from streams.pipeline import Task
from tests.scoring import judged, scored

Floats = npt.NDArray[np.float64]

TASK = Task("multiclass", ("a", "b", "c", "d"))


def drawn(rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Give probabilities, some of them 0 and 1, many equal, and labels that they say something about."""
    rng = np.random.default_rng(seed)
    said = rng.dirichlet([2.0, 1.0, 0.5, 0.1], rows).round(2)
    said[:, 0] += 1.0 - said.sum(axis=1)
    said = np.clip(said, 0.0, 1.0)
    label = np.array([rng.choice(4, p=0.7 * row / row.sum() + 0.075) for row in said], float)
    return said, label


def calibration(said: Floats, label: Floats) -> float:
    """Go by the definition, tenth by tenth."""
    top, is_right, total = said.max(axis=1), said.argmax(axis=1) == label, 0.0
    for tenth in range(10):
        inside = (top * 10).astype(int).clip(max=9) == tenth
        if inside.any():
            total += inside.sum() * abs(top[inside].mean() - is_right[inside].mean())
    return float(total / len(label))


def test_figures_that_need_no_order_equal_scikit_learns_since_the_start_and_of_late() -> None:
    said, label = drawn(2_000)

    for quality in judged(scored(TASK, said, label), MulticlassQuality):
        brier = ((said - np.eye(4)[label.astype(int)]) ** 2).sum(axis=1).mean()
        assert quality.brier == pytest.approx(brier, abs=1e-12)
        assert quality.accuracy == pytest.approx(metrics.accuracy_score(label, said.argmax(axis=1)), abs=1e-12)


def test_rolling_areas_and_calibration_equal_scikit_learns_and_the_definition() -> None:
    said, label = drawn(2_000)
    quality, hot = judged(scored(TASK, said, label), MulticlassQuality)[1], np.eye(4)[label.astype(int)]

    assert quality.macro_auc == pytest.approx(metrics.roc_auc_score(hot, said, average="macro"), abs=1e-12)
    assert quality.macro_auc_error == 0.0
    assert quality.macro_pr_auc == pytest.approx(metrics.average_precision_score(hot, said, average="macro"), abs=1e-12)
    assert quality.calibration_error == pytest.approx(calibration(said, label), abs=1e-12)


def test_areas_and_calibration_since_the_start_are_as_near_as_they_say() -> None:
    said, label = drawn(4_000, seed=1)
    quality, hot = judged(scored(TASK, said, label), MulticlassQuality)[0], np.eye(4)[label.astype(int)]
    area = metrics.roc_auc_score(hot, said, average="macro")

    assert abs(quality.macro_auc - area) <= quality.macro_auc_error < 0.1  # many probabilities are equal
    assert quality.macro_auc == pytest.approx(area, abs=1e-4)
    assert quality.macro_pr_auc == pytest.approx(metrics.average_precision_score(hot, said, average="macro"), abs=1e-3)
    assert quality.calibration_error == pytest.approx(calibration(said, label), abs=3e-3)


def test_the_binned_area_of_spread_out_probabilities_is_within_a_thousandth() -> None:
    rng = np.random.default_rng(2)
    said = rng.dirichlet([1.0, 1.0, 1.0, 0.2], 4_000)
    label = np.array([rng.choice(4, p=row) for row in said], float)
    quality = judged(scored(TASK, said, label), MulticlassQuality)[0]
    area = metrics.roc_auc_score(np.eye(4)[label.astype(int)], said, average="macro")

    assert abs(quality.macro_auc - area) <= quality.macro_auc_error < 2e-3
    assert abs(quality.macro_auc - area) < 2e-4


def test_a_class_that_never_came_is_in_no_mean() -> None:
    said, label = drawn(500)
    label[label == 3.0] = 0.0
    hot = np.eye(4)[label.astype(int)]

    for quality, within in zip(judged(scored(TASK, said, label), MulticlassQuality), (1e-4, 1e-12), strict=True):
        expected = metrics.roc_auc_score(hot[:, :3], said[:, :3], average="macro")
        assert quality.macro_auc == pytest.approx(expected, abs=within)


def test_of_one_class_there_is_no_area_and_its_precision_is_whole() -> None:
    said, _ = drawn(50)

    for quality in judged(scored(TASK, said, np.zeros(50)), MulticlassQuality):
        assert math.isnan(quality.macro_auc)
        assert math.isnan(quality.macro_auc_error)
        assert quality.macro_pr_auc == 1.0


def test_rolling_figures_are_of_the_last_ten_thousand_labels() -> None:
    said, label = drawn(ROLLING_LABELS + 300, seed=3)
    whole, late = (
        judged(scored(TASK, said, label), MulticlassQuality)[1],
        judged(scored(TASK, said[300:], label[300:]), MulticlassQuality)[1],
    )

    assert whole == pytest.approx(late, abs=1e-12)


def test_a_score_that_is_taken_away_leaves_no_trace_in_counts() -> None:
    said, label = drawn(300, seed=4)
    scores, other = scored(TASK, said, label), Scores(TASK)
    for row in range(100):
        take_score(scores.tally, said, row, label[row])
    for row in range(100, 300):
        give_score(other.tally, said, row, label[row])

    assert np.array_equal(scores.tally.bins, other.tally.bins)
    assert scores.since_start() == pytest.approx(other.since_start(), abs=1e-12)


def test_restored_scores_go_on() -> None:
    said, label = drawn(400, seed=5)
    first, whole, second = scored(TASK, said[:250], label[:250]), scored(TASK, said, label), Scores(TASK)
    second.restore(first.state())
    for row in range(250, 400):
        add_score(second.tally, said, row, label[row])

    assert second.since_start() == whole.since_start()
    assert second.rolling() == whole.rolling()


def test_a_tally_without_counts_by_class_is_refused() -> None:
    """As releases before had it."""
    with pytest.raises(ModelError, match="the scores' bins is not whole"):
        Scores(TASK).restore({**Scores(TASK).state(), "bins": np.zeros((2, 0), np.int64)})


def test_every_probability_has_one_bin_in_rising_order() -> None:
    rising = np.sort(np.concatenate([np.random.default_rng(6).random(500) ** 8, [5e-324, 1e-300, 0.5, 1.0 - 1e-16]]))
    for bits in (6, 9):
        places = [odds_bin(p, bits) for p in rising.tolist()]
        last = odds_bins(bits) - 1

        assert places == sorted(places)
        assert [odds_bin(p, bits) for p in bin_centers(bits).tolist()] == list(range(last + 1))
        assert [odds_bin(p, bits) for p in (0.0, -0.5, math.nan, 1.0, 1.5)] == [0, 0, 0, last, last]
        assert odds_bin(0.5, bits) == odds_bin(0.49999999999999994, bits) + 1 == (last + 1) // 2
