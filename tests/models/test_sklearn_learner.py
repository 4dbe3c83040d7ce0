"""Estimators of scikit-learn as learners: they answer as themselves, are sealed under a list, and are checked."""

from __future__ import annotations

import doctest
import io
import os
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import ensemble, linear_model
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from models import contract, sklearn_learner
from models.contained import bare
from models.contract import check_contract
from models.learner import LEARN, PREDICT, make_learner, replaced_of
from models.sealed import seal
from models.sklearn_learner import SklearnLearner
from models.sklearn_parts import SEALED, SKLEARN_VERSION, find_class
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.model_kinds import KIND_NAMES
from streams.pipeline import Model, Task
from tests.models.learner_rules import assert_cuts_change_no_bit, repeated
from tests.network_training import ANOMALY, BINARY, CLASSES, COLUMNS, NUMBERS, rows_of

Floats = npt.NDArray[np.float64]

KEY = b"k" * 32
ANOMALY_WITH_ALERTS = Task("anomaly", alert=0.1)
NOVELTY = {"novelty": True}
SCALED = {"steps": [["scale", {"use": "preprocessing.RobustScaler"}], ["fit", {"use": "svm.SVC"}]]}
CASES: dict[str, tuple[Task, str, dict[str, Any]]] = {
    "boosting": (BINARY, "ensemble.HistGradientBoostingClassifier", {"max_iter": 20}),
    "boosting of classes": (CLASSES, "ensemble.HistGradientBoostingClassifier", {"max_iter": 10}),
    "boosting of numbers": (NUMBERS, "ensemble.HistGradientBoostingRegressor", {"max_iter": 40}),
    "forest": (CLASSES, "ensemble.RandomForestClassifier", {"n_estimators": 8}),
    "old boosting": (CLASSES, "ensemble.GradientBoostingClassifier", {"n_estimators": 5}),
    "logistic": (BINARY, "linear_model.LogisticRegression", {}),
    "ridge": (NUMBERS, "linear_model.Ridge", {}),
    "net": (CLASSES, "neural_network.MLPClassifier", {"hidden_layer_sizes": [16], "max_iter": 60}),
    "neighbours": (BINARY, "neighbors.KNeighborsClassifier", {}),
    "bayes": (CLASSES, "naive_bayes.GaussianNB", {}),
    "silent": (BINARY, "svm.LinearSVC", {}),
    "nested": (BINARY, "ensemble.BaggingClassifier", {"estimator": {"use": "tree.DecisionTreeClassifier"}}),
    "pipeline": (BINARY, "pipeline.Pipeline", SCALED),
    "isolation": (ANOMALY, "ensemble.IsolationForest", {"n_estimators": 20}),
    "outliers": (ANOMALY, "neighbors.LocalOutlierFactor", NOVELTY),
    "one class": (ANOMALY, "svm.OneClassSVM", {}),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of many tests at once wait for each other."""
    with threadpool_limits(1):
        yield


def make(name: str) -> SklearnLearner:
    task, kind, params = CASES[name]
    return SklearnLearner(Model(name, f"sklearn:{kind}", params), COLUMNS, KEY, task)


@cache
def fitted(name: str) -> dict[str, Any]:
    """Give the state of an estimator fitted to 400 rows; it is never written to."""
    learner, task = make(name), CASES[name][0]
    X, y = rows_of(task, 400)
    learner.fit(X, np.full(400, np.nan) if task is ANOMALY else y)
    return learner.state()


def restored(name: str) -> SklearnLearner:
    learner = make(name)
    learner.restore(fitted(name))
    return learner


@pytest.mark.parametrize("name", CASES)
def test_an_estimator_keeps_the_contract_but_for_learning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "TIMED_S", 0.0)
    found = check_contract(lambda: restored(name), CASES[name][0], COLUMNS, rows=60)

    assert {finding.check for finding in found if not finding.passed} == {"learns"}, found


@pytest.mark.parametrize("name", ["logistic", "ridge", "net", "boosting", "one class"])
def test_cutting_rows_into_other_batches_changes_no_bit(name: str) -> None:
    X, y = rows_of(CASES[name][0], 400, seed=5)
    for cuts in ([1, 2, 3, 16, 17, 64], [131]):
        assert_cuts_change_no_bit(restored(name), restored(name), X, y, repeated(cuts, 400))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0] is not ANOMALY])
def test_it_says_far_more_than_the_prior(name: str) -> None:
    X, y = rows_of(CASES[name][0], 600, seed=1)
    score = restored(name).predict(X)

    if CASES[name][0] is NUMBERS:
        assert np.mean((score - y) ** 2) < 0.5 * y.var()
    elif CASES[name][0] is CLASSES:
        assert np.mean(score.argmax(axis=1) == y) > np.bincount(y.astype(int)).max() / len(y) + 0.2
    else:
        assert np.mean((score > 0.5) == y) > 0.8


@pytest.mark.parametrize("name", ["isolation", "outliers", "one class"])
def test_rows_far_from_those_it_was_fitted_to_are_ranked_above_them(name: str) -> None:
    learner = restored(name)
    X, _ = rows_of(ANOMALY, 300, seed=2)
    far = X.copy()
    far[:, 0] = 400.0

    assert np.median(learner.predict(X)) == pytest.approx(0.5, abs=0.15)
    assert np.median(learner.predict(far)) > 0.9


def test_boosting_is_given_numbers_as_they_came_and_told_which_columns_are_categories() -> None:
    """The same as scikit-learn's own, fitted by hand to the same columns."""
    X, y = rows_of(BINARY, 400)
    codes = [{code: place for place, code in enumerate(by_frequency(X[:, column]), 1)} for column in (1, 3)]
    by_hand = np.column_stack(
        [X[:, 0], X[:, 2], *([seen.get(value, 0) for value in X[:, c]] for c, seen in zip((1, 3), codes, strict=True))]
    )
    own = ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0, categorical_features=[2, 3])
    own.fit(by_hand, y)

    assert np.array_equal(restored("boosting").predict(X), own.predict_proba(by_hand)[:, 1])


