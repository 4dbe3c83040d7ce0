"""Learners of classes and of numbers equal River's, and their figures equal their definitions."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import compose, linear_model, optim, preprocessing, tree
from river import metrics as river_metrics

from models.learner import LEARN, PREDICT, Learner, make_learner
from models.scoring import Scores
from models.scoring_binary import BinaryQuality
from models.scoring_multiclass import MulticlassQuality
from models.scoring_regression import RegressionQuality
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from tests.scoring import scored

KEY = b"k" * 32
COLUMNS = (Column("delay", False), Column("carrier", True), Column("distance", False))
CLASSES = Task("multiclass", ("on time", "late", "cancelled"))
NUMBERS = Task("regression")
ROWS = 3_000

Floats = npt.NDArray[np.float64]
metrics: Any = river_metrics  # untyped


def flights(rows: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Give features, and for each row a class and a number that depend on them."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(10, 40, rows), rng.integers(0, 9, rows).astype(float), rng.lognormal(6, 1, rows)])
    logit = X[:, 0] / 40 + (X[:, 1] > 5)
    place = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(float) + (rng.random(rows) < 0.1)
    minutes = 3.0 * X[:, 0] + 20 * (X[:, 1] > 5) + rng.normal(0, 5, rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, place, minutes


def dicts(X: Floats) -> list[dict[str, float | str]]:
    return [
        {c.name: str(int(v)) if c.is_category else v for c, v in zip(COLUMNS, row, strict=True) if not np.isnan(v)}
        for row in X.tolist()
    ]


def delayed(rows: int, seed: int = 1) -> npt.NDArray[np.int64]:
    """Give an order of events (i) and labels (-1 - i) where each label comes 1 to 200 events later."""
    due = np.arange(rows) + np.random.default_rng(seed).integers(1, 200, rows)
    order = np.concatenate([np.arange(rows), -1 - np.arange(rows)])
    return order[np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")]


def scaled(last: Any) -> Any:
    number = compose.SelectType(numbers.Number) | preprocessing.StandardScaler()
    category = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return number + category | last


def drive(learner: Learner, X: Floats, y: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    order = delayed(len(X))
    event = np.where(order >= 0, order, -1 - order)
    return learner.step(X[event], y[event], np.where(order >= 0, PREDICT, LEARN).astype(np.int8)), order


def test_the_softmax_model_equals_rivers_on_every_probability() -> None:
    X, place, _ = flights(ROWS)
    ours, order = drive(
        make_learner(Model("m", "linear", {"lr": 0.05, "intercept_lr": 0.0}), COLUMNS, None, CLASSES), X, place
    )
    softmax = linear_model.SoftmaxRegression(optim.SGD(0.05))
    reference, rows = scaled(softmax), dicts(X)
    for name in CLASSES.classes:
        _ = softmax.weights[name]  # River meets a class with its first label; the file names them all

    for at, i in enumerate(order.tolist()):
        if i >= 0:
            said = reference.predict_proba_one(rows[i])
            np.testing.assert_allclose(ours[at], [said[name] for name in CLASSES.classes], rtol=0, atol=1e-9)
        else:
            reference.learn_one(rows[-1 - i], CLASSES.classes[int(place[-1 - i])])
    assert np.nanstd(ours[:, 0]) > 0.05


def test_the_linear_model_equals_rivers_linear_regression_on_every_number() -> None:
    X, _, minutes = flights(ROWS)
    ours, order = drive(make_learner(Model("m", "linear", {"lr": 0.01}), COLUMNS, None, NUMBERS), X, minutes)
    reference, rows = scaled(linear_model.LinearRegression(optim.SGD(0.01), intercept_lr=0.01)), dicts(X)
    for at, i in enumerate(order.tolist()):
        if i >= 0:
            assert ours[at] == pytest.approx(reference.predict_one(rows[i]), rel=1e-9, abs=1e-9)
        else:
            reference.learn_one(rows[-1 - i], minutes[-1 - i])
    assert np.nanstd(ours) > 10


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("linear", CLASSES),
        ("linear", NUMBERS),
        ("hoeffding_tree", CLASSES),
        ("river:tree.HoeffdingTreeClassifier", CLASSES),
        ("river:tree.HoeffdingTreeRegressor", NUMBERS),
        ("last", CLASSES),
        ("prior", NUMBERS),
    ],
)
def test_every_kind_predicts_without_changing_goes_on_from_its_state_and_survives_what_is_no_number(
    kind: str, task: Task
) -> None:
    X, place, minutes = flights(600)
    X[::50, 0], X[::70, 2] = np.inf, 1e308
    y = place if task is CLASSES else minutes
    params: dict[str, bool | int | float | str] = {"categories": "drop"} if kind.endswith("TreeRegressor") else {}
    first, whole, second = (make_learner(Model("m", kind, params), COLUMNS, KEY, task) for _ in range(3))
    untrained = first.predict(X[:3])
    first.learn(X[:300], y[:300])
    assert np.array_equal(first.predict(X), first.predict(X))
    second.restore(first.state())
    second.learn(X[300:], y[300:])
    whole.learn(X, y)
    said = whole.predict(X)

    assert np.array_equal(second.predict(X), said)
    assert np.isfinite(said).all()
    assert untrained.shape == ((3, 3) if task is CLASSES else (3,))
    if task is CLASSES:
        np.testing.assert_allclose(said.sum(axis=1), 1.0, rtol=0, atol=1e-9)
        np.testing.assert_allclose(untrained, 1 / 3, rtol=0, atol=1e-12)
        with pytest.raises(ModelError, match=r"not whole|another|not ours"):
            first.restore({})


def test_river_is_given_the_names_of_classes_and_asked_only_once_it_knows_one() -> None:
    X, place, _ = flights(400)
    learner = make_learner(Model("m", "river:tree.HoeffdingTreeClassifier", {}), COLUMNS, KEY, CLASSES)
    learner.learn(X, place)

    reference: Any = tree.HoeffdingTreeClassifier()
    for row, one in zip(dicts(X), place.tolist(), strict=True):
        reference.learn_one(row, CLASSES.classes[int(one)])
    for said, row in zip(learner.predict(X), dicts(X), strict=True):
        expected = reference.predict_proba_one(row)
        np.testing.assert_allclose(said, [expected.get(name, 0.0) for name in CLASSES.classes], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "task", "reason"),
    [
        ("river:linear_model.LogisticRegression", CLASSES, "two classes only"),
        ("river:tree.HoeffdingTreeRegressor", CLASSES, "no classifier"),
        ("river:tree.HoeffdingTreeClassifier", NUMBERS, "no regressor"),
    ],
)
def test_a_river_model_of_another_task_is_refused(kind: str, task: Task, reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        make_learner(Model("m", kind, {}), COLUMNS, KEY, task)


# Figures


def test_figures_of_numbers_equal_rivers() -> None:
    rng = np.random.default_rng(3)
    label = rng.normal(1e6, 20, 2_000)
    said = label + rng.normal(0, 5, 2_000)
    scores = scored(NUMBERS, said, label)
    found, recent = scores.since_start(), scores.rolling()
    assert isinstance(found, RegressionQuality)
    assert isinstance(recent, RegressionQuality)
    theirs = [metrics.MAE(), metrics.RMSE(), metrics.R2()]
    for y, p in zip(label.tolist(), said.tolist(), strict=True):
        for metric in theirs:
            metric.update(y, p)

    for quality in (found, recent):
        said_of_it = quality.mae, quality.rmse, quality.r2
        assert said_of_it == pytest.approx(tuple(metric.get() for metric in theirs), rel=1e-7)


def test_figures_of_classes_equal_rivers() -> None:
    rng = np.random.default_rng(4)
    said = rng.dirichlet([2, 1, 0.5], 2_000)
    label = (rng.random(2_000) * 3).astype(int).astype(float)
    scores = scored(CLASSES, said, label)
    found, recent = scores.since_start(), scores.rolling()
    assert isinstance(found, MulticlassQuality)
    assert isinstance(recent, MulticlassQuality)
    theirs = [metrics.Accuracy(), metrics.MacroF1(), metrics.CohenKappa()]
    for y, p in zip(label.astype(int).tolist(), said.argmax(axis=1).tolist(), strict=True):
        for metric in theirs:
            metric.update(y, p)
    given = said[np.arange(2_000), label.astype(int)]

    for quality in (found, recent):
        assert quality.log_loss == pytest.approx(-np.log(np.clip(given, 0.001, 0.999)).mean(), abs=1e-12)
        said_of_it = quality.accuracy, quality.macro_f1, quality.kappa
        assert said_of_it == pytest.approx(tuple(metric.get() for metric in theirs), abs=1e-12)


def test_figures_of_yes_and_no_equal_rivers_and_their_definitions() -> None:
    rng = np.random.default_rng(5)
    p = np.round(rng.random(3_000), 2)
    label = (rng.random(3_000) < p**2).astype(float)
    scores = scored(Task(), p, label)
    found, recent = scores.since_start(), scores.rolling()
    assert isinstance(found, BinaryQuality)
    assert isinstance(recent, BinaryQuality)
    f1, kappa = metrics.F1(), metrics.CohenKappa()
    for y, said in zip(label.tolist(), (p >= 0.5).tolist(), strict=True):
        f1.update(bool(y), said)
        kappa.update(bool(y), said)
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.diff(-p[order], append=np.inf))  # the last of each score
    right = np.cumsum(label[order])[ends]
    steps = np.diff(right, prepend=0.0)
    tenth = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[tenth == b].sum() - label[tenth == b].sum()) for b in range(10)]

    for quality, within in ((recent, 1e-12), (found, 2e-3)):
        assert quality.brier == pytest.approx(((p - label) ** 2).mean(), abs=1e-12)
        assert quality.f1 == pytest.approx(f1.get(), abs=1e-12)
        assert quality.kappa == pytest.approx(kappa.get(), abs=1e-12)
        assert quality.pr_auc == pytest.approx((right / (ends + 1) * steps).sum() / label.sum(), abs=within)
        assert quality.calibration_error == pytest.approx(sum(gaps) / p.size, abs=within)


def test_a_task_without_labels_claims_nothing() -> None:
    for task in (CLASSES, NUMBERS):
        for quality in (Scores(task).since_start(), Scores(task).rolling()):
            assert quality.labels == 0
            assert math.isnan(quality.loss)
