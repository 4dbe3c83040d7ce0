"""The figures of trained models, and weights of classes, are scikit-learn's."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from models import class_weights, figures
from models.class_weights import balanced_weights
from models.figures import figures_of
from streams.pipeline import Task

ROWS = 2_000


def test_figures_of_probabilities_are_scikit_learns() -> None:
    """Those of yes; predictions without a label are passed over."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.99, ROWS).round(2)
    y = (rng.random(ROWS) < p).astype(float)
    found = figures_of(Task(), np.append(y, np.nan), np.append(p, 0.5))

    assert found["labels"] == ROWS
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), abs=1e-9)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y, p), abs=1e-9)
    assert found["pr_auc"] == pytest.approx(metrics.average_precision_score(y, p), abs=1e-9)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-9)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, p >= 0.5), abs=1e-9)
    assert found["f1"] == pytest.approx(metrics.f1_score(y, p >= 0.5), abs=1e-9)


def test_figures_of_classes_are_scikit_learns() -> None:
    """Of a probability of each class."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet([2.0, 2.0, 2.0], ROWS).clip(0.01)
    p /= p.sum(axis=1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in p]).astype(float)
    found = figures_of(Task("multiclass", ("a", "b", "c")), y, p)

    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), abs=1e-9)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(y, p.argmax(axis=1), average="macro"), abs=1e-9)
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(y, p.argmax(axis=1)), abs=1e-9)
    assert found["macro_auc"] == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"), abs=1e-9)
    assert found["macro_pr_auc"] == pytest.approx(metrics.average_precision_score(y, p, average="macro"), abs=1e-9)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, p, scale_by_half=False), abs=1e-9)


def test_figures_of_numbers_are_scikit_learns() -> None:
    """A network's answers are float32, and may come as a column."""
    rng = np.random.default_rng(2)
    y = rng.normal(100, 20, ROWS)
    said = (y + rng.normal(0, 5, ROWS)).astype(np.float32)
    found = figures_of(Task("regression"), y, said[:, None])

    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, said), abs=1e-6)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, said), abs=1e-6)
    assert found["r2"] == pytest.approx(metrics.r2_score(y, said), abs=1e-6)
    assert found["pinball_10"] == pytest.approx(metrics.mean_pinball_loss(y, said, alpha=0.1), abs=1e-6)
    assert found["pinball_90"] == pytest.approx(metrics.mean_pinball_loss(y, said, alpha=0.9), abs=1e-6)


@pytest.mark.parametrize("alert", [None, 0.1])
def test_figures_of_anomalies_are_scikit_learns(alert: float | None) -> None:
    """Scores without a threshold are judged by the task's; events without a label count among alerts."""
    rng = np.random.default_rng(3)
    y = (rng.random(ROWS) < 0.1).astype(float)
    score = np.clip(0.3 * y + rng.uniform(0, 0.7, ROWS), 0, 1)
    task = Task("anomaly", threshold=0.6, alert=alert)
    said = score if alert is None else np.column_stack([score, np.full(ROWS, 0.6)])
    label = np.where(rng.random(ROWS) < 0.2, np.nan, y)
    has_label = ~np.isnan(label)
    found = figures_of(task, label, said)

    assert found["labels"] == ROWS
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y[has_label], score[has_label]), abs=1e-9)
    assert found["recall"] == pytest.approx(metrics.recall_score(y[has_label], score[has_label] >= 0.6), abs=1e-9)
    assert found["alert_rate"] == pytest.approx((score >= 0.6).mean(), abs=1e-9)


def test_what_is_not_known_is_none() -> None:
    """JSON has no NaN: of one class there is no area, of nothing there is nothing."""
    assert figures_of(Task(), np.ones(5), np.full(5, 0.5))["auc"] is None
    assert figures_of(Task(), np.array([]), np.array([]))["log_loss"] is None


@pytest.mark.parametrize("task", [Task(), Task("multiclass", ("a", "b", "c"))])
def test_weights_are_scikit_learns(task: Task) -> None:
    """Of classes that came, whatever of them has no label."""
    rng = np.random.default_rng(4)
    y = rng.choice(max(2, len(task.classes)), ROWS, p=[0.9, 0.1] if not task.classes else [0.7, 0.2, 0.1])
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y)

    assert balanced_weights(task, np.append(y, np.nan)).tolist() == pytest.approx(expected.tolist())


def test_a_class_that_did_not_come_weighs_one() -> None:
    """It must not make a loss infinite; the others are balanced among themselves."""
    task = Task("multiclass", ("a", "b", "c"))

    assert balanced_weights(task, np.array([0.0, 2.0, 2.0, 2.0])).tolist() == [2.0, 1.0, 4 / 6]


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    names = {"np": np, "Task": Task}

    assert doctest.testmod(figures, extraglobs=names).failed == 0
    assert doctest.testmod(class_weights, extraglobs=names).failed == 0