def by_frequency(values: Floats) -> list[float]:
    """Give the values there are, the most frequent first, of equal ones the smaller."""
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    return [value for _, value in sorted(zip((-counts).tolist(), found.tolist(), strict=True))]


def test_a_linear_model_is_given_scaled_numbers_the_mean_for_a_missing_one_and_its_absence() -> None:
    X, y = rows_of(NUMBERS, 400)
    model = Model("m", "sklearn:linear_model.Ridge", {"categories": "drop"})
    learner = SklearnLearner(model, COLUMNS, KEY, NUMBERS)
    learner.fit(X, y)
    numbers = X[:, [0, 2]]
    scaled = np.nan_to_num((numbers - np.nanmean(numbers, axis=0)) / np.nanstd(numbers, axis=0)).clip(-10, 10)
    by_hand = np.column_stack([scaled, np.isnan(numbers)])
    own = linear_model.Ridge().fit(by_hand, y)

    np.testing.assert_allclose(learner.predict(X), own.predict(by_hand), rtol=1e-5)


def test_examples_without_a_label_and_known_anomalies_are_not_fitted() -> None:
    X, y = rows_of(BINARY, 400)
    y[::4] = np.nan
    some, all_rows = make("boosting"), make("boosting")
    some.fit(X[~np.isnan(y)], y[~np.isnan(y)])
    all_rows.fit(X, y)
    assert np.array_equal(some.predict(X), all_rows.predict(X))

    quiet, told = make("isolation"), make("isolation")
    quiet.fit(X[:300], np.full(300, np.nan))
    told.fit(X, np.where(np.arange(400) < 300, np.nan, 1.0))
    assert np.array_equal(quiet.predict(X), told.predict(X))


def test_an_estimator_is_fitted_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows_of(BINARY, 400)
    learner, threads = make("boosting"), list[int]()
    fit = HistGradientBoostingClassifier.fit

    def counted(self: Any, *examples: Any) -> Any:
        threads.extend(one["num_threads"] for one in threadpool_info())
        return fit(self, *examples)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", counted)
    with threadpool_limits(2):
        learner.fit(X, y)

    assert set(threads) == {1}


