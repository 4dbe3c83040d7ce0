"""What River is known to stumble over, one test each: guarded here, or told in docs/river.md as it is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import naive_bayes

from models.learner import LEARN, PREDICT
from models.river_learner import FOR_NUMBERS, RiverLearner
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task

KEY = b"k" * 32
NUMBERS = (Column("a", False), Column("b", False))
CATEGORY = (Column("shop", True),)
SCALER = {"use": "preprocessing.StandardScaler"}
LOGISTIC = {"use": "linear_model.LogisticRegression"}


def make(kind: str, columns: tuple[Column, ...] = NUMBERS, task: Task | None = None, **params: Any) -> RiverLearner:
    return RiverLearner(Model("m", f"river:{kind}", params), columns, KEY, task)


def chain(*steps: dict[str, Any], columns: tuple[Column, ...] = NUMBERS) -> RiverLearner:
    return make("compose.Pipeline", columns, steps=list(steps))


def interleaved(learner: RiverLearner, X: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Any:
    """Predict each row, then learn it."""
    action = np.tile(np.array([PREDICT, LEARN], np.int8), len(X))
    return learner.step(np.repeat(X, 2, axis=0), np.repeat(y, 2), action)[::2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308])
def test_one_absurd_number_does_not_turn_a_scaled_model_to_nan_for_ever(bad: float) -> None:
    """Alone, River's scaler keeps NaN in its mean; here the value is missing in its row, and no more than that."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(float)
    X[10, 0] = bad
    absent = X.copy()
    absent[10, 0] = np.nan
    found, expected = interleaved(chain(SCALER, LOGISTIC), X, y), interleaved(chain(SCALER, LOGISTIC), absent, y)

    assert np.isfinite(found).all()
    assert np.array_equal(found, expected)


def test_a_constant_column_is_no_trouble() -> None:
    """StandardScaler.learn_many fails on one; rows go one by one here, and the column says 0."""
    rng = np.random.default_rng(2)
    X = np.column_stack([rng.normal(size=80), np.full(80, 3.0)])
    found = interleaved(chain(SCALER, LOGISTIC), X, (X[:, 0] > 0).astype(float))

    assert np.isfinite(found).all()
    assert found[-20:].std() > 0.01


def test_a_batch_is_learned_row_by_row_though_river_has_mini_batches_that_learn_something_else() -> None:
    """GaussianNB.learn_many is not learn_one many times."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(50, 2))
    y = (X[:, 0] > 0).astype(float)
    ours = make("naive_bayes.GaussianNB")
    alone: Any = naive_bayes.GaussianNB()  # type: ignore[no-untyped-call]  # River leaves it unannotated
    ours.learn(X, y)
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        alone.learn_one({"a": row[0], "b": row[1]}, label > 0.5)

    expected = [alone.predict_proba_one({"a": a, "b": b})[True] for a, b in X.tolist()]
    assert ours.predict(X).tolist() == expected


def test_a_model_that_only_takes_numbers_says_what_to_do_with_categories() -> None:
    learner = make("naive_bayes.GaussianNB", CATEGORY)
    with pytest.raises(ModelError, match=re.escape(FOR_NUMBERS)):
        learner.learn(np.ones((2, 1)), np.array([0.0, 1.0]))


def test_a_failure_in_which_categories_have_no_part_does_not_blame_them() -> None:
    """The same model fails on a negative number, though a category stands beside it that it never sees."""
    learner = make(
        "compose.Pipeline",
        (Column("n", False), Column("shop", True)),
        steps=[{"use": "preprocessing.OneHotEncoder", "only": "categories"}, {"use": "naive_bayes.MultinomialNB"}],
    )
    learner.learn(np.array([[1.0, 2.0]]), np.array([0.0]))
    with pytest.raises(ModelError, match=r"change its parameters or remove it$"):
        learner.step(np.array([[-9.0, 2.0]] * 2), np.zeros(2), np.array([LEARN, PREDICT], np.int8))


def grown(learner: RiverLearner, shops: int) -> tuple[int, int]:
    """Give the size of a model after as many shops as it has rows, and after three times as many."""
    sizes = []
    for rows in (np.arange(shops), np.arange(shops, 3 * shops)):
        learner.learn(rows[:, None].astype(np.float64), (rows % 2).astype(np.float64))
        learner.state()
        sizes.append(learner.size_bytes())
    return sizes[0], sizes[1]


def test_one_hot_categories_grow_a_model_without_end_and_hashed_ones_do_not() -> None:
    """Every value ever seen has a weight, and a place in every row: hostile keys fill memory. A hasher has an end."""
    hasher = {"use": "preprocessing.FeatureHasher", "n_features": 64}
    few, many = grown(chain({"use": "preprocessing.OneHotEncoder"}, LOGISTIC, columns=CATEGORY), 200)
    few_hashed, many_hashed = grown(chain(hasher, LOGISTIC, columns=CATEGORY), 200)
    steps = [{"use": "preprocessing.OneHotEncoder"}, LOGISTIC]
    few_folded, many_folded = grown(make("compose.Pipeline", CATEGORY, steps=steps, categories=64), 200)

    assert many > 2.5 * few
    assert many_hashed < 1.1 * few_hashed
    assert many_folded < 1.1 * few_folded


def test_a_number_of_categories_folds_values_and_leaves_few_ones_apart() -> None:
    """Four shops in 64 places are four shops, and the model says what it says with their texts."""
    X = np.random.default_rng(6).integers(0, 4, (100, 1)).astype(np.float64)
    y = (X[:, 0] > 1).astype(np.float64)
    found = interleaved(make("tree.HoeffdingTreeClassifier", CATEGORY, categories=64), X, y)
    folded, by_hand = (make("tree.HoeffdingTreeClassifier", CATEGORY, categories=most) for most in (2, "text"))

    assert np.array_equal(found, interleaved(make("tree.HoeffdingTreeClassifier", CATEGORY), X, y))
    assert np.array_equal(interleaved(folded, X, y), interleaved(by_hand, X % 2, y))


def test_a_default_tree_hardly_splits_on_rare_positives_and_says_more_with_naive_bayes_leaves() -> None:
    """At 0.8 % its leaf answers by majority; with leaf_prediction = "nb" the same leaf tells rows apart."""
    rng = np.random.default_rng(4)
    y = (rng.random(4_000) < 0.008).astype(float)
    X = rng.normal(size=(4_000, 2)) + y[:, None]
    default, bayes = make("tree.HoeffdingTreeClassifier"), make("tree.HoeffdingTreeClassifier", leaf_prediction="nb")
    said = [interleaved(learner, X, y)[2_000:] for learner in (default, bayes)]
    rare = y[2_000:] > 0.5
    lift = [float(one[rare].mean() / one[~rare].mean()) for one in said]

    assert default._model.n_leaves <= 2
    assert lift[1] > 2 * lift[0]


def test_a_selection_of_names_fails_on_a_row_without_one_and_leaving_others_out_does_not() -> None:
    """A missing feature is not in the row: compose.Select wants it, compose.Discard does not mind."""
    X, y = np.array([[1.0, 2.0], [np.nan, 2.0]]), np.array([0.0, 1.0])
    with pytest.raises(ModelError, match="KeyError: 'a'"):
        chain({"use": "compose.Select", "keys": ["a"]}, LOGISTIC).learn(X, y)
    learner = chain({"use": "compose.Discard", "keys": ["b"]}, LOGISTIC)
    learner.learn(X, y)

    assert np.isfinite(learner.predict(X)).all()
