"""Compiled standard scaler + one-hot + logistic regression, learned one row at a time.

Equal to River's `(SelectType(Number) | StandardScaler()) + (SelectType(str) | OneHotEncoder()) |
LogisticRegression(SGD(lr))` (river 0.26, within 1e-9 on every prediction) when that is given each row without its
missing features and categories as text. What that pipeline does, and this keeps:

- predicting changes nothing; learning first updates the scaler with the row, then scales the row by it;
- the scaler keeps, per column, Welford's mean and population variance over the rows that had the column; a column
  without variance gives 0;
- the gradient is taken before the intercept moves; the intercept has its own rate and is never decayed;
- with l2, numbers decay when the row has them, and every category ever seen decays at every row (River's encoder
  gives a 0 for each of them). The decay of categories is one common factor here, so it costs nothing per category.

The difference to River: categories share a table of 2**bits weights, so memory is bounded and two categories may
collide. State can not become NaN: features are guarded (models/learner.py), a learned row lies within sqrt(n)
deviations of its own scaler, and the log loss has a gradient between -1 and 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import (
    LEARN,
    MAX_CODE,
    MAX_MAGNITUDE,
    PREDICT,
    Actions,
    Matrix,
    State,
    Vector,
    refuse_unknown,
)
from streams.compiled import bare, inlined
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model

DEFAULTS: dict[str, float] = {"lr": 0.01, "intercept_lr": 0.01, "l2": 0.0, "bits": 18.0}  # as River's; 2**18 = 2 MiB
LIMITS: dict[str, tuple[float, float]] = {"lr": (0, 1e3), "intercept_lr": (0, 1e3), "l2": (0, 1e3), "bits": (1, 28)}
SMALLEST_FACTOR = 1e-100  # the common decay is folded into the weights before it can underflow

Indexes = npt.NDArray[np.int64]


class Weights(NamedTuple):
    """The model's state; N number columns."""

    seen: Vector  # N, rows that had the column; mean, variance and weight are N too
    mean: Vector
    variance: Vector
    weight: Vector
    table: Vector  # 2**bits
    shared: Vector  # [intercept, common decay of the table]


class Plan(NamedTuple):
    """What does not change while learning: which columns are what, and the rates [lr, intercept_lr, l2]."""

    number_columns: Indexes
    category_columns: Indexes
    rates: Vector


class Scratch(NamedTuple):
    """Room for one row, and each number's deviation as it was learned last."""

    number: Vector  # N, as they came
    scaled: Vector  # N, NaN = missing
    term: Vector  # N, weight * scaled, 0 = missing
    slot: Indexes  # C, places in the table, -1 = missing
    deviation: Vector  # N


class LinearLearner:
    """Logistic regression on scaled numbers and hashed categories.

    Params (all optional):
        lr: step size of the weights, 0.01. Larger follows change faster and forgets faster.
        intercept_lr: step size of the intercept, 0.01.
        l2: decay of the weights, 0.
        bits: the category table has 2**bits weights, 18. More bits: fewer collisions, more memory.

    Example:
        >>> learner = LinearLearner(Model("m", "linear", {"lr": 0.1}), (Column("x", False),))
        >>> learner.learn(np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))
        >>> learner.predict(np.array([[3.0]])).round(4)
        array([0.5125])
    """

    def __init__(self, model: Model, columns: tuple[Column, ...]) -> None:
        settings = _settings(model)
        numbers = [i for i, column in enumerate(columns) if not column.is_category]
        categories = [i for i, column in enumerate(columns) if column.is_category]
        rates = np.array([settings["lr"], settings["intercept_lr"], settings["l2"]])
        self._plan = Plan(np.array(numbers, np.int64), np.array(categories, np.int64), rates)
        n = len(numbers)
        self._scratch = Scratch(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(len(categories), np.int64), np.zeros(n))
        table = np.zeros(2 ** int(settings["bits"]) if categories else 1)
        self._weights = Weights(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), table, np.array([0.0, 1.0]))

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's probability of class 1."""
        score_B = np.empty(len(X_BF))
        predict_kernel(X_BF, self._plan, self._weights, self._scratch, score_B)
        return score_B

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows one after the other."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one; one kernel call."""
        score_B = np.empty(len(y_B))
        step_kernel(X_BF, y_B, action_B, self._plan, self._weights, self._scratch, score_B)
        return score_B

    def state(self) -> State:
        """Copy the weights."""
        return {name: array.copy() for name, array in self._weights._asdict().items()}

    def restore(self, state: State) -> None:
        """Take weights of the same shape."""
        for name, ours in self._weights._asdict().items():
            found = state.get(name)
            if found is None or found.shape != ours.shape or found.dtype != ours.dtype:
                shape = None if found is None else found.shape
                message = f"a linear model's {name} is not whole: shape {shape} found, {ours.shape} needed"
                raise ModelError(message + "; run `millrace rebuild`")
        self._weights = Weights(**{name: np.array(state[name], np.float64) for name in Weights._fields})

    def is_finite(self) -> bool:
        """Check every weight and statistic."""
        return all(bool(np.isfinite(array).all()) for array in self._weights)

    def size_bytes(self) -> int:
        """Give the memory of weights and statistics."""
        return sum(array.nbytes for array in self._weights)


