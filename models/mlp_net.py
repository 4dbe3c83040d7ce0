"""What the kernels of the online multi-layer perceptron (mlp.py) work on: its state, its layout, room for a row.

All layers lie in one vector, one after the other, each a matrix and its biases. The matrix of a hidden layer has a row
for each unit below, so that a unit that is 0 (half of them behind a relu) costs nothing on the way up, down or in the
step; that of the last layer, which has few units, has a row for each of its own.

Letters of shapes: B rows, N number columns, C category columns, H units of the first layer, O outputs.
"""

from __future__ import annotations

from typing import NamedTuple

from models.learner import Matrix, Vector
from models.linear_kernels import Indexes
from streams.compiled import inlined


class Weights(NamedTuple):
    """The model's state. Adam's moments are empty under SGD; `label` is [seen, mean, variance] of a regression's."""

    seen: Vector  # N, rows that had the column; mean and variance are N too
    mean: Vector
    variance: Vector
    label: Vector
    weight: Vector  # all layers
    first: Vector  # Adam's moments of `weight`
    second: Vector
    table: Matrix  # [2**bits, H], what each category adds to the first layer
    table_first: Matrix
    table_second: Matrix
    steps: Vector  # [1], rows learned


class Net(NamedTuple):
    """What does not change while learning."""

    starts: Indexes  # of each layer in `weight`
    places: Indexes  # of each layer's inputs in `Room.value`, then of the outputs, then the end: one more than layers
    rates: Vector  # [lr, clip, beta_1, beta_2, eps]
    is_tanh: bool
    is_adam: bool
    is_number: bool  # a regression


class Room(NamedTuple):
    """Room for one row: what each unit gives, the loss's gradient by what it was given, and the outputs' scores."""

    value: Vector
    delta: Vector
    score: Vector  # O
    active: Indexes  # which units of each layer are not 0
    actives: Indexes  # how many


@inlined
def add_to(factor: float, row: Vector, to: Vector) -> None:
    """Add a row, `factor` times."""
    for k in range(to.size):
        to[k] += factor * row[k]
