"""What a learner says of rows right before it learns them, and learners that stand around another because of it.

A model may be asked without being changed. So a threshold or a measure that goes with a model, and with its versions,
can only move where the model learns. It moves by what the model would have said of the row at that moment.
"""

from __future__ import annotations

import numpy as np

from models.learner import LEARN, PREDICT, SKIP, Actions, Learner, Matrix, State, Vector, replaced_of
from streams.errors import ModelError

_INNER = "inner."


def said_before(inner: Learner, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
    """Take the rows in order, and give of each to predict or to learn what was said just before; NaN for the others.

    Of a learner that says several numbers it is the first. A row to learn costs a prediction more.
    """
    row = np.repeat(np.arange(action_B.size), np.where(action_B == SKIP, 0, np.where(action_B == LEARN, 2, 1)))
    action = np.full(row.size, PREDICT, np.int8)
    action[1:][row[1:] == row[:-1]] = LEARN
    rows = X_BF[row]
    rows.flags.writeable = False  # as the rows of a batch are: another type of array compiles another kernel
    found = inner.step(rows, y_B[row], action)
    found = found if found.ndim == 1 else found[:, 0]
    said = np.full(action_B.size, np.nan)
    said[row[action == PREDICT]] = found[action == PREDICT]
    return said


class SurroundingLearner:
    """A learner around another, with arrays of its own in the state. Kinds add `step`, `_own` and `_take_own`."""

    def __init__(self, inner: Learner) -> None:
        self.inner = inner

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows one after the other."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one."""
        raise NotImplementedError

    def state(self) -> State:
        """Copy what is known here, and give the inner learner's state beside it."""
        inner = {_INNER + name: array for name, array in self.inner.state().items()}
        return inner | {name: array.copy() for name, array in self._own().items()}

    def restore(self, state: State) -> None:
        """Take both back.

        Raises:
            ModelError: when arrays are absent or of another shape, or the inner learner's state does not fit.
        """
        for name, ours in self._own().items():
            found = state.get(name)
            if found is None or not self._fits(name, found, ours):
                shape = None if found is None else found.shape
                raise ModelError(f"a model's {name} is not whole: shape {shape} found")
        self.inner.restore({name.removeprefix(_INNER): array for name, array in state.items() if _INNER in name})
        self._take_own({name: np.array(state[name], np.float64) for name in self._own()})

    def is_finite(self) -> bool:
        """Check what is known here and the inner learner."""
        return self.inner.is_finite() and all(bool(np.isfinite(array).all()) for array in self._own().values())

    def size_bytes(self) -> int:
        """Give the memory of both."""
        return self.inner.size_bytes() + sum(array.nbytes for array in self._own().values())

    @property
    def replaced_predictions(self) -> int:
        """Give how many answers of the inner learner were replaced."""
        return replaced_of(self.inner)

    def _own(self) -> dict[str, Vector]:
        raise NotImplementedError

    def _take_own(self, arrays: dict[str, Vector]) -> None:
        raise NotImplementedError

    def _fits(self, _name: str, found: np.ndarray[tuple[int, ...], np.dtype[np.generic]], ours: Vector) -> bool:
        return found.shape == ours.shape
