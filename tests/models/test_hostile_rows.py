"""Absurd and unheard-of values through every kind of candidate: finite and right afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from consumers.learn import LearnTask
from models.contained import Contained
from models.learner import LEARN, PREDICT, Learner, make_learner
from streams.expression_steps import code_of
from streams.frames import EVENT, LABEL, NO_OUTCOME, SET, Batch, Column, build, examples_schema
from streams.metrics import RoleMetrics
from streams.model_kinds import KINDS, ONLINE_KINDS
from streams.pipeline import Model, Task

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
TASKS = {
    "binary": Task(),
    "multiclass": Task("multiclass", ("x", "y", "z")),
    "regression": Task("regression"),
}
TREE = {"use": "tree.HoeffdingTreeClassifier", "grace_period": 50}
SCALED = [
    {"use": "preprocessing.StandardScaler", "only": "numbers"},
    {"use": "preprocessing.OneHotEncoder", "only": "categories"},
]
HASHED = [SCALED[0], {"use": "preprocessing.FeatureHasher", "n_features": 256, "only": "categories"}]
LOGISTIC = {"use": "linear_model.LogisticRegression"}
OWN: tuple[str, dict[str, Any]] = ("tests.own_learners:Running", {})
PIPELINE = "river:compose.Pipeline"
FOREIGN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tree": ("binary", "river:tree.HoeffdingTreeClassifier", {"grace_period": 50}),
    "adaptive tree": ("binary", "river:tree.HoeffdingAdaptiveTreeClassifier", {"grace_period": 50}),
    "tree of few categories": ("binary", "river:tree.HoeffdingTreeClassifier", {"grace_period": 50, "categories": 64}),
    "forest": ("multiclass", "river:forest.ARFClassifier", {"n_models": 2, "grace_period": 50}),
    "bayes": ("multiclass", "river:naive_bayes.GaussianNB", {"categories": "drop"}),
    "bagging": ("binary", "river:ensemble.BaggingClassifier", {"model": TREE, "n_models": 2}),
    "scaled": ("binary", PIPELINE, {"steps": [*SCALED, LOGISTIC]}),
    "hashed": ("binary", PIPELINE, {"steps": [*HASHED, LOGISTIC]}),
    "tree of numbers": ("regression", "river:tree.HoeffdingTreeRegressor", {"categories": "drop", "grace_period": 50}),
    "mean": ("regression", "river:dummy.StatisticRegressor", {"statistic": {"use": "stats.Mean"}}),
    "own": ("binary", *OWN),
    "own number": ("regression", *OWN),
}
OURS: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{kind}, {task}": (task, kind, {}) for kind in ONLINE_KINDS for task in TASKS if task in KINDS[kind].tasks
}
ALL = OURS | FOREIGN
ABSURD = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf, "1e308": 1e308, "just beyond": 1.0001e30}
NO_CODES = {"NaN": np.nan, "inf": np.inf, "1e308": 1e308, "negative": -1.0, "broken": 0.5}

Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def make(name: str) -> Learner:
    task, kind, params = ALL[name]
    return make_learner(Model("m", kind, params), COLUMNS, KEY, TASKS[task])


def rows_of(name: str, rows: int, seed: int = 1) -> Rows:
    """Give rows and labels that the features tell something of."""
    rng, task = np.random.default_rng(seed), ALL[name][0]
    X = rng.normal(size=(rows, 3))
    X[:, 2] = rng.integers(0, 4, rows)
    score = X[:, 0] + (X[:, 2] > 1)
    if task == "regression":
        return X, score
    return X, (score > 0.5).astype(float) + ((score > 1.5) if task == "multiclass" else 0.0)


def interleaved(learner: Learner, X: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Predict each row, then learn it; gives the answers."""
    action = np.tile(np.array([PREDICT, LEARN], np.int8), len(X))
    return learner.step(np.repeat(X, 2, axis=0), np.repeat(y, 2), action)[::2]


def is_well(learner: Learner) -> bool:
    return learner.is_finite() and not (isinstance(learner, Contained) and learner.is_halted)


