"""The compiled k-means has River's centres and gives River's clusters."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import cluster, datasets

from models import kmeans
from models.kmeans import KMeansLearner
from models.learner import LEARN, PREDICT, SKIP
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model
from tests.models.learner_rules import assert_cuts_change_no_bit, repeated

Floats = npt.NDArray[np.float64]

COLUMNS = tuple(Column(name, name == "colour") for name in ("x", "y", "colour", "z"))
river_kmeans: Any = cluster.KMeans  # untyped


def make(columns: tuple[Column, ...] = COLUMNS, **params: float) -> KMeansLearner:
    return KMeansLearner(Model("groups", "kmeans", params), columns)


def rows_of(rows: int, seed: int = 0) -> Floats:
    """Give rows of COLUMNS around three points, with holes; nothing of z before the 40th."""
    rng = np.random.default_rng(seed)
    around = np.array([[-4.0, 2.0, 0.0, 9.0], [3.0, 5.0, 0.0, 1.0], [0.0, -6.0, 0.0, 4.0]])
    X: Floats = rng.normal(size=(rows, 4)) + around[rng.integers(0, 3, rows)]
    X[:, 2] = rng.integers(0, 5, rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    X[:40, 3] = np.nan
    return X


def published(name: str) -> Floats:
    """Give the numbers of a stream that River ships, all columns of one size."""
    made: Any = getattr(datasets, name)
    pairs = [pair for pair, _ in zip(made(), range(1_000), strict=False)]
    names = [key for key, value in pairs[0][0].items() if isinstance(value, int | float)]
    X = np.array([[x[key] for key in names] for x, _ in pairs], np.float64)
    return np.asarray((X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9))


def compare(learner: KMeansLearner, reference: Any, X: Floats, places: list[int]) -> Floats:
    """Give each row's cluster, told before it is learned, when River tells the same and has the same centres."""
    rows, action = np.repeat(X, 2, axis=0), np.tile([PREDICT, LEARN], len(X)).astype(np.int8)
    ours = learner.step(rows, np.full(len(rows), np.nan), action)[::2]
    said = []
    for row in X.tolist():
        x = {key: row[place] for key, place in enumerate(places) if not math.isnan(row[place])}
        said.append(reference.predict_one(x))
        reference.learn_one(x)
    theirs = [[centre[key] for key in range(len(places))] for centre in reference.centers.values()]

    assert ours.tolist() == said
    np.testing.assert_allclose(learner.state()["centre"].astype(float), theirs, rtol=1e-12, atol=1e-12)
    return ours


@pytest.mark.parametrize("stream", ["Phishing", "Bananas", "ImageSegments", "TrumpApproval"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"n_clusters": 7, "halflife": 0.05, "p": 1, "seed": 3},
        {"n_clusters": 3, "halflife": 0.3, "p": 3, "mu": 0.5, "sigma": 1.5, "seed": 11},
    ],
)
def test_every_cluster_on_a_published_stream_is_rivers(stream: str, params: dict[str, Any]) -> None:
    X = published(stream)
    columns = tuple(Column(f"x{place}", False) for place in range(X.shape[1]))
    reference = river_kmeans(**{"seed": 0, **params})
    clusters = compare(make(columns, **params), reference, X, list(range(X.shape[1])))

    assert len(set(clusters)) > 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_missing_numbers_and_columns_that_come_later_are_as_rivers(seed: int) -> None:
    """Categories are no part of it."""
    X = rows_of(600, seed)
    clusters = compare(
        make(halflife=0.1, sigma=3.0, seed=seed), river_kmeans(seed=seed, halflife=0.1, sigma=3.0), X, [0, 1, 3]
    )

    assert len(set(clusters)) > 1


def test_predicting_draws_nothing() -> None:
    """River's would keep what it draws for a prediction."""
    X = rows_of(50)
    asked, silent = make(), make()
    said = asked.predict(X)
    asked.predict(X[::-1])
    asked.step(X, np.zeros(50), np.full(50, SKIP, np.int8))

    assert not asked.state()["is_known"].any()
    assert np.array_equal(asked.predict(X), said)
    asked.learn(X, np.zeros(50))
    silent.learn(X, np.full(50, np.nan))
    assert all(np.array_equal(a, silent.state()[name]) for name, a in asked.state().items())


def test_a_row_belongs_to_the_centre_at_the_smallest_distance() -> None:
    X = rows_of(300)
    learner = make(p=3.0)
    learner.learn(X, np.zeros(300))
    distance = learner.distances(X)
    centre = learner.state()["centre"].astype(float)
    difference = np.abs(np.nan_to_num(X[:, [0, 1, 3]])[:, None, :] - centre[None])

    np.testing.assert_allclose(distance, (difference**3).sum(axis=2) ** (1 / 3), rtol=1e-12)
    assert np.array_equal(distance.argmin(axis=1), learner.predict(X))


@pytest.mark.parametrize("cuts", [[1], [7, 7, 300]])
def test_cutting_rows_into_other_batches_changes_no_bit(cuts: list[int]) -> None:
    X = rows_of(1_000)
    expected, action = assert_cuts_change_no_bit(make(), make(), X, np.zeros(1_000), repeated(cuts, 1_000))

    assert np.array_equal(np.isnan(expected), action != PREDICT)


def test_a_restored_model_goes_on_bit_for_bit_and_draws_on() -> None:
    X = rows_of(200)
    first, whole, second = make(), make(), make()
    first.learn(X[:20], np.zeros(20))
    second.restore(first.state())
    second.learn(X[20:], np.zeros(180))
    whole.learn(X, np.zeros(200))

    assert not first.state()["is_known"].all()
    assert all(np.array_equal(a, second.state()[name]) for name, a in whole.state().items())
    with pytest.raises(ModelError, match="a k-means model's centre is not whole"):
        make(n_clusters=4).restore(first.state())


@given(
    hnp.arrays(np.float64, (40, len(COLUMNS)), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.sampled_from([1.0, 2.0, 10.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_input_makes_the_model_not_finite(X: Floats, p: float) -> None:
    learner = make(p=p)
    learner.learn(X, np.zeros(40))

    assert learner.is_finite()
    assert set(learner.predict(X)) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert np.isfinite(learner.distances(X)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e31])
def test_an_absurd_number_is_a_missing_number(bad: float) -> None:
    X = rows_of(100)
    missing, absurd = X.copy(), X.copy()
    missing[::3, 0], absurd[::3, 0] = np.nan, bad
    a, b = make(), make()
    a.learn(missing, np.zeros(100))
    b.learn(absurd, np.zeros(100))

    assert np.array_equal(a.predict(missing), b.predict(absurd))
    assert all(np.array_equal(array, b.state()[name]) for name, array in a.state().items())


def test_the_example_runs() -> None:
    assert doctest.testmod(kmeans).failed == 0


def test_a_wrong_parameter_is_named_with_what_is_allowed() -> None:
    with pytest.raises(PipelineError, match=r"halflife: 1\.5 is not right; allowed: a number above 0 up to 1"):
        make(halflife=1.5)
    with pytest.raises(PipelineError, match="n_clusters: 0 is not right; allowed: a whole number from 1 to 1024"):
        make(n_clusters=0)
