"""The online multi-layer perceptron alone, in memory: examples that are each predicted and then learned, a second."""

from __future__ import annotations

import time

import numpy as np

from models.learner import LEARN, PREDICT, make_learner
from streams.frames import Column
from streams.pipeline import Model
from tests.bench.figure import Figure
from tests.bench.workplace import FULL, Workplace

NUMBERS = 20
BATCH = 4_096  # examples: as many rows to predict, and as many to learn
MODELS = {"mlp": Model("mlp", "mlp", {"hidden": (64, 32)}), "mlp_adam": Model("mlp", "mlp", {"optimizer": "adam"})}

FIGURES = (
    Figure("mlp", "examples/s", bound=300_000, scales=True),
    Figure("mlp_adam", "examples/s"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Give the speed of two hidden layers of 64 and 32 units over 20 numbers, by SGD and by Adam."""
    batches = 100 if workplace.size == FULL else 20
    return {name: _speed(model, batches) for name, model in MODELS.items()}


def _speed(model: Model, batches: int) -> float:
    """Give the examples a second behind a first batch, which compiles and warms."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(BATCH, NUMBERS)).repeat(2, axis=0)
    y = (X[:, 0] * X[:, 1] > 0.0).astype(np.float64)
    action = np.tile([PREDICT, LEARN], BATCH).astype(np.int8)
    learner = make_learner(model, tuple(Column(f"x{number}", False) for number in range(NUMBERS)))
    learner.step(X, y, action)
    began_s = time.perf_counter()
    for _ in range(batches):
        learner.step(X, y, action)
    return batches * BATCH / (time.perf_counter() - began_s)