def _settings(model: Model) -> dict[str, float]:
    refuse_unknown(model, tuple(DEFAULTS))
    settings, mistakes = dict(DEFAULTS), []
    for name, value in model.params.items():
        low, high = LIMITS[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= float(value) <= high or (name == "bits" and not isinstance(value, int)):
            kind = "an integer" if name == "bits" else "a number"
            mistakes.append(f"[models.{model.name}] {name}: {value!r} found; allowed: {kind} from {low} to {high}")
        else:
            settings[name] = float(value)
    if not mistakes and settings["lr"] * settings["l2"] >= 1.0:
        product = settings["lr"] * settings["l2"]
        mistakes.append(f"[models.{model.name}] l2: lr * l2 = {product} found; allowed: below 1")
    if mistakes:
        raise PipelineError(mistakes)
    return settings


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
def _read_row(X_BF: Matrix, i: int, plan: Plan, size: int, scratch: Scratch) -> None:
    for j in range(scratch.number.size):
        scratch.number[j] = X_BF[i, plan.number_columns[j]]
    for c in range(scratch.slot.size):
        code = X_BF[i, plan.category_columns[c]]
        scratch.slot[c] = -1
        if code >= 0.0 and code < MAX_CODE and code == math.floor(code):
            scratch.slot[c] = category_slot(plan.category_columns[c], code, size)


@inlined
def _deviate(weights: Weights, scratch: Scratch) -> None:
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
def _learn_scale(weights: Weights, scratch: Scratch) -> None:
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
    _deviate(weights, scratch)
    for i in range(score_B.size):
        _read_row(X_BF, i, plan, weights.table.size, scratch)
        _scale(weights, scratch)
        score_B[i] = probability(_logit(weights, scratch))


@bare
def step_kernel(
    X_BF: Matrix, y_B: Vector, action_B: Actions, plan: Plan, weights: Weights, scratch: Scratch, score_B: Vector
) -> None:
    """Run `LinearLearner.step`; about 0.1 us for learning a row of 16 numbers."""
    _deviate(weights, scratch)
    for i in range(action_B.size):
        score_B[i] = np.nan
        is_learned = action_B[i] == LEARN and not math.isnan(y_B[i])
        if action_B[i] != PREDICT and not is_learned:
            continue
        _read_row(X_BF, i, plan, weights.table.size, scratch)
        if is_learned:
            _learn_scale(weights, scratch)
            _deviate(weights, scratch)
        _scale(weights, scratch)
        logit = _logit(weights, scratch)
        if is_learned:
            _update(log_loss_gradient(logit, y_B[i] > 0.5), plan, weights, scratch)
        else:
            score_B[i] = probability(logit)
