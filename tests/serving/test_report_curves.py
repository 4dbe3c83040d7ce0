"""Curves of a report are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from serving.report_curves import MOST_POINTS, calibration, confusion, precision_recall, roc_curve


def predictions(size: int, digits: int = 9) -> tuple[Any, Any]:
    rng = np.random.default_rng(size)
    said = rng.beta(1.5, 3.0, size).round(digits)
    return said, rng.random(size) < said**1.3


@pytest.mark.parametrize(("size", "digits"), [(150, 9), (150, 1), (20_000, 9), (20_000, 2)])
def test_roc_and_precision_are_as_scikit_learn_has_them(size: int, digits: int) -> None:
    """Also where many scores are the same; a long curve is thinned and stays where it was."""
    said, is_yes = predictions(size, digits)
    fpr, tpr, _ = metrics.roc_curve(is_yes, said, drop_intermediate=False)
    found = roc_curve(said, is_yes)

    assert found.area == pytest.approx(metrics.roc_auc_score(is_yes, said), abs=1e-12)
    assert found.x_P.size <= MOST_POINTS + 2
    assert {(x, y) for x, y in zip(found.x_P, found.y_P, strict=True)} <= set(zip(fpr, tpr, strict=True))
    assert (found.x_P[0], found.y_P[0], found.x_P[-1], found.y_P[-1]) == (0.0, 0.0, 1.0, 1.0)
    apart = (np.abs(fpr[:, None] - found.x_P) + np.abs(tpr[:, None] - found.y_P)).min(axis=1)
    assert apart.max() < (0.02 if fpr.size > MOST_POINTS else 1e-12)

    precision, recall, _ = metrics.precision_recall_curve(is_yes, said)
    found = precision_recall(said, is_yes)
    assert found.area == pytest.approx(metrics.average_precision_score(is_yes, said), abs=1e-12)
    theirs = set(zip(recall.round(12), precision.round(12), strict=True))
    assert {(x, y) for x, y in zip(found.x_P.round(12), found.y_P.round(12), strict=True)} <= theirs


def test_one_kind_of_label_has_no_curve() -> None:
    said, _ = predictions(50)

    assert roc_curve(said, np.ones(50, bool)).x_P.size == 0
    assert np.isnan(precision_recall(said, np.zeros(50, bool)).area)


def test_calibration_is_as_scikit_learn_has_it() -> None:
    said, is_yes = predictions(3_000)
    came, mean = calibration_curve(is_yes, said, n_bins=10)
    found = calibration(said, is_yes)

    assert found.said_K == pytest.approx(mean)
    assert found.came_K == pytest.approx(came)
    assert found.count_K.sum() == 3_000
    assert found.error == pytest.approx(float((np.abs(came - mean) * found.count_K).sum() / 3_000))


def test_confusion_is_as_scikit_learn_has_it_and_leaves_out_what_is_unknown() -> None:
    rng = np.random.default_rng(3)
    label, said = rng.integers(0, 4, 500).astype(float), rng.integers(0, 4, 500).astype(float)
    expected = metrics.confusion_matrix(label[10:], said[10:], labels=range(4))
    label[:10] = np.nan

    assert confusion(label, said, 4).tolist() == expected.tolist()
