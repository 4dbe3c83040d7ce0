"""How fast a compiled learner is alone in memory: rows a second, each predicted, then learned, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, PREDICT
from tests.bench.figure import middle

BATCH_ROWS = 500
REPEATS = 3  # a run takes a fraction of a second; the median counts

Floats = npt.NDArray[np.float64]


def compiled_speed(make: Callable[[], Any], X: Floats, y: Floats) -> tuple[float, Floats]:
    """Give rows a second of a learner, and what it said of each row, [B, S]."""
    event = np.repeat(np.arange(len(X)), 2)
    X_BF, y_B, action = X[event], y[event], np.tile(np.array([PREDICT, LEARN], np.int8), len(X))
    make().step(X_BF[:10], y_B[:10], action[:10])  # compiles
    speeds, said = [], np.empty(0)
    for _ in range(REPEATS):
        learner, found, began_s = make(), [], time.perf_counter()
        for start in range(0, len(event), 2 * BATCH_ROWS):
            part = slice(start, start + 2 * BATCH_ROWS)
            found.append(learner.step(X_BF[part], y_B[part], action[part]))
        speeds.append(len(X) / (time.perf_counter() - began_s))
        said = np.concatenate(found)[::2]
    return middle(speeds), said.reshape(len(X), -1)
