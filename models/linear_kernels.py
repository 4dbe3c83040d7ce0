"""The kernels of the linear learner (linear.py): reading a row, scaling it, its logit, and one step of SGD.

Letters of shapes: B rows, N number columns, C category columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, MAX_CODE, MAX_MAGNITUDE, PREDICT, Actions, Matrix, Vector
from streams.compiled import bare, inlined

MOST_GRADIENT = 1e12  # as River clips it
SMALLEST_FACTOR = 1e-100  # the common decay is folded into the weights before it can underflow

LOSSES = ("squared", "huber", "quantile")
SQUARED, HUBER, QUANTILE = 0, 1, 2  # their places

Indexes = npt.NDArray[np.int64]


class Weights(NamedTuple):
    """The model's state; N number columns."""

    seen: Vector  # N, rows that had the column; mean, variance and weight are N too
    mean: Vector
    variance: Vector
    weight: Vector
    table: Vector  # 2**bits
    shared: Vector  # [intercept, common decay of the table]


class Scaler(Protocol):
    """The part of a model's state that scales its numbers, as named in `Weights`."""

    @property
    def seen(self) -> Vector:
        """Rows that had each number."""
        ...

    @property
    def mean(self) -> Vector:
        """Of each number."""
        ...

    @property
    def variance(self) -> Vector:
        """Of each number."""
        ...


class Plan(NamedTuple):
    """What does not change while learning: which columns are what, the rates [lr, intercept_lr, l2], task and loss."""

    number_columns: Indexes
    category_columns: Indexes
    rates: Vector
    is_number: bool  # of a regression: the score is the logit itself, and the loss one of its error
    loss: int = SQUARED  # of a regression
    bend: float = 0.0  # Huber's epsilon, or the quantile
    weight_pos: float = 1.0  # of the log loss where the label is yes
    weight_neg: float = 1.0


class Scratch(NamedTuple):
    """Room for one row, and each number's deviation as it was learned last."""

    number: Vector  # N, as they came
    scaled: Vector  # N, NaN = missing
    term: Vector  # N, weight * scaled, 0 = missing
    slot: Indexes  # C, places in the table, -1 = missing
    deviation: Vector  # N


@bare
def category_slot(column: int, code: float, size: int) -> int:
    """Give a category's place in a table of `size` (a power of two) weights: splitmix64 of its column and code."""
    h = np.uint64(code) + np.uint64(column + 1) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int((h ^ (h >> np.uint64(31))) & np.uint64(size - 1))


# Loops over numbers have no branches, so that they run on several columns at once; each column's arithmetic, and the
# order in which terms are added up, is that of one column after the other.


@inlined
def read_row(X_BF: Matrix, i: int, plan: Plan, size: int, scratch: Scratch) -> None:
    """Read a row's numbers, and where its categories lie in a table of `size` weights."""
    for j in range(scratch.number.size):
        scratch.number[j] = X_BF[i, plan.number_columns[j]]
    for c in range(scratch.slot.size):
        code = X_BF[i, plan.category_columns[c]]
        scratch.slot[c] = -1
        if code >= 0.0 and code < MAX_CODE and code == math.floor(code):
            scratch.slot[c] = category_slot(plan.category_columns[c], code, size)


@inlined
def share(logit_C: Vector, share_C: Vector) -> None:
    """Write the probabilities of C classes; logits are shifted by the largest, so that nothing overflows.

    Both may be the same array.
    """
    largest, total = -np.inf, 0.0
    for c in range(share_C.size):
        largest = max(largest, logit_C[c])
    for c in range(share_C.size):
        share_C[c] = math.exp(logit_C[c] - largest)
        total += share_C[c]
    for c in range(share_C.size):
        share_C[c] /= total


@inlined
def deviate(weights: Scaler, scratch: Scratch) -> None:
    """Take the standard deviations as they are now."""
    for j in range(scratch.number.size):
        scratch.deviation[j] = math.sqrt(weights.variance[j])


@inlined
def _scale(weights: Weights, scratch: Scratch) -> None:
    for j in range(scratch.number.size):
        x, deviation = scratch.number[j], scratch.deviation[j]
        scaled = (x - weights.mean[j]) / deviation if deviation > 0.0 else 0.0
        is_there = abs(x) <= MAX_MAGNITUDE
        scratch.scaled[j] = scaled if is_there else np.nan
        scratch.term[j] = weights.weight[j] * scaled if is_there else 0.0


@inlined
def learn_scale(weights: Scaler, scratch: Scratch) -> None:
    """Learn the row's numbers into means and variances."""
    for j in range(scratch.number.size):
        x, before, variance = scratch.number[j], weights.mean[j], weights.variance[j]
        is_there = abs(x) <= MAX_MAGNITUDE
        count = weights.seen[j] + 1.0
        mean = before + (x - before) / count
        changed = variance + ((x - before) * (x - mean) - variance) / count
        weights.seen[j] = count if is_there else weights.seen[j]
        weights.mean[j] = mean if is_there else before
        weights.variance[j] = changed if is_there else variance


