"""The compiled half-space trees are River's, scaled by the range so far: every score within 1e-12."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import anomaly as river_anomaly
from river import preprocessing

from models.half_space_trees import HalfSpaceTreesLearner
from models.learner import LEARN, PREDICT
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.model_setting import Value
from streams.pipeline import Model
from tests.models.learner_rules import assert_cuts_change_no_bit
from tests.models.streams_of_river import Stream, made_up, published

anomaly: Any = river_anomaly  # untyped
Floats = npt.NDArray[np.float64]
COLUMNS = (Column("b", False), Column("a", False), Column("c", False))
SMALL: dict[str, Value] = {"n_trees": 5, "height": 4, "window_size": 40}


def make(params: dict[str, Value], columns: tuple[Column, ...] = COLUMNS) -> HalfSpaceTreesLearner:
    return HalfSpaceTreesLearner(Model("m", "half_space_trees", params), columns)


def clusters(rows: int, seed: int = 0) -> Floats:
    """Give rows of two clusters, with gaps but in the first row."""
    rng = np.random.default_rng(seed)
    X = rng.normal(rng.integers(0, 2, (rows, 1)) * 50.0, [1.0, 5.0, 20.0], (rows, 3))
    X[1:][rng.random((rows - 1, 3)) < 0.1] = np.nan
    return X


def assert_equal_to_river(stream: Stream, params: dict[str, Value], delay: int = 0) -> None:
    rows = len(stream.X)
    due = np.arange(rows) + np.random.default_rng(1).integers(0, delay + 1, rows)
    order = np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")
    action, event = np.where(order < rows, PREDICT, LEARN).astype(np.int8), order % rows
    found = make(params, stream.columns).step(stream.X[event], np.full(2 * rows, np.nan), action)
    reference: Any = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(**{"seed": 0, **params})
    expected, known = np.full(2 * rows, np.nan), stream.rows
    for at, i in enumerate(event.tolist()):
        if action[at] == PREDICT:
            expected[at] = reference.score_one(known[i])
        else:
            reference.learn_one(known[i])

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.nanstd(found) > 0.02


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("Phishing", {}),
        ("Bananas", {"n_trees": 7, "height": 5, "window_size": 30, "seed": 11}),
        ("ImageSegments", {"n_trees": 3, "height": 10, "window_size": 100, "seed": 2}),
    ],
)
def test_on_published_streams_every_score_is_rivers(name: str, params: dict[str, Value]) -> None:
    stream = published(name)

    assert_equal_to_river(stream._replace(X=stream.X[:1_500]), params)


def test_with_gaps_and_rows_learned_late_every_score_is_rivers_whatever_the_order_of_columns() -> None:
    X = clusters(1_500)

    assert_equal_to_river(Stream(COLUMNS, X, X[:, 0], made_up(1, 2, 0).task), SMALL, delay=60)


def test_scores_are_zero_until_a_window_is_full_and_then_outliers_score_highest() -> None:
    X = clusters(1_000)
    learner = make({})
    learner.learn(X[:249], np.full(249, np.nan))
    early = learner.predict(X)
    learner.learn(X[249:], np.full(751, np.nan))
    lonely = np.array([[25.0, 25.0, 25.0], [50.0, -10.0, 90.0]])  # far from both clusters, within the ranges
    said = learner.predict(X[~np.isnan(X).any(axis=1)])

    assert (early == 0.0).all()
    assert learner.predict(lonely).min() > np.quantile(said, 0.9)
    assert ((said >= 0.0) & (said <= 1.0)).all()


def test_a_row_is_learned_whatever_its_label_and_categories_are_left_out() -> None:
    X = clusters(400)
    columns = (COLUMNS[0], Column("kind", True), *COLUMNS[1:])
    with_kind = np.insert(X, 1, np.arange(400) % 5, axis=1)
    unlabelled, labelled = make(SMALL), make(SMALL, columns)
    unlabelled.learn(X, np.full(400, np.nan))
    labelled.learn(with_kind, np.arange(400).astype(np.float64) % 2)

    assert np.array_equal(unlabelled.predict(X), labelled.predict(with_kind))


def test_cutting_rows_into_other_batches_changes_no_bit() -> None:
    assert_cuts_change_no_bit(make(SMALL), make(SMALL), clusters(500), np.zeros(500), (1, 8, 250, 499, 500))


def test_a_restored_model_goes_on_bit_for_bit_and_predicting_changes_nothing() -> None:
    X, y = clusters(500), np.zeros(500)
    first, whole, second = make(SMALL), make(SMALL), make(SMALL)
    first.learn(X[:230], y[:230])
    before = first.state()
    first.predict(X)
    second.restore(first.state())
    second.learn(X[230:], y[230:])
    whole.learn(X, y)

    assert all(np.array_equal(array, first.state()[name]) for name, array in before.items())
    assert all(np.array_equal(array, second.state()[name]) for name, array in whole.state().items())
    assert np.array_equal(second.predict(X), whole.predict(X))


@settings(max_examples=25, deadline=None)
@given(X=hnp.arrays(np.float64, st.tuples(st.integers(1, 60), st.just(3)), elements=st.floats(width=64)))
def test_no_input_gives_a_score_outside_of_0_and_1(X: Floats) -> None:
    learner = make({"n_trees": 3, "height": 3, "window_size": 5})
    learner.learn(X, np.zeros(len(X)))
    said = learner.predict(X)

    assert learner.is_finite()
    assert ((said >= 0.0) & (said <= 1.0)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e31])
def test_an_absurd_number_is_a_missing_number(bad: float) -> None:
    X, gaps = clusters(300), np.zeros((300, 3), bool)
    gaps[20::7, 1] = True
    spoiled, clean = make(SMALL), make(SMALL)
    spoiled.learn(np.where(gaps, bad, X), np.zeros(300))
    clean.learn(np.where(gaps, np.nan, X), np.zeros(300))

    assert np.array_equal(spoiled.predict(X), clean.predict(X))


def test_trees_of_another_seed_or_size_are_refused() -> None:
    learner = make(SMALL)
    with pytest.raises(ModelError, match="of another seed, or other columns, were found"):
        make({**SMALL, "seed": 1}).restore(learner.state())
    with pytest.raises(ModelError, match="is not whole"):
        make(SMALL).restore({**learner.state(), "mass": np.zeros((5, 3))})


def test_a_model_without_numbers_or_with_too_many_nodes_is_refused() -> None:
    with pytest.raises(PipelineError, match="half_space_trees needs a column of numbers; there are none"):
        make({}, (Column("kind", True),))
    with pytest.raises(PipelineError, match="1000 trees of height 18 are too many nodes"):
        make({"n_trees": 1000, "height": 18})
