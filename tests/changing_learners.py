"""A user's own learner whose answers are good for a time: what a year of promotions is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, PREDICT, make_learner
from streams.frames import Column
from streams.pipeline import Model, Task

Array = npt.NDArray[Any]
HANDICAP = 0.3  # of the distance to a half that is left of an answer


class Changing:
    """A logistic regression that is half-hearted until it is repaired, and the wrong way round once it is poisoned.

    What it learns is never touched, so it is as good as any other one from the moment of its repair. Time is the number
    of labels it has learned, so that a replay changes at the same row.

    Args:
        columns: of every matrix.
        task: yes or no.
        lr: learning rate.
        bits: of its table of categories.
        sound_from: labels before which an answer is drawn to a half.
        sound_to: labels from which on an answer is turned round.
    """

    def __init__(
        self,
        columns: tuple[Column, ...],
        task: Task,
        lr: float = 0.005,
        bits: int = 12,
        sound_from: int = 0,
        sound_to: int = 10**9,
    ) -> None:
        self._inner = make_learner(Model("inner", "linear", {"lr": lr, "bits": bits}), columns, task=task)
        self._sound_from, self._sound_to = sound_from, sound_to
        self._learned = 0

    def predict(self, X: Array) -> Array:
        return self._said(self._inner.predict(X), np.full(len(X), self._learned))

    def learn(self, X: Array, y: Array) -> None:
        self.step(X, y, np.full(len(y), LEARN, np.int8))

    def step(self, X: Array, y: Array, action: Array) -> Array:
        learned = self._learned + np.cumsum(action == LEARN)
        said = self._inner.step(X, y, action)
        self._learned += int(np.count_nonzero(action == LEARN))
        return np.where(action == PREDICT, self._said(said, learned), np.nan)

    def state(self) -> dict[str, Any]:
        return {**self._inner.state(), "learned_labels": self._learned}

    def restore(self, state: dict[str, Array]) -> None:
        self._learned = int(state["learned_labels"])
        self._inner.restore({name: value for name, value in state.items() if name != "learned_labels"})

    def _said(self, probability: Array, learned: Array) -> Array:
        drawn = np.where(learned < self._sound_from, 0.5 + HANDICAP * (probability - 0.5), probability)
        return np.where(learned >= self._sound_to, 1.0 - drawn, drawn)