@pytest.mark.parametrize("name", ALL)
def test_one_absurd_value_is_as_if_it_were_missing(name: str) -> None:
    """In every answer after it, whichever value it is and whichever column it is in."""
    X, y = rows_of(name, 60)
    for column, values in ((0, ABSURD), (2, NO_CODES)):
        missing = X.copy()
        missing[20, column] = np.nan
        expected = interleaved(make(name), missing, y)
        for what, value in values.items():
            absurd, learner = X.copy(), make(name)
            absurd[20, column] = value
            found = interleaved(learner, absurd, y)

            assert np.isfinite(found).all(), what
            assert np.array_equal(found, expected), what
            assert is_well(learner), what


@pytest.mark.parametrize("name", ALL)
def test_an_empty_category_is_a_category_like_any_other_that_is_new(name: str) -> None:
    """Which text it is makes no difference to any other row."""
    X, y = rows_of(name, 80)
    empty, other = X.copy(), X.copy()
    empty[30::9, 2], other[30::9, 2] = code_of(""), code_of("a shop that has just opened")
    found, expected = make(name), make(name)

    assert np.array_equal(interleaved(found, empty, y), interleaved(expected, other, y))
    assert np.array_equal(found.predict(X), expected.predict(X))
    assert is_well(found)


def loss(name: str, said: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Give the mean absolute error of numbers, or of the probability of what came true."""
    if ALL[name][0] == "regression":
        return float(np.abs(said - y).mean())
    if said.ndim == 1:
        return float(np.abs(said - y).mean())
    return float(1.0 - said[np.arange(len(y)), y.astype(int)].mean())


MANY = 10_000
FEWER = dict.fromkeys(("adaptive tree", "forest", "scaled"), 2_000)  # their time grows with the square


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ALL)
def test_thousands_of_new_categories_leave_a_candidate_as_good_as_it_was(name: str) -> None:
    """Ten, or two of River's whose rows cost more with each; what is learned of known ones and of numbers stays."""
    X, y = rows_of(name, 800)
    flood, of_flood = rows_of(name, FEWER.get(name, MANY), seed=2)
    flood[:, 2] = 1e6 + np.arange(len(flood))
    asked, answers = rows_of(name, 100, seed=3)
    calm, flooded = make(name), make(name)
    for learner in (calm, flooded):
        learner.learn(X, y)
    flooded.learn(flood, of_flood)
    flooded.learn(X, y)
    said = flooded.predict(asked)

    assert np.isfinite(said).all()
    assert is_well(flooded)
    assert loss(name, said, answers) < loss(name, calm.predict(asked), answers) + 0.1


def test_a_running_candidate_is_finite_and_right_after_absurd_rows() -> None:
    """Through the learn task: scores, blocks and state are those of the rows with the values missing."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(200, 3))
    X[:, 2] = rng.integers(0, 4, 200)
    absurd, missing = X.copy(), X.copy()
    for turn, (value, code) in enumerate(zip(ABSURD.values(), NO_CODES.values(), strict=True)):
        absurd[turn::11, 0], missing[turn::11, 0] = value, np.nan
        absurd[turn::13, 2], missing[turn::13, 2] = code, np.nan
    kind, number = np.tile([EVENT, LABEL], 200), np.repeat(np.arange(200), 2)
    parts: dict[str, Any] = {"kind": kind, "source": np.full(400, 7), "number": number, "time": number}
    parts["label"] = np.where(kind == LABEL, np.repeat((X[:, 0] > 0).astype(float), 2), np.nan)
    parts["outcome"] = np.where(kind == LABEL, SET, NO_OUTCOME)
    states, figures = [], []
    for values in (absurd, missing):
        learn = LearnTask("m", make("linear, binary"), COLUMNS)
        table = build(examples_schema(COLUMNS), parts | {"vector": np.repeat(values, 2, axis=0)}, 400)
        learn.process(Batch(table, np.zeros(400, np.int64), np.zeros(400, np.int64)))
        states.append(learn.state())
        figures.append(learn.metrics()["log_loss_start"])
        learn.measure(RoleMetrics("learn", "p"))
        assert learn.is_sound()

    assert figures[0] == figures[1]
    assert all(np.array_equal(states[0][name], states[1][name], equal_nan=True) for name in states[0])
