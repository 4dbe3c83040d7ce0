"""River classifiers by name: guarded inputs, exact continuation after a restore, and clear refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import forest, tree

from models import river_learner
from models.learner import LEARN, PREDICT, make_learner
from models.river_learner import RiverLearner
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("b", False), Column("c", True), Column("d", False))
CANDIDATES = {
    "tree.HoeffdingAdaptiveTreeClassifier": {"grace_period": 20},
    "tree.HoeffdingTreeClassifier": {"grace_period": 20},
    "naive_bayes.GaussianNB": {"categories": "drop"},
    "linear_model.LogisticRegression": {"categories": "drop"},
    "forest.ARFClassifier": {"n_models": 2, "grace_period": 20},
    "neighbors.KNNClassifier": {"categories": "drop"},
    "ensemble.SRPClassifier": {"n_models": 2},
}


def make(name: str, **params: float | str) -> RiverLearner:
    return RiverLearner(Model("m", f"river:{name}", params), COLUMNS, KEY)


def stream(rows: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """Give events and their labels 50 rows later, with a change of concept in the middle."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(rows, 4))
    X[:, 2] = rng.integers(0, 5, rows)
    sign = np.where(np.arange(rows) < rows // 2, 1, -1)
    y = (sign * X[:, 0] + (X[:, 2] > 2) > 0.3).astype(float)
    X[rng.random(X.shape) < 0.05] = np.nan
    order = np.argsort(np.concatenate([np.arange(rows), np.arange(rows) + 50.5]), kind="stable")
    event = np.concatenate([np.arange(rows), np.arange(rows)])[order]
    action = np.where(order < rows, PREDICT, LEARN).astype(np.int8)
    return X[event], y[event], action


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_restored_model_goes_on_bit_for_bit_like_the_uninterrupted_one(name: str) -> None:
    X, y, action = stream(500)
    whole, first, second = (make(name, **CANDIDATES[name]) for _ in range(3))  # type: ignore[arg-type]  # mixed params
    expected = whole.step(X, y, action)
    before = first.step(X[:600], y[:600], action[:600])
    second.restore(first.state())
    after = second.step(X[600:], y[600:], action[600:])

    assert np.array_equal(np.concatenate([before, after]), expected, equal_nan=True)
    assert np.nanstd(expected) > 0
    assert second.size_bytes() == first.size_bytes() > 0


def test_rows_reach_river_as_dicts_without_missing_features_with_categories_as_text() -> None:
    X, y, action = stream(400)
    ours = make("tree.HoeffdingAdaptiveTreeClassifier").step(X, y, action)
    reference: Any = tree.HoeffdingAdaptiveTreeClassifier(seed=0)
    theirs = np.full(len(action), np.nan)
    for i, row in enumerate(X.tolist()):
        x = {c.name: str(int(v)) if c.is_category else v for c, v in zip(COLUMNS, row, strict=True) if not np.isnan(v)}
        if action[i] == PREDICT:
            probabilities = reference.predict_proba_one(x)
            theirs[i] = probabilities.get(True, 0.0) if probabilities else 0.5
        else:
            reference.learn_one(x, bool(y[i]))

    assert np.array_equal(ours, theirs, equal_nan=True)


def test_the_same_model_is_learned_in_every_process() -> None:
    code = (
        "import sys; sys.path[:0] = ['.', 'tests/models']; import hashlib, test_river_learner as t\n"
        "for name in ('tree.HoeffdingAdaptiveTreeClassifier', 'forest.ARFClassifier'):\n"
        "    print(hashlib.sha256(t.make(name, **t.CANDIDATES[name]).step(*t.stream(300)).tobytes()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(found) == 1
    assert next(iter(found)).count(b"\n") == 2


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("rows", [0, 300])
def test_predicting_changes_nothing(name: str, rows: int) -> None:
    X, y, action = stream(300)
    learner = make(name, **CANDIDATES[name])  # type: ignore[arg-type]  # mixed params
    learner.step(X[:rows], y[:rows], action[:rows])
    before = pickle.dumps(learner._model)
    learner.predict(np.vstack([np.full((1, 4), np.nan), np.zeros((1, 4)), np.full((1, 4), 9.0)]))

    assert pickle.dumps(learner._model) == before


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e308])
def test_values_that_break_river_are_left_out(bad: float) -> None:
    X, y, action = stream(200)
    missing, absurd = X.copy(), X.copy()
    missing[::5, 0], absurd[::5, 0] = np.nan, bad
    missing[::7, 2], absurd[::7, 2] = np.nan, bad
    name = "tree.HoeffdingAdaptiveTreeClassifier"

    assert np.array_equal(make(name).step(missing, y, action), make(name).step(absurd, y, action), equal_nan=True)
    assert np.isinf(absurd[0, 0]) or absurd[0, 0] == 1e308, "the caller's array is not touched"


