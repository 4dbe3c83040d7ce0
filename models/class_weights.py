"""Weights of classes that make each class count as much as any other, however rare it is."""

from __future__ import annotations

import numpy as np

from models.examples import Vector
from streams.pipeline import Task


def balanced_weights(task: Task, y_N: Vector) -> Vector:
    """Give the weight of each class, of yes-or-no labels [no, yes], from training labels alone.

    A class of n_c among n examples weighs n / (classes * n_c), where only classes that came count, so that an example
    weighs 1 on average. One that did not come weighs 1.

    >>> balanced_weights(Task(), np.array([0.0, 0.0, 0.0, 1.0])).round(3).tolist()
    [0.667, 2.0]
    """
    label_N = y_N[~np.isnan(y_N)]
    place_N = (label_N > 0.5).astype(np.int64) if task.is_yes_or_no else label_N.astype(np.int64)
    count_C = np.bincount(place_N, minlength=2 if task.is_yes_or_no else len(task.classes))
    has_come = count_C > 0
    weight_C = np.ones(count_C.size)
    weight_C[has_come] = label_N.size / (np.count_nonzero(has_come) * count_C[has_come])
    return weight_C
