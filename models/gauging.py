"""The yardstick of clusterings: how far rows lie from the middle of the cluster they are put into.

Models keep centres in units of their own, or none at all, so their own distances say nothing to each other. Here every
candidate is measured by one rule: the squared distance of a row to the mean of the rows that were put into its cluster
before, each number in units of its standard deviation so far, averaged over the numbers that are there. 1 is as far as
rows lie from the mean of all: what a single cluster comes to. Categories do not count, and no row counts for more than
100. A mean goes over about the last 1,000 rows of its cluster, so that it follows a cluster that moves.

The yardstick moves where the model learns, by what the model says of the row just before, and is part of the model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Learner, Matrix, Vector
from models.rehearsal import SurroundingLearner, said_before
from models.tally import MOST_CLUSTERS, cluster_place
from streams.compiled import bare, inlined
from streams.frames import Column

CENTRE_ROWS = 1_000.0
MOST_SQUARED = 100.0  # bounds the loss, as evidence needs it: ten standard deviations in every number


class Gauge(NamedTuple):
    """What is known of the rows; K clusters, N number columns."""

    rows_N: Vector  # in which the number was there
    mean_N: Vector
    spread_N: Vector  # sum of squared distances to the mean (Welford 1962)
    rows_K: Vector
    rows_KN: Matrix  # in which the number was there
    centre_KN: Matrix


class GaugedLearner(SurroundingLearner):
    """Gives each row's cluster with its squared distance to that cluster and to the nearest other one: [B, 3].

    Cost: a second prediction for each row learned, and for each row predicted about 1 ns for each cluster and number.

    Example:
        >>> from models.learner import make_learner
        >>> from streams.pipeline import Model, Task
        >>> learner = make_learner(Model("m", "prior", {}), (Column("x", False),), task=Task("clustering"))
        >>> learner.learn(np.array([[-1.0], [1.0]]), np.full(2, np.nan))
        >>> learner.predict(np.array([[3.0]]))
        array([[0., 9., 9.]])
    """

    def __init__(self, inner: Learner, columns: tuple[Column, ...]) -> None:
        """Stand around a learner of clusters, which says a cluster's number first."""
        super().__init__(inner)
        self._numbers = np.flatnonzero([not column.is_category for column in columns])
        size = self._numbers.size
        flat, grid = (size,), (MOST_CLUSTERS, size)
        shapes = (flat, flat, flat, (MOST_CLUSTERS,), grid, grid)
        self._gauge = Gauge(*(np.zeros(shape) for shape in shapes))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one."""
        said_B3 = np.full((len(y_B), 3), np.nan)
        said_B3[:, 0] = said_before(self.inner, X_BF, y_B, action_B)
        gauge_kernel(said_B3, np.ascontiguousarray(X_BF[:, self._numbers]), action_B, self._gauge)
        return said_B3

    def _own(self) -> dict[str, Vector]:
        return self._gauge._asdict()

    def _take_own(self, arrays: dict[str, Vector]) -> None:
        self._gauge = Gauge(**arrays)


@inlined
def is_number_kernel(value: float) -> bool:
    """Say whether a number is there and of a size that counts."""
    return abs(value) <= MAX_MAGNITUDE


@inlined
def _squared(gauge: Gauge, k: int, x_BN: Matrix, row: int) -> float:
    """Give the squared distance of a row to a cluster; to the mean of all where nothing is known of the cluster."""
    total, there = 0.0, 0
    for n in range(x_BN.shape[1]):
        if is_number_kernel(x_BN[row, n]) and gauge.spread_N[n] > 0.0:
            centre = gauge.centre_KN[k, n] if gauge.rows_KN[k, n] > 0.0 else gauge.mean_N[n]
            away = x_BN[row, n] - centre
            total += min(away * away / (gauge.spread_N[n] / gauge.rows_N[n]), MOST_SQUARED)
            there += 1
    return total / there if there else 1.0


@inlined
def _learn(gauge: Gauge, k: int, x_BN: Matrix, row: int) -> None:
    gauge.rows_K[k] += 1.0
    for n in range(x_BN.shape[1]):
        x = x_BN[row, n]
        if is_number_kernel(x):
            gauge.rows_N[n] += 1.0
            before = x - gauge.mean_N[n]
            gauge.mean_N[n] += before / gauge.rows_N[n]
            gauge.spread_N[n] += before * (x - gauge.mean_N[n])
            gauge.rows_KN[k, n] += 1.0
            gauge.centre_KN[k, n] += (x - gauge.centre_KN[k, n]) / min(gauge.rows_KN[k, n], CENTRE_ROWS)


@bare
def gauge_kernel(said_B3: Matrix, x_BN: Matrix, action_B: Actions, gauge: Gauge) -> None:
    """Run `GaugedLearner.step`: measure the rows that were asked about, move the means by those that were learned."""
    for i in range(action_B.size):
        if action_B[i] != PREDICT and action_B[i] != LEARN:
            continue
        k = cluster_place(said_B3[i, 0])
        if action_B[i] == LEARN:
            _learn(gauge, k, x_BN, i)
            said_B3[i, 0] = np.nan
            continue
        said_B3[i, 1] = _squared(gauge, k, x_BN, i)
        nearest = np.inf
        for other in range(MOST_CLUSTERS):
            if other != k and gauge.rows_K[other] > 0.0:
                nearest = min(nearest, _squared(gauge, other, x_BN, i))
        said_B3[i, 2] = nearest if nearest < np.inf else said_B3[i, 1]
