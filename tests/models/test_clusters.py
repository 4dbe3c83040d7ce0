"""Clusters are River's, every model's are measured alike, and figures equal their definitions."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import cluster, preprocessing

from models.gauging import CENTRE_ROWS, MOST_SQUARED, GaugedLearner
from models.learner import LEARN, PREDICT, Learner, make_learner
from models.river_unsupervised import draw_centres
from models.scoring import Scores
from models.scoring_clustering import ClusteringQuality
from models.soundness import is_sound
from models.tally import MOST_CLUSTERS, add_score
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

KEY = b"k" * 32
COLUMNS = (Column("price", False), Column("shop", True), Column("miles", False))
TASK = Task("clustering")
NUMBERS = (0, 2)

Floats = npt.NDArray[np.float64]
Params = dict[str, bool | int | float | str]
river: Any = cluster  # untyped

RIVERS: list[tuple[str, Params]] = [
    ("KMeans", {"n_clusters": 3, "halflife": 0.4, "scale": "standard"}),
    ("CluStream", {"n_macro_clusters": 3, "max_micro_clusters": 20, "time_gap": 30}),
    ("DBSTREAM", {"clustering_threshold": 1.5}),
    ("DenStream", {"n_samples_init": 60, "epsilon": 0.7}),
    ("STREAMKMeans", {"n_clusters": 3}),
]
_SEEDED = ("KMeans", "CluStream", "STREAMKMeans")


def visits(rows: int = 400, seed: int = 0, *, has_gaps: bool = True) -> Floats:
    """Give rows in three groups."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 1.0, 0.0], [6.0, 2.0, 0.0], [3.0, 3.0, 9.0]])
    X = centres[rng.integers(0, 3, rows)] + rng.normal(0, [0.6, 0, 0.9], (rows, 3))
    if has_gaps:
        X[1:][rng.random((rows - 1, 3)) < 0.05] = np.nan
    return X


def delayed(rows: int, seed: int = 1) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Give rows in an order in which each is learned 1 to 40 rows after it was asked about."""
    due = np.arange(rows) + np.random.default_rng(seed).integers(1, 40, rows)
    order = np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")
    return order % rows, np.where(order < rows, PREDICT, LEARN).astype(np.int8)


def learner_of(kind: str, **params: Any) -> Learner:
    return make_learner(Model("m", kind, params), COLUMNS, KEY, TASK)


def nothing(rows: int) -> Floats:
    return np.full(rows, np.nan)


@pytest.mark.parametrize(("name", "params"), RIVERS)
def test_clusters_are_rivers(name: str, params: Params) -> None:
    """Row by row, without categories and missing numbers, asking a copy that may change; CluStream has whole rows."""
    X = visits()
    at, action = delayed(len(X))
    ours = learner_of(f"river:cluster.{name}", **params).step(X[at], nothing(at.size), action)

    own = {key: value for key, value in params.items() if key != "scale"}
    model: Any = getattr(river, name)(**own, **({"seed": 0} if name in _SEEDED else {}))
    model = preprocessing.StandardScaler() | model if "scale" in params else model
    if name == "KMeans":  # River draws centres in the order of a set, another one in every process
        draw_centres(model, ["price", "miles"])
    is_trained = False
    for said, row, what in zip(ours[:, 0].tolist(), X[at].tolist(), action.tolist(), strict=True):
        x = {COLUMNS[i].name: row[i] for i in NUMBERS if not math.isnan(row[i])}
        is_given = len(x) == len(NUMBERS) if name == "CluStream" else bool(x)
        if what == PREDICT:
            assert said == (copy.deepcopy(model).predict_one(x) if is_given and is_trained else 0)
        elif is_given:
            model.learn_one(x)
            is_trained = True
    assert np.unique(ours[action == PREDICT, 0]).size > 1


@pytest.mark.parametrize(("name", "params"), RIVERS)
def test_a_clusterer_goes_on_from_its_state_and_survives_what_is_no_number(name: str, params: Params) -> None:
    X = visits()
    X[5, :], X[50::50, 0], X[70::70, 2] = np.nan, np.inf, 1e308
    kind = f"river:cluster.{name}"
    first, whole, second = (learner_of(kind, **params) for _ in range(3))
    untrained = first.predict(X[:2])
    first.learn(X[:200], nothing(200))
    second.restore(first.state())
    second.learn(X[200:], nothing(200))
    whole.learn(X, nothing(400))
    said = whole.predict(X)

    assert np.array_equal(second.predict(X), said)
    assert np.array_equal(whole.predict(X), said)
    assert untrained.tolist() == [[0.0, 1.0, 1.0]] * 2
    assert is_sound(whole, COLUMNS, TASK)
    with pytest.raises(ModelError):
        first.restore({})


@pytest.mark.parametrize(
    "kind", ["cluster.ODAC", "cluster.TextClust", "anomaly.HalfSpaceTrees", "cluster.Absent", "absent.KMeans"]
)
def test_a_river_class_that_puts_no_rows_into_clusters_is_refused(kind: str) -> None:
    with pytest.raises(PipelineError, match=r"is no clusterer of rows|is not in river"):
        learner_of(f"river:{kind}")


# The yardstick


class Fixed:
    """A learner that reads a row's cluster from its category."""

    def step(self, X_BF: Floats, y_B: Floats, action_B: npt.NDArray[np.int8]) -> Floats:
        return np.where(action_B == PREDICT, X_BF[:, 1], np.nan)


