"""The task's figures of predictions whose labels are all there, as a version's record has them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.examples import Vector
from models.scoring import judged
from models.training_job import Figures
from streams.pipeline import Task

_DIGITS = 9  # behind the point, as in other figures of a version


def figures_of(task: Task, y_B: Vector, score_B: npt.ArrayLike) -> Figures:
    """Judge predictions exactly, the order of scores included; costs a sort of them.

    Args:
        task: whose labels they are.
        y_B: labels; predictions without one (NaN) are passed over, unless the task judges every event.
        score_B: what a learner answered, [B] or [B, S]; anomaly scores without a threshold get the task's.

    >>> found = figures_of(Task("regression"), np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    >>> found["labels"], found["mae"], found["rmse"], found["r2"]
    (2.0, 0.5, 0.707106781, 0.5)
    """
    said_BS = np.asarray(score_B, np.float64)
    said_BS = said_BS[:, None] if said_BS.ndim == 1 else said_BS
    if not task.is_unsupervised:
        has_label = ~np.isnan(y_B)
        said_BS, y_B = said_BS[has_label], y_B[has_label]
    if task.kind == "anomaly" and said_BS.shape[1] == 1:
        said_BS = np.column_stack([said_BS, np.full(len(said_BS), task.threshold)])
    quality = judged(task, said_BS, np.asarray(y_B, np.float64))
    return {name: _known(value) for name, value in quality._asdict().items()}


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), _DIGITS) if math.isfinite(value) else None
