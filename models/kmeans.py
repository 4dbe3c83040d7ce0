"""Compiled incremental k-means, learned one row at a time.

Equal to River's `cluster.KMeans` (river 0.26, centres within 1e-12), given rows without their missing numbers, whose
keys are the places of their columns (River goes through numbers in their order, and through texts in an order that each
process has of its own). What it does, and this keeps:

- a row belongs to the centre with the smallest sum of |difference|^p, the first of those that are equally near;
- learning moves that centre towards the row, by `halflife` of the way, in the columns that the row has;
- a column gets a place in every centre with the first row that has it: cluster by cluster, and within each column by
  column, by `random.Random(seed).gauss(mu, sigma)`;
- a missing number is 0 for the distance once its column is known, and no part of it before.

The difference to River: predicting changes nothing. River's draws new columns' places then already, and keeps them;
here a prediction is made with the places that would be drawn now, and learning draws them. So the two are the same if
each column is first seen in a row that is learned, or learned next.

Categories are no part of it: between codes there is no distance. Nothing is scaled; a column of large numbers decides.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.array_learner import ArrayLearner
from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Matrix, Vector, numbers_of
from streams.compiled import bare, inlined
from streams.frames import Column
from streams.pipeline import Model, Task

Indexes = npt.NDArray[np.int64]


class Weights(NamedTuple):
    """The model's state; K clusters, N number columns."""

    centre: Matrix  # [K, N]
    is_known: Vector  # N, 1: the column has come, and has a place in every centre


class Plan(NamedTuple):
    """What does not change while learning."""

    columns: Indexes  # N, of numbers
    first: Vector  # K * N places, as they are drawn
    halflife: float
    power: float


class Scratch(NamedTuple):
    """Room for one row: its numbers, and what lies between it and each centre."""

    number: Vector  # N
    distance: Vector  # K


class KMeansLearner(ArrayLearner):
    """Incremental k-means; a prediction is the number of the row's cluster, from 0, as a float.

    Params (all optional):
        n_clusters: how many centres, 5.
        halflife: how far a centre moves towards its row, 0.5. Larger follows change faster, and jumps more.
        mu, sigma: mean and deviation of the centres' first places, 0 and 1.
        p: power of the distance, 2 (Euclidean). Larger: the column that differs most decides; 1: all alike.
        seed: of the first places, 0.

    Example:
        >>> learner = KMeansLearner(Model("m", "kmeans", {"n_clusters": 2}), (Column("x", False),))
        >>> learner.learn(np.array([[-5.0], [5.0]] * 9), np.full(18, np.nan))
        >>> learner.predict(np.array([[-4.0], [6.0], [-6.0]]))
        array([1., 0., 1.])
    """

    _what = "k-means"

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        settings = numbers_of(model, task or Task("clustering"))
        numbers = [i for i, column in enumerate(columns) if not column.is_category]
        clusters, n = int(settings["n_clusters"]), len(numbers)
        draw = random.Random(int(settings["seed"]))  # noqa: S311  # places, not secrets
        first = np.array([draw.gauss(settings["mu"], settings["sigma"]) for _ in range(clusters * n)])
        self._plan = Plan(np.array(numbers, np.int64), first, settings["halflife"], settings["p"])
        self._scratch = Scratch(np.zeros(n), np.zeros(clusters))
        self._weights = Weights(np.zeros((clusters, n)), np.zeros(n))

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's cluster."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def distances(self, X_BF: Matrix) -> Matrix:
        """Give the distance of each row to each centre, [B, K]; the smallest is the row's cluster."""
        distance_BK = np.empty((len(X_BF), self._scratch.distance.size))
        distances_kernel(X_BF, self._plan, self._weights, self._scratch, distance_BK)
        return np.asarray(distance_BK ** (1.0 / self._plan.power))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one, whatever its label; one kernel call."""
        cluster_B = np.empty(len(action_B))
        step_kernel(X_BF, action_B, self._plan, self._weights, self._scratch, cluster_B)
        return cluster_B


@inlined
def _read(X_BF: Matrix, i: int, plan: Plan, scratch: Scratch) -> None:
    for j in range(scratch.number.size):
        x = X_BF[i, plan.columns[j]]
        scratch.number[j] = x if abs(x) <= MAX_MAGNITUDE else np.nan


@inlined
def _drawn(weights: Weights) -> int:
    """Give how many first places have been given."""
    places = 0
    for j in range(weights.is_known.size):
        places += weights.centre.shape[0] if weights.is_known[j] > 0.0 else 0
    return places


@inlined
def _measure(plan: Plan, weights: Weights, scratch: Scratch) -> None:
    """Write the sum of powers for each cluster; a column that comes with this row has the place that it would draw."""
    at = _drawn(weights)
    for k in range(scratch.distance.size):
        total = 0.0
        for j in range(scratch.number.size):
            x, is_known = scratch.number[j], weights.is_known[j] > 0.0
            is_there = not math.isnan(x)
            if is_known or is_there:
                place = weights.centre[k, j]
                if not is_known:
                    place = plan.first[at]
                    at += 1
                difference = abs(place - x) if is_there else abs(place)
                total += difference * difference if plan.power == 2.0 else difference**plan.power
        scratch.distance[k] = total


@inlined
def _nearest(distance: Vector) -> int:
    best = 0
    for k in range(1, distance.size):
        if distance[k] < distance[best]:
            best = k
    return best


@inlined
def _draw(plan: Plan, weights: Weights, scratch: Scratch) -> None:
    """Give columns that come with this row their places in every centre."""
    at = _drawn(weights)
    for k in range(scratch.distance.size):
        for j in range(scratch.number.size):
            if weights.is_known[j] == 0.0 and not math.isnan(scratch.number[j]):
                weights.centre[k, j] = plan.first[at]
                at += 1
    for j in range(scratch.number.size):
        if not math.isnan(scratch.number[j]):
            weights.is_known[j] = 1.0


@bare
def step_kernel(
    X_BF: Matrix, action_B: Actions, plan: Plan, weights: Weights, scratch: Scratch, cluster_B: Vector
) -> None:
    """Run `KMeansLearner.step`."""
    for i in range(action_B.size):
        cluster_B[i] = np.nan
        if action_B[i] != PREDICT and action_B[i] != LEARN:
            continue
        _read(X_BF, i, plan, scratch)
        _measure(plan, weights, scratch)
        nearest = _nearest(scratch.distance)
        if action_B[i] == PREDICT:
            cluster_B[i] = nearest
            continue
        _draw(plan, weights, scratch)
        for j in range(scratch.number.size):
            if not math.isnan(scratch.number[j]):
                weights.centre[nearest, j] += plan.halflife * (scratch.number[j] - weights.centre[nearest, j])


@bare
def distances_kernel(X_BF: Matrix, plan: Plan, weights: Weights, scratch: Scratch, distance_BK: Matrix) -> None:
    """Run `KMeansLearner.distances`, without the root."""
    for i in range(distance_BK.shape[0]):
        _read(X_BF, i, plan, scratch)
        _measure(plan, weights, scratch)
        for k in range(scratch.distance.size):
            distance_BK[i, k] = scratch.distance[k]
