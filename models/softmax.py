"""Compiled standard scaler + one-hot + softmax regression, learned one row at a time.

Equal to River's `(SelectType(Number) | StandardScaler()) + (SelectType(str) | OneHotEncoder()) |
SoftmaxRegression(SGD(lr))` (river 0.26, within 1e-9 on every probability) with `intercept_lr = 0` and every class known
to it beforehand, as they are here from the file. River's has no intercept; this one learns one for each class, which is
what tells rare classes from common ones. Rows, scaling, missing values and hashed categories are as in linear.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.array_learner import ArrayLearner
from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Matrix, Vector, numbers_of
from models.linear import plan_of, scratch_of
from models.linear_kernels import Plan, Scratch, deviate, learn_scale, read_row, share
from streams.compiled import bare, inlined
from streams.frames import Column
from streams.pipeline import Model, Task


class Weights(NamedTuple):
    """The model's state; N number columns, C classes."""

    seen: Vector  # N, rows that had the column; mean and variance are N too
    mean: Vector
    variance: Vector
    weight: npt.NDArray[np.float64]  # [N, C]
    table: npt.NDArray[np.float64]  # [2**bits, C]
    intercept: Vector  # C


class SoftmaxLearner(ArrayLearner):
    """Multinomial logistic regression on scaled numbers and hashed categories.

    Params (all optional):
        lr: step size of the weights, 0.005. Larger follows change faster and forgets faster.
        intercept_lr: step size of the intercepts, 0.01.
        bits: the category table has 2**bits weights for each class, 18.

    Example:
        >>> task = Task("multiclass", ("a", "b", "c"))
        >>> learner = SoftmaxLearner(Model("m", "linear", {"lr": 0.1}), (Column("x", False),), task)
        >>> learner.learn(np.array([[1.0], [3.0]]), np.array([0.0, 2.0]))
        >>> learner.predict(np.array([[3.0]])).round(3)
        array([[0.318, 0.304, 0.378]])
    """

    _what = "softmax"

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task) -> None:
        self._plan = plan_of(model, columns, task)
        self._scratch = scratch_of(self._plan)
        n, categories, classes = self._plan.number_columns.size, self._plan.category_columns.size, len(task.classes)
        table = np.zeros((2 ** int(numbers_of(model, task)["bits"]) if categories else 1, classes))
        self._weights = Weights(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, classes)), table, np.zeros(classes))

    def predict(self, X_BF: Matrix) -> npt.NDArray[np.float64]:
        """Give each row's probability of each class, [B, C]."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> npt.NDArray[np.float64]:
        """Take the rows in order and predict, learn or skip each one; one kernel call."""
        score_BC = np.full((len(y_B), self._weights.intercept.size), np.nan)
        said = np.empty_like(self._weights.intercept)
        step_kernel(X_BF, y_B, action_B, self._plan, self._weights, self._scratch, said, score_BC)
        return score_BC


@inlined
def _scale(weights: Weights, scratch: Scratch) -> None:
    for j in range(scratch.number.size):
        x, deviation = scratch.number[j], scratch.deviation[j]
        scaled = (x - weights.mean[j]) / deviation if deviation > 0.0 else 0.0
        scratch.scaled[j] = scaled if abs(x) <= MAX_MAGNITUDE else 0.0  # a 0 moves nothing, as a missing number


@inlined
def _say(weights: Weights, scratch: Scratch, said: Vector) -> None:
    """Write the probability of each class; shifted by the largest logit, so that nothing overflows."""
    for c in range(said.size):
        said[c] = weights.intercept[c]
    for j in range(scratch.scaled.size):
        for c in range(said.size):
            said[c] += weights.weight[j, c] * scratch.scaled[j]
    for k in range(scratch.slot.size):
        if scratch.slot[k] >= 0:
            for c in range(said.size):
                said[c] += weights.table[scratch.slot[k], c]
    share(said, said)


@inlined
def _update(label: int, plan: Plan, weights: Weights, scratch: Scratch, said: Vector) -> None:
    lr, intercept_lr = plan.rates[0], plan.rates[1]
    for c in range(said.size):
        gradient = said[c] - (1.0 if c == label else 0.0)
        weights.intercept[c] -= intercept_lr * gradient
        said[c] = lr * gradient
    for j in range(scratch.scaled.size):
        for c in range(said.size):
            weights.weight[j, c] -= said[c] * scratch.scaled[j]
    for k in range(scratch.slot.size):
        if scratch.slot[k] >= 0:
            for c in range(said.size):
                weights.table[scratch.slot[k], c] -= said[c]


@bare
def step_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    weights: Weights,
    scratch: Scratch,
    said: Vector,
    score_BC: npt.NDArray[np.float64],
) -> None:
    """Run `SoftmaxLearner.step`."""
    deviate(weights, scratch)
    for i in range(action_B.size):
        is_learned = action_B[i] == LEARN and not math.isnan(y_B[i])
        if action_B[i] != PREDICT and not is_learned:
            continue
        read_row(X_BF, i, plan, weights.table.shape[0], scratch)
        if is_learned:
            learn_scale(weights, scratch)
            deviate(weights, scratch)
        _scale(weights, scratch)
        _say(weights, scratch, said)
        if is_learned:
            _update(int(y_B[i]), plan, weights, scratch, said)
        else:
            for c in range(said.size):
                score_BC[i, c] = said[c]
