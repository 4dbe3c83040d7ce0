"""Compiled naive Bayes, learned one row at a time: a normal distribution of each number, and counts of categories.

Over numbers alone equal to River's `naive_bayes.GaussianNB` (river 0.26, within 1e-9 on every probability), given rows
without their missing features. What it does, and this keeps:

- a number has, in each class, Welford's mean and population variance over that class's rows that had it;
- its density is never below 1e-9; so it is also in a class that has not had the number, or only one value of it;
- a missing number says nothing; a class without a label so far has probability 0;
- nothing is scaled, for a density follows its number's own scale.

River's has no categories. Here a category's share in a class is (rows of the class with it + smoothing) / (rows of the
class with any of its column + smoothing * (categories of the column so far + 1)), as in scikit-learn's `CategoricalNB`,
with one category more for all that have not come yet. They share a table of 2**bits rows, so memory is bounded, and two
categories may collide.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.array_learner import ArrayLearner
from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Matrix, Vector, numbers_of
from models.linear_kernels import Plan, Scratch, read_row
from streams.compiled import bare, inlined
from streams.frames import Column
from streams.pipeline import Model, Task

LEAST_DENSITY = 10e-10  # River's _PDF_EPS
ROOT_OF_TAU = math.sqrt(2.0 * math.pi)


class Weights(NamedTuple):
    """The model's state; N number columns, K category columns, C classes."""

    labels: Vector  # C, rows of each class
    seen: Matrix  # [N, C], rows of the class that had the number; mean and squares are [N, C] too
    mean: Matrix
    squares: Matrix  # sum of squared deviations from the mean
    table: Matrix  # [2**bits, C], rows of the class that had the category
    had: Matrix  # [K, C], rows of the class that had any category of the column
    categories: Vector  # K, how many have come


class NaiveBayesLearner(ArrayLearner):
    """Gaussian naive Bayes over numbers, with smoothed counts of categories.

    Params (all optional):
        smoothing: what a category's count begins at, 1. Larger: rare categories say less.
        bits: the category table has 2**bits counts for each class, 16. More bits: fewer collisions, more memory.

    Example:
        >>> learner = NaiveBayesLearner(Model("m", "naive_bayes", {}), (Column("x", False),))
        >>> learner.learn(np.array([[1.0], [2.0], [4.0], [6.0]]), np.array([0.0, 0.0, 1.0, 1.0]))
        >>> learner.predict(np.array([[2.5], [3.0], [np.nan]])).round(4)
        array([0.1397, 0.859 , 0.5   ])
    """

    _what = "naive Bayes"

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        task = task or Task()
        settings = numbers_of(model, task)
        numbers = [i for i, column in enumerate(columns) if not column.is_category]
        categories = [i for i, column in enumerate(columns) if column.is_category]
        self._outputs, self._smoothing = task.outputs, settings["smoothing"]
        self._plan = Plan(np.array(numbers, np.int64), np.array(categories, np.int64), np.empty(0), False)
        n, k, classes = len(numbers), len(categories), max(task.outputs, 2)
        self._scratch = Scratch(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(k, np.int64), np.zeros(n))
        numbers_seen = np.zeros((n, classes)), np.zeros((n, classes)), np.zeros((n, classes))
        rows = 2 ** int(settings["bits"]) if categories else 1
        counts = np.zeros((rows, classes)), np.zeros((k, classes)), np.zeros(k)
        self._weights = Weights(np.zeros(classes), *numbers_seen, *counts)

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's probability of yes, or of each class ([B, C])."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, count or skip each one; one kernel call."""
        share_BC = np.full((len(y_B), self._weights.labels.size), np.nan)
        state = self._plan, self._smoothing, self._weights, self._scratch
        step_kernel(X_BF, y_B, action_B, *state, share_BC)
        return share_BC if self._outputs > 1 else share_BC[:, 1].copy()


@inlined
def _log_density(x: float, seen: float, mean: float, squares: float) -> float:
    variance = squares / seen if seen > 0.0 else 0.0
    if variance <= 0.0:
        return math.log(LEAST_DENSITY)
    deviation = math.sqrt(variance)
    z = (x - mean) / deviation
    return math.log(LEAST_DENSITY + math.exp(-0.5 * z * z) / ROOT_OF_TAU / deviation)


@inlined
def _log_share(column: int, slot: int, label: int, smoothing: float, weights: Weights) -> float:
    over = weights.had[column, label] + smoothing * (weights.categories[column] + 1.0)
    return math.log((weights.table[slot, label] + smoothing) / over)


@inlined
def _say(smoothing: float, weights: Weights, scratch: Scratch, share_BC: Matrix, i: int) -> None:
    """Write the probability of each class; all the same before the first label."""
    classes, total = weights.labels.size, 0.0
    for label in range(classes):
        total += weights.labels[label]
    largest = -np.inf
    for label in range(classes):
        share_BC[i, label] = -np.inf
        if weights.labels[label] > 0.0:
            found = 0.0
            for j in range(scratch.number.size):
                x = scratch.number[j]
                if abs(x) <= MAX_MAGNITUDE:
                    seen, mean, squares = weights.seen[j, label], weights.mean[j, label], weights.squares[j, label]
                    found += _log_density(x, seen, mean, squares)
            for column in range(scratch.slot.size):
                if scratch.slot[column] >= 0:
                    found += _log_share(column, scratch.slot[column], label, smoothing, weights)
            share_BC[i, label] = math.log(weights.labels[label] / total) + found
            largest = max(largest, share_BC[i, label])
    over = 0.0
    for label in range(classes):
        share_BC[i, label] = math.exp(share_BC[i, label] - largest) if total > 0.0 else 1.0
        over += share_BC[i, label]
    for label in range(classes):
        share_BC[i, label] /= over


@inlined
def _count(label: int, weights: Weights, scratch: Scratch) -> None:
    weights.labels[label] += 1.0
    for j in range(scratch.number.size):
        x, before = scratch.number[j], weights.mean[j, label]
        if abs(x) <= MAX_MAGNITUDE:
            weights.seen[j, label] += 1.0
            mean = before + (x - before) / weights.seen[j, label]
            weights.squares[j, label] += (x - before) * (x - mean)
            weights.mean[j, label] = mean
    for column in range(scratch.slot.size):
        slot = scratch.slot[column]
        if slot >= 0:
            rows = 0.0
            for other in range(weights.labels.size):
                rows += weights.table[slot, other]
            weights.categories[column] += 1.0 if rows == 0.0 else 0.0
            weights.table[slot, label] += 1.0
            weights.had[column, label] += 1.0


@bare
def step_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    smoothing: float,
    weights: Weights,
    scratch: Scratch,
    share_BC: Matrix,
) -> None:
    """Run `NaiveBayesLearner.step`."""
    for i in range(action_B.size):
        is_learned = action_B[i] == LEARN and not math.isnan(y_B[i])
        if action_B[i] != PREDICT and not is_learned:
            continue
        read_row(X_BF, i, plan, weights.table.shape[0], scratch)
        if is_learned:
            is_yes = y_B[i] > 0.5
            _count(int(y_B[i]) if weights.labels.size > 2 else (1 if is_yes else 0), weights, scratch)
        else:
            _say(smoothing, weights, scratch, share_BC, i)
