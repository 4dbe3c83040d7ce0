"""Learners as users might write them: sound ones, one that raises, and one for each rule that can be broken."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.frames import Column
from streams.pipeline import Task

Array = npt.NDArray[Any]
_CALLS = itertools.count()


class Running:
    """The running mean of labels, moved by the first column's sign; what a user would begin with."""

    def __init__(self, columns: tuple[Column, ...], task: Task, rate: float = 0.1) -> None:
        self.columns, self.task, self.rate = columns, task, rate
        self.mean, self.rows = np.full(2, 0.5 if task.kind == "binary" else 0.0), 0

    def _side(self, X: Array) -> Array:
        return (np.nan_to_num(X[:, 0]) > 0).astype(int) if X.shape[1] else np.zeros(len(X), int)

    def predict(self, X: Array) -> Array:
        return self.mean[self._side(X)]

    def learn(self, X: Array, y: Array) -> None:
        for side, label in zip(self._side(X).tolist(), y.tolist(), strict=True):
            self.mean[side] += self.rate * (label - self.mean[side])
            self.rows += 1

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "rows": self.rows}

    def restore(self, state: dict[str, Array]) -> None:
        self.mean, self.rows = state["mean"], int(state["rows"])


class Stepping(Running):
    """The same with a call of its own for mixed rows, and its own answers to the other questions."""

    def step(self, X: Array, y: Array, action: Array) -> Array:
        said = np.full(len(y), np.nan)
        for i, what in enumerate(action.tolist()):
            if what == 1:
                said[i] = self.predict(X[i : i + 1])[0]
            elif what == 2:
                self.learn(X[i : i + 1], y[i : i + 1])
        return said

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.mean).all())

    def size_bytes(self) -> int:
        return self.mean.nbytes


class Shares(Running):
    """The share of each class."""

    def __init__(self, columns: tuple[Column, ...], task: Task) -> None:
        super().__init__(columns, task)
        self.mean = np.ones(len(task.classes))

    def predict(self, X: Array) -> Array:
        return np.tile(self.mean / self.mean.sum(), (len(X), 1))

    def learn(self, X: Array, y: Array) -> None:
        np.add.at(self.mean, y.astype(int), 1.0)


class Fragile(Running):
    """Raises at a row whose first column is beyond a limit, after half of its work is done."""

    def __init__(self, columns: tuple[Column, ...], task: Task, limit: float = 3.0, verb: str = "learn") -> None:
        super().__init__(columns, task)
        self.limit, self.verb = limit, verb

    def predict(self, X: Array) -> Array:
        if self.verb == "predict" and (X[:, 0] > self.limit).any():
            raise ValueError("it is\nbeyond what I know")
        return super().predict(X)

    def learn(self, X: Array, y: Array) -> None:
        for i in range(len(y)):
            if self.verb == "learn" and X[i, 0] > self.limit:
                self.mean[:] = 0.99
                raise ValueError("it is\nbeyond what I know")
            super().learn(X[i : i + 1], y[i : i + 1])


class Forgetful(Running):
    """Leaves the mean out of its state."""

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def restore(self, state: dict[str, Array]) -> None:
        self.rows = int(state["rows"])


class Averaging(Running):
    """Learns a batch as one step on its mean, so that cutting rows otherwise changes it."""

    def learn(self, X: Array, y: Array) -> None:
        self.mean += self.rate * (y.mean() - self.mean)
        self.rows += len(y)


class Peeking(Running):
    """Learns from the rows that it predicts."""

    def predict(self, X: Array) -> Array:
        self.mean += 0.01 * np.nan_to_num(X[:, 0]).mean()
        return super().predict(X).clip(0.0, 1.0)


class Moody(Running):
    """Depends on how often the class was made in this process."""

    def __init__(self, columns: tuple[Column, ...], task: Task) -> None:
        super().__init__(columns, task)
        self.mean += 0.001 * (next(_CALLS) % 97)


class Hoarding(Running):
    """Keeps every row."""

    def __init__(self, columns: tuple[Column, ...], task: Task) -> None:
        super().__init__(columns, task)
        self.kept: list[float] = []

    def learn(self, X: Array, y: Array) -> None:
        super().learn(X, y)
        self.kept.extend(X[:, :3].ravel().tolist())

    def state(self) -> dict[str, Any]:
        return {**super().state(), "kept": np.array(self.kept)}

    def restore(self, state: dict[str, Array]) -> None:
        super().restore(state)
        self.kept = state["kept"].tolist()


class Pickled(Running):
    """Wants its state pickled."""

    def state(self) -> dict[str, Any]:
        return {"mean": np.array([self], object)}


class Endless(Running):
    """Answers what is no probability."""

    def predict(self, X: Array) -> Array:
        return np.where(np.isnan(X[:, 0]), np.inf, 1.5)


class Misshapen(Running):
    """Answers one number for all rows."""

    def predict(self, X: Array) -> Array:
        return np.zeros(1)


class Outside(Running):
    """Would follow an absurd number wherever it leads."""

    def learn(self, X: Array, y: Array) -> None:
        if np.isinf(X).any() or (np.abs(np.nan_to_num(X)) > 1e30).any() or np.isnan(y).any():
            raise AssertionError("what should not come has come")
        super().learn(X, y)


class Lacking:
    """Has not all that a learner needs."""

    def __init__(self, columns: tuple[Column, ...], task: Task) -> None: ...

    def predict(self, X: Array) -> Array:
        return X


class Picky(Running):
    """Raises at its 51st row where the first column is above 50, as none does that a stream gives it in order."""

    def learn(self, X: Array, y: Array) -> None:
        for i in range(len(y)):
            if self.rows == 50 and X[i, 0] > 50.0:
                raise ValueError("no more of these")
            super().learn(X[i : i + 1], y[i : i + 1])


class Unwritable(Running):
    """Cannot say what it knows once it has learned."""

    def state(self) -> dict[str, Any]:
        if self.rows:
            raise ValueError("nothing to write with")
        return super().state()


class Grouping(Running):
    """Puts every row into a cluster that there cannot be."""

    def __init__(self, columns: tuple[Column, ...], task: Task, number: float = -150.0) -> None:
        super().__init__(columns, task)
        self.number = number

    def predict(self, X: Array) -> Array:
        return np.full(len(X), self.number)