def test_a_class_that_no_example_had_gets_nothing() -> None:
    X, y = rows_of(CLASSES, 400)
    learner = make("bayes")
    learner.fit(X[y != 1], y[y != 1])
    score = learner.predict(X)

    assert (score[:, 1] == 0.0).all()
    np.testing.assert_allclose(score.sum(axis=1), 1.0)


def test_a_model_that_was_not_fitted_answers_as_one_that_knows_nothing_and_learns_nothing() -> None:
    learner = make_learner(Model("m", "sklearn:naive_bayes.GaussianNB", {}), COLUMNS, KEY, CLASSES)
    X, y = rows_of(CLASSES, 4)
    learner.learn(X, y)
    said = learner.step(X, y, np.array([PREDICT, LEARN, PREDICT, LEARN], np.int8))

    assert np.array_equal(said, [[1 / 3] * 3, [np.nan] * 3] * 2, equal_nan=True)
    assert learner.state() == {}
    learner.restore({})
    assert np.array_equal(learner.predict(X), np.full((4, 3), 1 / 3))


def test_an_answer_that_is_not_finite_is_replaced_and_counted() -> None:
    learner = restored("logistic")
    learner._estimator.coef_ = np.full_like(learner._estimator.coef_, np.nan)
    said = learner.predict(rows_of(BINARY, 3)[0])

    assert said.tolist() == [0.5] * 3
    assert learner.replaced_predictions == 3
    assert not learner.is_finite()


def test_what_an_estimator_raises_is_said_with_its_name() -> None:
    """Whoever asks decides what becomes of the row; it is no answer of one half."""
    learner = restored("logistic")
    learner._estimator.coef_ = np.ones((1, 99))
    with pytest.raises(ModelError, match=r"the model logistic \(sklearn:linear_model.*\) failed: ValueError"):
        learner.predict(rows_of(BINARY, 3)[0])

    assert learner.replaced_predictions == 0


@pytest.mark.parametrize(("task", "name"), [(BINARY, "logistic"), (ANOMALY_WITH_ALERTS, "isolation")])
def test_what_stands_around_an_estimator_passes_its_count_on(task: Task, name: str) -> None:
    """Whoever has a model of any kind can ask it how many of its answers were none."""
    _, kind, params = CASES[name]
    learner = make_learner(Model(name, f"sklearn:{kind}", params), COLUMNS, KEY, task)
    inner: Any = getattr(bare(learner), "inner", bare(learner))
    inner.restore(fitted(name))
    inner._ask = lambda rows: np.full((len(rows[0]), 1), np.nan)
    before, said = replaced_of(learner), learner.predict(rows_of(BINARY, 3)[0])

    assert (before, replaced_of(learner)) == (0, 3)
    assert np.isfinite(said).all()
    assert replaced_of(make_learner(Model("m", "prior", {}), COLUMNS)) == 0


@pytest.mark.parametrize(
    ("kind", "task", "reason"),
    [
        ("naive_bayes.MultinomialNB", BINARY, "cannot be fitted: ValueError: Negative values"),
        ("neural_network.BernoulliRBM", ANOMALY, "answers a row otherwise when it stands elsewhere"),
    ],
)
def test_an_estimator_that_cannot_be_fitted_or_answers_by_chance_is_refused(kind: str, task: Task, reason: str) -> None:
    learner = SklearnLearner(Model("m", f"sklearn:{kind}", {}), COLUMNS, KEY, task)
    with pytest.raises(ModelError, match=reason):
        learner.fit(*rows_of(task, 100))