def test_a_seed_is_given_where_none_was_and_kept_where_one_was() -> None:
    assert make("forest.ARFClassifier")._model.seed == 0
    assert make("forest.ARFClassifier", seed=9)._model.seed == 9
    assert isinstance(make("forest.ARFClassifier")._model, forest.ARFClassifier)


def test_an_untrained_model_says_one_half_and_unlabelled_rows_are_not_learned() -> None:
    learner = make("naive_bayes.GaussianNB", categories="drop")
    learner.learn(np.ones((3, 4)), np.full(3, np.nan))

    assert learner.predict(np.ones((1, 4))).tolist() == [0.5]


def test_a_prediction_that_is_not_finite_counts_and_is_answered_with_one_half(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make("tree.HoeffdingTreeClassifier")
    learner.learn(np.ones((1, 4)), np.ones(1))
    monkeypatch.setattr(learner._model, "predict_proba_one", lambda x: {True: float("nan")})

    assert learner.predict(np.ones((2, 4))).tolist() == [0.5, 0.5]
    assert learner.replaced_predictions == 2
    assert not learner.is_finite()


def test_a_classifier_that_raises_ends_with_its_reason_and_what_to_do() -> None:
    learner = make("naive_bayes.GaussianNB")
    X = np.ones((1, 4))
    with pytest.raises(ModelError, match=r'the model m \(river:naive_bayes.GaussianNB\) failed: .*categories = "drop"'):
        learner.learn(X, np.ones(1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("river:tree.Missing", "is not in river"),
        ("river:no_module.Thing", "is not in river"),
        ("river:HoeffdingTreeClassifier", "is not a name"),
        ("river:tree.__init__.os", "is not a name"),
        ("river:tree..X", "is not a name"),
        ("river:tree.HoeffdingTreeRegressor", "is no classifier"),
        ("river:base.typing", "is no class that can be made"),
        ("river:base.Classifier", "is no class that can be made"),
        ("river:ensemble.BaggingClassifier", "model: missing: BaggingClassifier needs it"),
    ],
)
def test_a_name_that_is_no_classifier_is_refused(kind: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        make_learner(Model("m", kind, {}), COLUMNS, KEY)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"\[models.m\] gracious: unknown key; .*did you mean \"grace_period\""):
        make("tree.HoeffdingTreeClassifier", gracious=1)
    with pytest.raises(PipelineError, match="categories: 'hash' found; allowed: text, drop, or how many"):
        make("tree.HoeffdingTreeClassifier", categories="hash")


def test_states_of_other_keys_classes_and_river_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = make("tree.HoeffdingTreeClassifier").state()
    with pytest.raises(ModelError, match="not ours or damaged"):
        RiverLearner(Model("m", "river:tree.HoeffdingTreeClassifier", {}), COLUMNS, b"x" * 32).restore(state)
    with pytest.raises(ModelError, match="is another's"):
        make("naive_bayes.GaussianNB").restore(state)
    with pytest.raises(ModelError, match="needs a key"):
        RiverLearner(Model("m", "river:tree.HoeffdingTreeClassifier", {}), COLUMNS).restore(state)
    monkeypatch.setattr(river_learner, "RIVER_VERSION", "0.27.0")
    with pytest.raises(ModelError, match=r"river 0\.27\.0"):
        make("tree.HoeffdingTreeClassifier").restore(state)