class Reference:
    """The yardstick in plain Python: all rows are kept, and statistics are taken of them anew."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.means: dict[int, dict[int, tuple[float, int]]] = {}

    def squared(self, row: list[float], k: int) -> float:
        found = []
        for n in NUMBERS:
            seen = [value for other in self.rows if is_there(value := other[n])]
            deviation = float(np.std(seen)) if seen else 0.0
            if is_there(row[n]) and deviation > 0:
                centre = self.means.get(k, {}).get(n, (float(np.mean(seen)), 0))[0]
                found.append(min(((row[n] - centre) / deviation) ** 2, MOST_SQUARED))
        return sum(found) / len(found) if found else 1.0

    def say(self, row: list[float]) -> tuple[float, float]:
        k = min(int(row[1]), MOST_CLUSTERS - 1)
        own = self.squared(row, k)
        return own, min((self.squared(row, other) for other in self.means if other != k), default=own)

    def learn(self, row: list[float]) -> None:
        self.rows.append(row)
        means = self.means.setdefault(min(int(row[1]), MOST_CLUSTERS - 1), {})
        for n in NUMBERS:
            if is_there(row[n]):
                mean, count = means.get(n, (0.0, 0))
                means[n] = (mean + (row[n] - mean) / min(count + 1, CENTRE_ROWS), count + 1)


def is_there(value: float) -> bool:
    return abs(value) <= 1e30


def test_distances_are_to_the_means_of_clusters_in_standard_deviations() -> None:
    """Of missing numbers, of a cluster not met before, of an outlier, and of clusters past the last one told apart."""
    X = visits(300)
    X[:, 1] = np.nan_to_num(X[:, 1], nan=1.0)
    X[100:110, 1], X[110, 1] = 5_000.0, 99.0
    X[60, 0], X[61, 0], X[62] = 1e6, 1e308, [np.nan, 2.0, np.nan]
    at, action = delayed(len(X))
    inner: Any = Fixed()
    ours = GaugedLearner(inner, COLUMNS).step(X[at], nothing(at.size), action)

    reference = Reference()
    for said, row, what in zip(ours, X[at].tolist(), action.tolist(), strict=True):
        if what == PREDICT:
            assert said[0] == row[1]
            np.testing.assert_allclose(said[1:], reference.say(row), rtol=1e-6)
        else:
            assert np.isnan(said).all()
            reference.learn(row)
    assert (ours[action == PREDICT, 1] == 1.0).sum() >= 1
    assert np.nanmax(ours[:, 1]) > 40


def test_how_rows_are_cut_changes_no_bit() -> None:
    X = visits()
    at, action = delayed(len(X))
    whole = learner_of("river:cluster.KMeans", scale="standard").step(X[at], nothing(at.size), action)
    said, learner = [], learner_of("river:cluster.KMeans", scale="standard")
    for part in np.split(np.arange(at.size), [1, 2, 90, 91, 600]):
        said.append(learner.step(X[at[part]], nothing(part.size), action[part]))
        state, learner = learner.state(), learner_of("river:cluster.KMeans", scale="standard")
        learner.restore(state)

    assert np.array_equal(np.concatenate(said), whole, equal_nan=True)
    with pytest.raises(ModelError, match="is not whole"):
        learner.restore({**state, "centre_KN": np.zeros((3, 2))})


# Figures


def test_figures_equal_their_definitions() -> None:
    rng = np.random.default_rng(5)
    number = rng.integers(0, 4, 900).astype(float)
    own, other = rng.uniform(0, 2, 900), rng.uniform(0.5, 9, 900)
    other[:10] = own[:10] = 0.0
    said = np.column_stack([number, own, other])
    scores = Scores(TASK)
    loss = [add_score(scores.tally, said, row, math.nan) for row in range(900)]
    near, far = np.sqrt(own), np.sqrt(other)
    with np.errstate(invalid="ignore"):
        silhouette = np.nan_to_num((far - near) / np.maximum(near, far))

    for quality in (scores.since_start(), scores.rolling()):
        assert isinstance(quality, ClusteringQuality)
        assert quality.labels == 900
        assert quality.loss == quality.inertia == pytest.approx(own.mean(), abs=1e-12)
        assert quality.silhouette == pytest.approx(silhouette.mean(), abs=1e-12)
        assert quality.clusters == 4
    assert loss == own.tolist()
    assert math.isnan(Scores(TASK).since_start().loss)


def test_k_means_beats_one_cluster_for_all_which_comes_to_one() -> None:
    X = visits(600, has_gaps=False)
    figures = {}
    for kind, params in (("prior", {}), ("river:cluster.KMeans", {"n_clusters": 3, "scale": "standard"})):
        learner, scores = learner_of(kind, **params), Scores(TASK)
        for row in X[:, None]:
            said = learner.predict(row)
            add_score(scores.tally, said, 0, math.nan)
            learner.learn(row, nothing(1))
        figures[kind] = scores.since_start()._asdict()

    assert figures["prior"]["inertia"] == pytest.approx(
        1.0, abs=0.06
    )  # a bit more: at first the mean is that of few rows
    assert (figures["prior"]["silhouette"], figures["prior"]["clusters"]) == (0.0, 1.0)
    assert figures["river:cluster.KMeans"]["inertia"] < 0.6
    assert figures["river:cluster.KMeans"]["silhouette"] > 0.3
