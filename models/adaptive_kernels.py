"""The kernels of linear models with an optimiser other than plain SGD, or with an L1 penalty (adaptive_linear.py).

One loop for all tasks, with as many outputs as the task has, compiled once for each optimiser. Letters of shapes:
B rows, N numbers, S slots of categories, O outputs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.learner import LEARN, MAX_MAGNITUDE, PREDICT, Actions, Matrix, Vector
from models.linear_kernels import Plan, Scratch, deviate, learn_scale, loss_gradient, read_row, score, share
from models.optimizers import Rates, Step, adagrad, adam, ftrl, pace, penalized, sgd
from streams.compiled import bare, inlined

SMALLEST, LARGEST = 1e-15, 1.0 - 1e-15  # River keeps probabilities of classes between them where they make a gradient


class Weights(NamedTuple):
    """The model's state. Moments that the optimiser has not, and penalties where there is no L1, have no elements."""

    seen: Vector  # N, rows that had the column; mean and variance are N too
    mean: Vector
    variance: Vector
    weight: Matrix  # [O, N], moments and penalties too
    first: Matrix
    second: Matrix
    paid: Matrix
    table: Matrix  # [S, O], moments and penalties too
    table_first: Matrix
    table_second: Matrix
    table_paid: Matrix
    intercept: Vector  # O
    shared: Vector  # [rows learned, L1 penalty that every weight should have paid by now]


@inlined
def _scale(weights: Weights, scratch: Scratch) -> None:
    for j in range(scratch.number.size):
        x, deviation = scratch.number[j], scratch.deviation[j]
        scaled = (x - weights.mean[j]) / deviation if deviation > 0.0 else 0.0
        scratch.scaled[j] = scaled if abs(x) <= MAX_MAGNITUDE else np.nan


@inlined
def _say(weights: Weights, scratch: Scratch, logit_O: Vector) -> None:
    for o in range(logit_O.size):
        for j in range(scratch.scaled.size):
            z = scratch.scaled[j]
            scratch.term[j] = 0.0 if math.isnan(z) else weights.weight[o, j] * z
        total = 0.0
        for j in range(scratch.term.size):
            total += scratch.term[j]
        categories = 0.0
        for k in range(scratch.slot.size):
            if scratch.slot[k] >= 0:
                categories += weights.table[scratch.slot[k], o]
        logit_O[o] = total + categories + weights.intercept[o]


@inlined
def _slope(plan: Plan, label: float, logit_O: Vector) -> None:
    """Turn logits into the gradients of the loss by them."""
    if logit_O.size == 1:
        logit_O[0] = loss_gradient(plan, logit_O[0], label)
        return
    share(logit_O, logit_O)
    for o in range(logit_O.size):
        logit_O[o] = min(max(logit_O[o], SMALLEST), LARGEST) - (1.0 if o == int(label) else 0.0)


@inlined
def _move_numbers(step: Step, rates: Rates, lr: float, gradient_O: Vector, weights: Weights, scratch: Scratch) -> None:
    has_first, has_second = weights.first.size > 0, weights.second.size > 0
    for o in range(gradient_O.size):
        for j in range(scratch.scaled.size):
            z, weight = scratch.scaled[j], weights.weight[o, j]
            if math.isnan(z):
                continue
            first = weights.first[o, j] if has_first else 0.0
            second = weights.second[o, j] if has_second else 0.0
            weight, first, second = step(rates, lr, weight, first, second, gradient_O[o] * z + rates.l2 * weight)
            weights.weight[o, j] = weight
            if has_first:
                weights.first[o, j] = first
            if has_second:
                weights.second[o, j] = second


