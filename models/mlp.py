"""Compiled online multi-layer perceptron, learned one row at a time; its weights exchange with torch.

Equal to a `torch.nn.Sequential` of Linear layers with ReLU or Tanh between them in float64 (torch 2.13, within 1e-9 on
every prediction over thousands of rows), given the same inputs and first weights, one row a step: log loss, or the
squared error of a regression, `clip_grad_norm_(clip)`, and `SGD(lr)` or `Adam(lr, (beta_1, beta_2), eps)`. Only float64
can be that equal, and it is fast enough, for the weights of 20-64-32 lie in a processor's nearest cache. What it does,
and this keeps:

- predicting changes nothing; learning first updates the scaler with the row, then scales the row by it (as linear.py),
  cuts it at 10 deviations, and takes a missing number as an average one;
- a category adds its row of a hashed table to the first layer, as a one-hot column would; rows begin at 0;
- a regression's labels are scaled by their own mean and deviation so far, its answers are scaled back;
- the first weights are as torch's, uniform within 1 / sqrt(inputs), drawn in the order of the layers from `seed`.

Nothing that comes can make it NaN: inputs are cut, the gradient's length is at most `clip`, and no answer divides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from models.array_learner import ArrayLearner
from models.learner import PREDICT, Actions, Matrix, Vector, numbers_of, settings_of
from models.linear_kernels import Indexes, Plan, Scratch
from models.mlp_kernels import inputs_kernel, step_kernel
from models.mlp_net import Net, Room, Weights
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task

MOST_WEIGHT = 1e9  # of what is taken from elsewhere: products over all layers still fit a float64
TABLE = "categories.weight"
_UNUSED = {"beta_1": 0.0, "beta_2": 0.0, "eps": 1.0}  # what only Adam has


class MlpLearner(ArrayLearner):
    """A multi-layer perceptron on scaled numbers and hashed categories.

    Params (all optional):
        hidden: units of each hidden layer, [64, 32]. More fit more, and cost time in proportion to the weights.
        activation: "relu", or "tanh", which costs three times as much.
        optimizer: "sgd", or "adam", which gets further with few rows and costs four times as much.
        lr: step size, 0.05 (adam: 0.003). Larger follows change faster and forgets faster.
        clip: the longest gradient that is taken as it is, 5. Smaller: one odd row moves less.
        beta_1, beta_2, eps: Adam's, 0.9, 0.999, 1e-8.
        bits: the category table has 2**bits rows of the first layer's width, 12. More bits: fewer collisions.
        seed: of the first weights, 0.

    Example:
        >>> learner = MlpLearner(Model("m", "mlp", {"hidden": (8,)}), (Column("x", False),))
        >>> learner.learn(np.array([[1.0], [3.0]] * 200), np.array([0.0, 1.0] * 200))
        >>> learner.predict(np.array([[1.0], [3.0]])).round(2)
        array([0.02, 0.99])
    """

    _what = "mlp"

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        task = task or Task()
        settings, numbers = settings_of(model, task), _UNUSED | numbers_of(model, task)
        hidden, is_adam = settings["hidden"], settings["optimizer"] == "adam"
        number = [i for i, column in enumerate(columns) if not column.is_category]
        category = [i for i, column in enumerate(columns) if column.is_category]
        n = len(number)
        self._widths = (n, *(hidden if isinstance(hidden, tuple) else ()), task.outputs)
        self._net = _net(self._widths, numbers, settings["activation"] == "tanh", is_adam, task.kind == "regression")
        self._plan = Plan(np.array(number, np.int64), np.array(category, np.int64), np.empty(0), False)
        self._scratch = Scratch(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(len(category), np.int64), np.zeros(n))
        units = sum(self._widths)
        active = np.zeros(units, np.int64)
        self._room = Room(np.zeros(units), np.zeros(units), np.zeros(task.outputs), active, np.zeros(units, np.int64))
        self._rates = np.zeros(len(self._net.rates))
        weight = _first_weights(self._widths, int(numbers["seed"]))
        table = np.zeros((2 ** int(numbers["bits"]) if category else 1, self._widths[1]))
        moment, of_table = (weight, table) if is_adam else (weight[:0], table[:0])
        moments = np.zeros_like(moment), np.zeros_like(moment)
        of_tables = np.zeros_like(of_table), np.zeros_like(of_table)
        scaler = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(3)
        self._weights = Weights(*scaler, weight, *moments, table, *of_tables, np.zeros(1))

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's probability of yes, of each class ([B, C]), or the number."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one; one kernel call."""
        score_BO = np.full((len(y_B), self._room.score.size), np.nan)
        state = self._net, self._weights, self._scratch, self._room, self._rates
        step_kernel(X_BF, y_B, action_B, self._plan, *state, score_BO)
        return score_BO if score_BO.shape[1] > 1 else score_BO[:, 0]

    def inputs(self, X_BF: Matrix) -> tuple[Matrix, Indexes]:
        """Give what the net gets of each row, for torch: scaled numbers [B, N]; rows of the table [B, C], -1: none."""
        z_BN = np.empty((len(X_BF), self._widths[0]))
        slot_BC = np.empty((len(X_BF), self._scratch.slot.size), np.int64)
        inputs_kernel(X_BF, self._plan, self._weights, self._scratch, self._room, z_BN, slot_BC)
        return z_BN, slot_BC

    def torch_weights(self) -> dict[str, npt.NDArray[np.float64]]:
        """Give the weights by the names and shapes that torch's `Sequential(Linear, ReLU, Linear, …)` has them.

        With categories there is `categories.weight` too, of an `EmbeddingBag(mode="sum")` whose output is added to what
        the first layer gives. Activations have the odd places: "0.weight", "0.bias", "2.weight", ….

        Example:
            >>> learner = MlpLearner(Model("m", "mlp", {"hidden": (4, 2)}), (Column("x", False),))
            >>> {name: array.shape for name, array in learner.torch_weights().items()}
            {'0.weight': (4, 1), '0.bias': (4,), '2.weight': (2, 4), '2.bias': (2,), '4.weight': (1, 2), '4.bias': (1,)}
        """
        found: dict[str, npt.NDArray[np.float64]] = {}
        for layer, (matrix, bias) in enumerate(self._layers(self._weights.weight)):
            found |= {f"{2 * layer}.weight": matrix.copy(), f"{2 * layer}.bias": bias.copy()}
        return found | ({TABLE: self._weights.table.copy()} if self._scratch.slot.size else {})

    def take_torch_weights(self, weights: Mapping[str, Any]) -> None:
        """Take weights as `torch_weights` gives them, and learn on from there; Adam begins anew, the scaler stays.

        Raises:
            ModelError: an array is missing, has another shape, or a weight that is not finite or beyond 1e9; then
                nothing has changed.
        """
        needed = {name: array.shape for name, array in self.torch_weights().items()}
        taken = {name: _checked(name, weights.get(name), shape) for name, shape in needed.items()}
        if unknown := sorted(weights.keys() - needed.keys()):
            raise ModelError(f"weights of another net: {unknown[0]} found; needed are {', '.join(needed)}")
        weight = self._weights.weight.copy()
        for layer, (matrix, bias) in enumerate(self._layers(weight)):
            matrix[:], bias[:] = taken[f"{2 * layer}.weight"], taken[f"{2 * layer}.bias"]
        moments = ("first", "second", "table_first", "table_second", "steps")
        fresh = {name: np.zeros_like(getattr(self._weights, name)) for name in moments}
        table = taken.get(TABLE, self._weights.table)
        self._weights = self._weights._replace(weight=weight, table=np.array(table, np.float64), **fresh)

    def _layers(self, weight: Vector) -> list[tuple[Matrix, Vector]]:
        """Give views of each layer's matrix as torch has it, [units, inputs], and of its biases."""
        found = []
        for layer, start in enumerate(self._net.starts.tolist()):
            inputs, units = self._widths[layer : layer + 2]
            values, bias = np.split(weight[start : start + (inputs + 1) * units], [inputs * units])
            is_last = layer == len(self._widths) - 2
            found.append((values.reshape(units, inputs) if is_last else values.reshape(inputs, units).T, bias))
        return found