@inlined
def _logit(weights: Weights, scratch: Scratch) -> float:
    total = 0.0
    for j in range(scratch.term.size):
        total += scratch.term[j]
    categories = 0.0
    for c in range(scratch.slot.size):
        if scratch.slot[c] >= 0:
            categories += weights.table[scratch.slot[c]]
    logit: float = total + categories * weights.shared[1] + weights.shared[0]
    return logit


@inlined
def probability(logit: float) -> float:
    """River's sigmoid: exactly 0 and 1 beyond 30."""
    if logit < -30.0:
        return 0.0
    if logit > 30.0:
        return 1.0
    return 1.0 / (1.0 + math.exp(-logit))


@inlined
def log_loss_gradient(logit: float, is_positive: bool) -> float:
    """River's gradient of the log loss by the logit, with its shortcuts beyond 18."""
    sign = 1.0 if is_positive else -1.0
    margin = logit * sign
    if margin > 18.0:
        return math.exp(-margin) * -sign
    if margin < -18.0:
        return -sign
    return -sign / (math.exp(margin) + 1.0)


@inlined
def error_gradient(plan: Plan, prediction: float, label: float) -> float:
    """River's gradient of a regression's loss by the prediction, kept within its bounds."""
    error = prediction - label
    if plan.loss == SQUARED:
        return min(max(2.0 * error, -MOST_GRADIENT), MOST_GRADIENT)
    if plan.loss == HUBER:
        return min(max(error, -plan.bend), plan.bend)
    return (1.0 if error > 0.0 else 0.0) - plan.bend


@inlined
def loss_gradient(plan: Plan, logit: float, label: float) -> float:
    """Give the gradient of the task's loss by the logit."""
    if plan.is_number:
        return error_gradient(plan, logit, label)
    is_positive = label > 0.5
    return log_loss_gradient(logit, is_positive) * (plan.weight_pos if is_positive else plan.weight_neg)


@inlined
def score(plan: Plan, logit: float) -> float:
    """Give the probability of yes; or the number, within the bounds that labels have."""
    if plan.is_number:
        return min(max(logit, -MAX_MAGNITUDE), MAX_MAGNITUDE)
    return probability(logit)


@inlined
def _update(gradient: float, plan: Plan, weights: Weights, scratch: Scratch) -> None:
    lr, intercept_lr, l2 = plan.rates[0], plan.rates[1], plan.rates[2]
    weights.shared[0] -= intercept_lr * gradient
    for j in range(scratch.scaled.size):
        z, weight = scratch.scaled[j], weights.weight[j]
        moved = weight - lr * (gradient * z + l2 * weight)
        weights.weight[j] = weight if math.isnan(z) else moved
    if l2 > 0.0:
        weights.shared[1] *= 1.0 - lr * l2
        if weights.shared[1] < SMALLEST_FACTOR:
            for place in range(weights.table.size):
                weights.table[place] *= weights.shared[1]
            weights.shared[1] = 1.0
    for c in range(scratch.slot.size):
        if scratch.slot[c] >= 0:
            weights.table[scratch.slot[c]] -= lr * gradient / weights.shared[1]


@bare
def predict_kernel(X_BF: Matrix, plan: Plan, weights: Weights, scratch: Scratch, score_B: Vector) -> None:
    """Run `LinearLearner.predict`; about 0.04 us a row of 16 numbers."""
    deviate(weights, scratch)
    for i in range(score_B.size):
        read_row(X_BF, i, plan, weights.table.size, scratch)
        _scale(weights, scratch)
        score_B[i] = score(plan, _logit(weights, scratch))


@bare
def step_kernel(
    X_BF: Matrix, y_B: Vector, action_B: Actions, plan: Plan, weights: Weights, scratch: Scratch, score_B: Vector
) -> None:
    """Run `LinearLearner.step`; about 0.1 us for learning a row of 16 numbers."""
    deviate(weights, scratch)
    for i in range(action_B.size):
        score_B[i] = np.nan
        is_learned = action_B[i] == LEARN and not math.isnan(y_B[i])
        if action_B[i] != PREDICT and not is_learned:
            continue
        read_row(X_BF, i, plan, weights.table.size, scratch)
        if is_learned:
            learn_scale(weights, scratch)
            deviate(weights, scratch)
        _scale(weights, scratch)
        logit = _logit(weights, scratch)
        if is_learned:
            _update(loss_gradient(plan, logit, y_B[i]), plan, weights, scratch)
        else:
            score_B[i] = score(plan, logit)
