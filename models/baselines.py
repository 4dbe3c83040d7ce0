"""Baselines, whatever the features say: what labels were so far (`prior`), and what the last one was (`last`).

The prior of classes is Laplace's rule of succession, (labels of the class + 1) / (labels + classes): never 0 or 1, and
1 / classes before the first label. That of numbers is their mean, and 0 before the first. The last label is what River
calls no change. A candidate that does not beat both has learned nothing.

Of anomalies labels are numbers, so that the prior is the share of anomalies and nothing is one before the first label.
A clustering has no labels, and its prior puts every row into cluster 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, PREDICT, Actions, Matrix, State, Vector, settings_of
from streams.compiled import bare, inlined
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task

PRIOR, LAST = 0, 1  # what is answered
LEARNED = 0  # place in `seen` of the number of labels; sums follow: labels of each class, or [mean, last]


class BaselineLearner:
    """Predicts from earlier labels alone. Cost: a few nanoseconds a row.

    Example:
        >>> learner = BaselineLearner(Model("base", "prior", {}), ())
        >>> learner.step(np.empty((3, 0)), np.array([np.nan, 1.0, np.nan]), np.array([1, 2, 1], np.int8))
        array([0.5       ,        nan, 0.66666667])
    """

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        task = task or Task()
        settings_of(model, task)
        self._outputs = max(1, len(task.classes))
        self._how = LAST if model.kind == "last" else PRIOR
        self._is_number = task.kind == "regression" or task.is_unsupervised
        self._seen = np.zeros(3 if task.kind != "multiclass" else 2 + len(task.classes))

    def predict(self, X_BF: Matrix) -> Vector:
        """Give the same score to every row."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Count the labels."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, count or skip each one."""
        score_BS = np.full((len(y_B), self._outputs), np.nan)
        step_kernel(self._how, y_B, action_B, self._seen, score_BS, self._is_number)
        return score_BS if self._outputs > 1 else score_BS[:, 0]

    def state(self) -> State:
        """Copy what was seen."""
        return {"seen": self._seen.copy()}

    def restore(self, state: State) -> None:
        """Take what was seen."""
        seen: npt.NDArray[Any] = np.array(state.get("seen", ()), np.float64)
        if seen.shape != self._seen.shape or not np.isfinite(seen).all() or seen[LEARNED] < 0:
            message = f"the baseline's state is not whole: {seen.tolist()} found"
            raise ModelError(message)
        self._seen = seen

    def is_finite(self) -> bool:
        """Say whether the mean is finite; counts always are."""
        return bool(np.isfinite(self._seen).all())

    def size_bytes(self) -> int:
        """Give the memory of the counts."""
        return self._seen.nbytes


@inlined
def _answer(how: int, seen: Vector, score_BS: npt.NDArray[np.float64], row: int, is_number: bool) -> None:
    labels, last, outputs = seen[LEARNED], seen[seen.size - 1], score_BS.shape[1]
    if is_number:
        score_BS[row, 0] = seen[1] if how == PRIOR else last
    elif outputs == 1 and how == PRIOR:
        score_BS[row, 0] = (seen[1] + 1.0) / (labels + 2.0)
    elif how == PRIOR:
        for place in range(outputs):
            score_BS[row, place] = (seen[1 + place] + 1.0) / (labels + outputs)
    elif labels == 0.0:
        for place in range(outputs):
            score_BS[row, place] = 1.0 / max(outputs, 2)
    elif outputs == 1:
        score_BS[row, 0] = last
    else:
        for place in range(outputs):
            score_BS[row, place] = 1.0 if place == last else 0.0


@inlined
def _note(seen: Vector, label: float, is_number: bool, outputs: int) -> None:
    seen[LEARNED] += 1.0
    if is_number:
        seen[1] += (label - seen[1]) / seen[LEARNED]
    elif outputs > 1:
        seen[1 + int(label)] += 1.0
    else:
        label = 1.0 if label > 0.5 else 0.0
        seen[1] += label
    seen[seen.size - 1] = label


@bare
def step_kernel(
    how: int, y_B: Vector, action_B: Actions, seen: Vector, score_BS: npt.NDArray[np.float64], is_number: bool
) -> None:
    """Run `BaselineLearner.step`."""
    for i in range(action_B.size):
        if action_B[i] == PREDICT:
            _answer(how, seen, score_BS, i, is_number)
        elif action_B[i] == LEARN and not np.isnan(y_B[i]):
            _note(seen, y_B[i], is_number, score_BS.shape[1])
