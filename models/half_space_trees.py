"""Compiled half-space trees for anomalies, learned one row at a time.

Equal to River's `MinMaxScaler() | HalfSpaceTrees(seed=…)` (river 0.26, every score within 1e-12) when that is given
each row without its missing features and the first row it learns has all of them: River divides by the features of that
row, here by all numbers from the start. The trees are made by the same calls of the same generator, so for the same
names they are River's. Categories are left out, for half-spaces need an order.

What it does with a row, and this keeps: learning first widens each number's range, then scales by it; a row that lacks
a tree's number goes where most rows of the window at hand went, also when it is scored; every `window_size` rows the
masses that were counted become those that scores are made of. Until the first window is full every score is 0.

Source: Tan, Ting and Liu, Fast anomaly detection for streaming data, IJCAI 2011; river/anomaly/hst.py.
"""

from __future__ import annotations

import functools
import math
import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.array_learner import ArrayLearner
from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Matrix, State, Vector, numbers_of
from streams.compiled import bare, inlined
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

PADDING = 0.15  # of a range, in which no tree divides it; River's
SMALLEST_SHARE = 0.1  # of a window, with fewer rows than which a score looks no deeper; the paper's
MOST_NODES = 1 << 20  # of all trees: 16 MiB of masses, and some seconds to make

Indexes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Weights(NamedTuple):
    """The model's state; T trees of M nodes, the children of node i at 2i + 1 and 2i + 2; N number columns."""

    least: Vector  # N, smallest number so far; 0 where `seen` is
    most: Vector  # N
    seen: Vector  # N, whether the column had any
    threshold: Floats  # [T, M // 2], where branches divide; never changes, and says whose trees these are
    mass: Floats  # [T, M], rows of the last full window
    filling: Floats  # [T, M], rows of the window at hand
    counter: Vector  # [rows of the window at hand, full windows up to 1]


class Plan(NamedTuple):
    """What does not change while learning."""

    columns: Indexes  # N, in the order of their names
    divides: Indexes  # [T, M // 2], by which of them a branch divides
    height: int
    window_size: float
    largest: float  # score of rows that lie where all the others do


class HalfSpaceTreesLearner(ArrayLearner):
    """Scores a row by how few others lie near it, in trees that divide the space at random.

    Params (all optional, named and preset as River's but for the seed, which is none there):
        n_trees: 10. More: steadier scores, at a cost that grows with them.
        height: of each tree, 8. Higher: finer regions, so outliers nearer to the others show; memory doubles with each.
        window_size: rows from which regions' masses are counted, 250. Larger: steadier, follows changes later.
        seed: of the trees, 0.

    Scores are in [0, 1], larger is more anomalous. A label is not looked at, so a row without one is learned too.

    Example:
        >>> model = Model("m", "half_space_trees", {"n_trees": 5, "height": 3, "window_size": 3})
        >>> learner = HalfSpaceTreesLearner(model, (Column("x", False),))  # doctest: +SKIP
        >>> X = np.array([[0.0], [1.0], [0.45], [0.43], [0.44], [0.45]])
        >>> learner.learn(X, np.full(6, np.nan))  # doctest: +SKIP
        >>> learner.predict(np.array([[0.44], [0.99]])).round(3)  # doctest: +SKIP
        array([0.071, 0.88 ])
    """

    _what = "half-space trees"
    _weights: Weights

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        settings = {name: int(value) for name, value in numbers_of(model, task or Task("anomaly")).items()}
        names = sorted(column.name for column in columns if not column.is_category)
        trees, height, window_size = settings["n_trees"], settings["height"], settings["window_size"]
        _check(model, names, trees, height)
        place = {column.name: i for i, column in enumerate(columns)}
        divides, threshold = _make_trees(len(names), trees, height, settings["seed"])
        nodes = 2 ** (height + 1) - 1
        largest = float(trees * window_size * nodes)
        numbers = np.array([place[name] for name in names], np.int64)
        self._plan = Plan(numbers, divides, height, float(window_size), largest)
        self._scaled = np.zeros(len(names))
        n = len(names)
        mass, filling = np.zeros((trees, nodes)), np.zeros((trees, nodes))
        self._weights = Weights(np.zeros(n), np.zeros(n), np.zeros(n), threshold.copy(), mass, filling, np.zeros(2))

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score, [B]."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and score, learn or skip each one, whatever its label; one kernel call."""
        score_B = np.full(len(action_B), np.nan)
        step_kernel(X_BF, action_B, self._plan, self._weights, self._scaled, score_B)
        return score_B

    def restore(self, state: State) -> None:
        """Take the masses of the same trees."""
        found = state.get("threshold")
        if found is not None and not np.array_equal(found, self._weights.threshold):
            raise ModelError("half-space trees of another seed, or other columns, were found")
        super().restore(state)