@inlined
def _move_categories(
    step: Step, rates: Rates, lr: float, gradient_O: Vector, weights: Weights, scratch: Scratch
) -> None:
    has_first, has_second = weights.table_first.size > 0, weights.table_second.size > 0
    for k in range(scratch.slot.size):
        slot = scratch.slot[k]
        if slot < 0:
            continue
        for o in range(gradient_O.size):
            weight = weights.table[slot, o]
            first = weights.table_first[slot, o] if has_first else 0.0
            second = weights.table_second[slot, o] if has_second else 0.0
            weight, first, second = step(rates, lr, weight, first, second, gradient_O[o] + rates.l2 * weight)
            weights.table[slot, o] = weight
            if has_first:
                weights.table_first[slot, o] = first
            if has_second:
                weights.table_second[slot, o] = second


@inlined
def _penalize(rates: Rates, weights: Weights, scratch: Scratch) -> None:
    """Let the weights of what the row has pay what they owe."""
    weights.shared[1] += rates.l1 * rates.lr
    due = weights.shared[1]
    for o in range(weights.intercept.size):
        for j in range(scratch.scaled.size):
            if not math.isnan(scratch.scaled[j]):
                weight = weights.weight[o, j]
                weights.weight[o, j] = penalized(weight, weights.paid[o, j], due)
                weights.paid[o, j] += weights.weight[o, j] - weight
        for k in range(scratch.slot.size):
            slot = scratch.slot[k]
            if slot >= 0:
                weight = weights.table[slot, o]
                weights.table[slot, o] = penalized(weight, weights.table_paid[slot, o], due)
                weights.table_paid[slot, o] += weights.table[slot, o] - weight


@inlined
def _update(step: Step, rates: Rates, plan: Plan, gradient_O: Vector, weights: Weights, scratch: Scratch) -> None:
    for o in range(gradient_O.size):
        weights.intercept[o] -= plan.rates[1] * gradient_O[o]
    lr = pace(rates, weights.shared[0])
    _move_numbers(step, rates, lr, gradient_O, weights, scratch)
    _move_categories(step, rates, lr, gradient_O, weights, scratch)
    weights.shared[0] += 1.0
    if rates.l1 > 0.0:
        _penalize(rates, weights, scratch)


@inlined
def _run(
    step: Step,
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    rates: Rates,
    weights: Weights,
    scratch: Scratch,
    logit_O: Vector,
    score_BO: Matrix,
) -> None:
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
        _say(weights, scratch, logit_O)
        if is_learned:
            _slope(plan, y_B[i], logit_O)
            _update(step, rates, plan, logit_O, weights, scratch)
        elif logit_O.size == 1:
            score_BO[i, 0] = score(plan, logit_O[0])
        else:
            share(logit_O, score_BO[i])


@bare
def sgd_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    rates: Rates,
    weights: Weights,
    scratch: Scratch,
    logit_O: Vector,
    score_BO: Matrix,
) -> None:
    """Run `AdaptiveLinearLearner.step` with SGD."""
    _run(sgd, X_BF, y_B, action_B, plan, rates, weights, scratch, logit_O, score_BO)


@bare
def adagrad_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    rates: Rates,
    weights: Weights,
    scratch: Scratch,
    logit_O: Vector,
    score_BO: Matrix,
) -> None:
    """Run `AdaptiveLinearLearner.step` with AdaGrad."""
    _run(adagrad, X_BF, y_B, action_B, plan, rates, weights, scratch, logit_O, score_BO)


@bare
def adam_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    rates: Rates,
    weights: Weights,
    scratch: Scratch,
    logit_O: Vector,
    score_BO: Matrix,
) -> None:
    """Run `AdaptiveLinearLearner.step` with Adam."""
    _run(adam, X_BF, y_B, action_B, plan, rates, weights, scratch, logit_O, score_BO)


@bare
def ftrl_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    plan: Plan,
    rates: Rates,
    weights: Weights,
    scratch: Scratch,
    logit_O: Vector,
    score_BO: Matrix,
) -> None:
    """Run `AdaptiveLinearLearner.step` with FTRL-Proximal."""
    _run(ftrl, X_BF, y_B, action_B, plan, rates, weights, scratch, logit_O, score_BO)


KERNELS = {"sgd": sgd_kernel, "adagrad": adagrad_kernel, "adam": adam_kernel, "ftrl": ftrl_kernel}
