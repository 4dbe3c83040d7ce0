"""Made-up streams that learners are checked with (contract.py): events, and their labels a while later."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from models.learner import LEARN, PREDICT, SKIP, Actions, Learner, Matrix, Vector
from streams.frames import Column
from streams.pipeline import Task, TaskKind

COLUMNS = (Column("a", False), Column("b", False), Column("c", True), Column("d", True))
CLASSES = ("one", "two", "three")
DELAY = 25  # rows from an event to its label
KINDS_WITHOUT_CLASSES: tuple[TaskKind, ...] = ("regression", "anomaly", "clustering")


class Stream(NamedTuple):
    """Rows with their labels and what is done with them."""

    X_BF: Matrix
    y_B: Vector
    action_B: Actions

    def cut(self, start: int, stop: int) -> Stream:
        """Give some of the rows."""
        return Stream(self.X_BF[start:stop], self.y_B[start:stop], self.action_B[start:stop])


class Bench(NamedTuple):
    """What checks work with: fresh learners, the columns they read, what they answer, and how many rows to give."""

    make: Callable[[], Learner]
    columns: tuple[Column, ...]
    task: Task
    rows: int
    growth: float

    def stream(self, seed: int = 0) -> Stream:
        """Give events and their labels 25 rows later; one feature in twenty is missing."""
        rng, rows = np.random.default_rng(seed), self.rows // 2
        X_BF = rng.normal(size=(rows, len(self.columns)))
        for place, column in enumerate(self.columns):
            if column.is_category:
                X_BF[:, place] = rng.integers(0, 6, rows)
        score_B = X_BF.sum(axis=1) + rng.normal(scale=0.3, size=rows)
        X_BF[rng.random(X_BF.shape) < 0.05] = np.nan
        order = np.argsort(np.concatenate([np.arange(rows), np.arange(rows) + DELAY + 0.5]), kind="stable")
        event = order % rows
        action_B = np.where(order < rows, PREDICT, LEARN).astype(np.int8)
        action_B[::17] = SKIP
        return Stream(X_BF[event], self._labels(score_B)[event], action_B)

    def _labels(self, score_B: Vector) -> Vector:
        if self.task.kind == "regression":
            return score_B
        classes = max(2, len(self.task.classes))
        edges = np.quantile(score_B, np.arange(1, classes) / classes)
        return np.searchsorted(edges, score_B).astype(np.float64)


def task_of(kind: TaskKind) -> Task:
    """Give the task that checks of this kind are made for."""
    if kind in KINDS_WITHOUT_CLASSES:
        return Task(kind)
    return Task("multiclass", CLASSES) if kind == "multiclass" else Task()
