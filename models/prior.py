"""The baseline: the share of positives among the labels learned so far, whatever the features say.

Laplace's rule of succession, (positives + 1) / (labels + 2): 0.5 before the first label, never 0 or 1. A candidate
that does not beat it has learned nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, PREDICT, Actions, Matrix, State, Vector, refuse_unknown
from streams.compiled import njit
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model

Counts = npt.NDArray[np.int64]  # [positives, labels]


class PriorLearner:
    """Predicts the rate of positives so far. Cost: a few nanoseconds a row.

    Example:
        >>> learner = PriorLearner(Model("base", "prior", {}), ())
        >>> learner.step(np.empty((3, 0)), np.array([np.nan, 1.0, np.nan]), np.array([1, 2, 1], np.int8))
        array([0.5       ,        nan, 0.66666667])
    """

    def __init__(self, model: Model, columns: tuple[Column, ...]) -> None:
        refuse_unknown(model, ())
        self._counts: Counts = np.zeros(2, np.int64)

    def predict(self, X_BF: Matrix) -> Vector:
        """Give the same probability to every row."""
        return np.full(len(X_BF), (self._counts[0] + 1.0) / (self._counts[1] + 2.0))

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Count the labels."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, count or skip each one."""
        score_B = np.empty(len(y_B))
        step_kernel(y_B, action_B, self._counts, score_B)
        return score_B

    def state(self) -> State:
        """Copy the two counts."""
        return {"counts": self._counts.copy()}

    def restore(self, state: State) -> None:
        """Take the two counts."""
        counts = np.array(state.get("counts", ()), np.int64)
        if counts.shape != (2,) or not 0 <= counts[0] <= counts[1]:
            message = f"the baseline's state is not whole: counts {counts.tolist()} found; run `millrace rebuild`"
            raise ModelError(message)
        self._counts = counts

    def is_finite(self) -> bool:
        """Counts always are."""
        return True

    def size_bytes(self) -> int:
        """Give the memory of the two counts."""
        return self._counts.nbytes


@njit
def step_kernel(y_B: Vector, action_B: Actions, counts: Counts, score_B: Vector) -> None:
    """Run `PriorLearner.step`."""
    for i in range(action_B.size):
        score_B[i] = np.nan
        if action_B[i] == PREDICT:
            score_B[i] = (counts[0] + 1.0) / (counts[1] + 2.0)
        elif action_B[i] == LEARN and not np.isnan(y_B[i]):
            counts[1] += 1
            if y_B[i] > 0.5:
                counts[0] += 1