@pytest.mark.parametrize(
    ("kind", "params", "task", "mistake"),
    [
        (
            "ensemble.HistGradientBoostingClasifier",
            {},
            BINARY,
            'did you mean "ensemble.HistGradientBoostingClassifier"',
        ),
        ("ensembel.RandomForestClassifier", {}, BINARY, 'did you mean "ensemble"'),
        ("datasets.fetch_openml", {}, BINARY, "is not in scikit-learn"),
        ("utils.Bunch", {}, BINARY, "is not in scikit-learn"),
        ("tree.os", {}, BINARY, "or no model"),
        ("tree.BaseDecisionTree", {}, BINARY, "or no model"),
        ("tree.DecisionTreeClassifier", {"max_dept": 3}, BINARY, r'max_dept: unknown key.*did you mean "max_depth"'),
        ("tree.DecisionTreeClassifier", {"max_depth": -3}, BINARY, "The 'max_depth' parameter"),
        ("tree.DecisionTreeRegressor", {}, BINARY, "is not a classifier; the task is binary"),
        ("tree.DecisionTreeClassifier", {}, NUMBERS, "is not a regressor; the task is regression"),
        ("neighbors.LocalOutlierFactor", {}, ANOMALY, "is not a model with score_samples"),
        ("cluster.KMeans", {}, Task("clustering"), "is not of another task"),
        (
            "tree.DecisionTreeClassifier",
            {"categories": "text"},
            BINARY,
            "categories: 'text' found; allowed: codes, drop",
        ),
        ("ensemble.BaggingClassifier", {"estimator": {"use": "tree.Oak"}}, BINARY, r"estimator.use: .*tree.Oak"),
    ],
)
def test_check_names_what_is_wrong(kind: str, params: dict[str, Any], task: Task, mistake: str) -> None:
    with pytest.raises(PipelineError, match=mistake) as caught:
        make_learner(Model("m", f"sklearn:{kind}", params), COLUMNS, KEY, task)

    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith("[models.m] ")


def test_whatever_takes_a_random_state_gets_zero_unless_the_file_names_one() -> None:
    params = {"estimator": {"use": "tree.DecisionTreeClassifier"}, "random_state": 3}
    learner = SklearnLearner(Model("m", "sklearn:ensemble.BaggingClassifier", params), COLUMNS, KEY, BINARY)
    found = learner._unfitted.get_params()

    assert (found["random_state"], found["estimator__random_state"]) == (3, 0)


class Shell:
    """A pickle that would run a command when read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    "value",
    [Shell(), io.BytesIO, find_class, getattr, eval, pickle.loads, np.load, Column],
    ids=lambda value: getattr(value, "__name__", "shell"),
)
def test_a_name_outside_the_list_is_refused_even_under_the_right_key(value: object) -> None:
    blob = np.frombuffer(seal([value, {}, 0], KEY, SKLEARN_VERSION, SEALED), np.uint8)
    with pytest.raises(ModelError, match="not on the list"):
        make("forest").restore({"sealed": blob})


@pytest.mark.parametrize("part", ["datasets", "utils", "externals", "model_selection", "metrics"])
def test_parts_of_the_library_that_no_model_is_made_of_are_refused(part: str) -> None:
    assert not SEALED.has_module(f"sklearn.{part}.something")


def test_a_state_of_another_key_kind_or_damage_is_refused_and_changes_nothing() -> None:
    learner = restored("forest")
    X, _ = rows_of(CLASSES, 20)
    said = learner.predict(X)
    turned = fitted("forest")["sealed"].copy()
    turned[100] ^= 1
    for state, reason in (
        ({"sealed": turned}, "not ours or damaged"),
        ({"other": turned}, "not ours or damaged"),
        (fitted("bayes"), "a GaussianNB found, sklearn:ensemble.RandomForestClassifier needed"),
    ):
        with pytest.raises(ModelError, match=reason):
            learner.restore(state)
    other = SklearnLearner(Model("m", "sklearn:ensemble.RandomForestClassifier", {}), COLUMNS, b"x" * 32, CLASSES)
    with pytest.raises(ModelError, match="not ours or damaged"):
        other.restore(fitted("forest"))
    with pytest.raises(ModelError, match="needs a key"):
        make_learner(Model("m", "sklearn:svm.SVC", {}), COLUMNS).restore(fitted("forest"))

    assert np.array_equal(learner.predict(X), said)
    assert learner.size_bytes() == fitted("forest")["sealed"].nbytes


def test_the_kinds_that_a_file_may_name_tell_of_it() -> None:
    assert "sklearn:<module>.<Class>" in KIND_NAMES


def test_the_example_is_right() -> None:
    assert doctest.testmod(sklearn_learner).failed == 0
