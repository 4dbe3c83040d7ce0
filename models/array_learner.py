"""What learners have in common whose whole state is one named tuple of float64 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.learner import LEARN, Actions, Matrix, State, Vector
from streams.errors import ModelError


class ArrayLearner:
    """A learner whose state is `_weights`; `_what` names it in messages. Kinds add `predict` and `step`."""

    _what: str
    _weights: Any  # a named tuple of arrays, of each kind its own

    @property
    def weights(self) -> Any:
        """The state itself, to look at."""
        return self._weights

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one; one kernel call."""
        raise NotImplementedError

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows one after the other."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def state(self) -> State:
        """Copy the weights."""
        return {name: array.copy() for name, array in self._weights._asdict().items()}

    def restore(self, state: State) -> None:
        """Take weights of the same shape."""
        for name, ours in self._weights._asdict().items():
            found = state.get(name)
            if found is None or found.shape != ours.shape or found.dtype != ours.dtype:
                shape = None if found is None else found.shape
                message = f"a {self._what} model's {name} is not whole: shape {shape} found, {ours.shape} needed"
                raise ModelError(message)
        self._weights = type(self._weights)(*(np.array(state[name], np.float64) for name in self._weights._fields))

    def is_finite(self) -> bool:
        """Check every weight and statistic."""
        return all(bool(np.isfinite(array).all()) for array in self._weights)

    def size_bytes(self) -> int:
        """Give the memory of weights and statistics."""
        return sum(array.nbytes for array in self._weights)