def _check(model: Model, names: list[str], trees: int, height: int) -> None:
    where = f"[models.{model.name}]"
    if not names:
        raise PipelineError([f"{where} kind: half_space_trees needs a column of numbers; there are none"])
    if trees * 2 ** (height + 1) > MOST_NODES:
        needed = f"n_trees * 2^(height + 1) of at most {MOST_NODES:,}"
        raise PipelineError([f"{where} height: {trees} trees of height {height} are too many nodes; allowed: {needed}"])


@functools.lru_cache(maxsize=4)  # a reader of versions makes the same learner for each
def _make_trees(columns: int, trees: int, height: int, seed: int) -> tuple[Indexes, Floats]:
    """Choose for each branch the column (by its place among sorted names) and the threshold, as River does."""
    generator = random.Random(seed)  # noqa: S311 - not for secrets
    divides = np.zeros((trees, 2**height - 1), np.int64)
    threshold = np.zeros(divides.shape)
    for tree in range(trees):
        _divide(generator, [(0.0, 1.0)] * columns, 0, divides[tree], threshold[tree])
    return divides, threshold


def _divide(
    generator: random.Random, limits: list[tuple[float, float]], node: int, divides: Indexes, threshold: Vector
) -> None:
    """Divide a region by a column chosen in proportion to what is left of its range; then the left part, the right.

    Source: `make_padded_tree` in river/tree/padded.py.
    """
    if node >= divides.size:
        return
    on = generator.choices(range(len(limits)), weights=[high - low for low, high in limits])[0]
    low, high = limits[on]
    at = generator.uniform(low + PADDING * (high - low), high - PADDING * (high - low))
    divides[node], threshold[node] = on, at
    for child, part in ((2 * node + 1, (low, at)), (2 * node + 2, (at, high))):
        limits[on] = part
        _divide(generator, limits, child, divides, threshold)
    limits[on] = (low, high)


@inlined
def _widen(X_BF: Matrix, i: int, plan: Plan, weights: Weights) -> None:
    """Learn the range of each number."""
    for j in range(plan.columns.size):
        x = X_BF[i, plan.columns[j]]
        if abs(x) <= MAX_MAGNITUDE:
            is_first = weights.seen[j] == 0.0
            weights.least[j] = x if is_first else min(weights.least[j], x)
            weights.most[j] = x if is_first else max(weights.most[j], x)
            weights.seen[j] = 1.0


@inlined
def _scale(X_BF: Matrix, i: int, plan: Plan, weights: Weights, scaled: Vector) -> None:
    """Scale each number by its range, NaN = missing."""
    for j in range(plan.columns.size):
        x = X_BF[i, plan.columns[j]]
        width = weights.most[j] - weights.least[j]
        within = (x - weights.least[j]) / width if width != 0.0 else 0.0
        scaled[j] = within if abs(x) <= MAX_MAGNITUDE else np.nan


@inlined
def _child(t: int, node: int, plan: Plan, weights: Weights, scaled: Vector) -> int:
    value, left = scaled[plan.divides[t, node]], 2 * node + 1
    if math.isnan(value):
        return left + 1 if weights.filling[t, left] < weights.filling[t, left + 1] else left
    return left + int(not value < weights.threshold[t, node])


@inlined
def _learn(plan: Plan, weights: Weights, scaled: Vector) -> None:
    for t in range(weights.mass.shape[0]):
        node = 0
        for _ in range(plan.height):
            weights.filling[t, node] += 1.0
            node = _child(t, node, plan, weights, scaled)
        weights.filling[t, node] += 1.0
    weights.counter[0] += 1.0
    if weights.counter[0] == plan.window_size:
        for t in range(weights.mass.shape[0]):
            for node in range(weights.mass.shape[1]):
                weights.mass[t, node] = weights.filling[t, node]
                weights.filling[t, node] = 0.0
        weights.counter[0], weights.counter[1] = 0.0, 1.0


@inlined
def _score(plan: Plan, weights: Weights, scaled: Vector) -> float:
    if weights.counter[1] == 0.0:
        return 0.0
    least, total = SMALLEST_SHARE * plan.window_size, 0.0
    for t in range(weights.mass.shape[0]):
        node, power = 0, 1.0
        for _ in range(plan.height):
            if weights.mass[t, node] < least:
                break
            total += weights.mass[t, node] * power
            node = _child(t, node, plan, weights, scaled)
            power *= 2.0
        total += weights.mass[t, node] * power
    return 1.0 - total / plan.largest


@bare
def step_kernel(X_BF: Matrix, action_B: Actions, plan: Plan, weights: Weights, scaled: Vector, score_B: Vector) -> None:
    """Run `HalfSpaceTreesLearner.step`; about 0.3 us a row with 10 trees."""
    for i in range(action_B.size):
        if action_B[i] == LEARN:
            _widen(X_BF, i, plan, weights)
            _scale(X_BF, i, plan, weights, scaled)
            _learn(plan, weights, scaled)
        elif action_B[i] == PREDICT:
            _scale(X_BF, i, plan, weights, scaled)
            score_B[i] = _score(plan, weights, scaled)