def _net(widths: tuple[int, ...], numbers: dict[str, float], is_tanh: bool, is_adam: bool, is_number: bool) -> Net:
    sizes = np.array(widths, np.int64)
    starts = np.concatenate([[0], np.cumsum((sizes[:-1] + 1) * sizes[1:])])[:-1].astype(np.int64)
    places = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rates = np.array([numbers[name] for name in ("lr", "clip", "beta_1", "beta_2", "eps")])
    return Net(starts, places, rates, is_tanh, is_adam, is_number)


def _first_weights(widths: tuple[int, ...], seed: int) -> Vector:
    """Draw the weights of all layers; Python promises the same draws in every release."""
    draw = random.Random(seed)  # noqa: S311  # weights, not secrets
    drawn: list[float] = []
    for inputs, units in pairwise(widths):
        most = 1.0 / math.sqrt(max(inputs, 1))
        drawn.extend(most * (2.0 * draw.random() - 1.0) for _ in range((inputs + 1) * units))
    return np.array(drawn)


def _checked(name: str, found: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    if found is None:
        raise ModelError(f"weights of another net: {name} is missing, shape {shape} needed")
    array = np.asarray(found, np.float64)
    if array.shape != shape:
        raise ModelError(f"weights of another net: {name} has shape {array.shape}, {shape} needed")
    if not bool((np.abs(array) <= MOST_WEIGHT).all()):
        raise ModelError(
            f"weights that nobody can go on from: {name} has one that is not finite or beyond {MOST_WEIGHT:g}"
        )
    return array
