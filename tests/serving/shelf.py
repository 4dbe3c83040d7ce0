"""A loader of versions that is driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from models.learner import Learner


class Shelf:
    """Loads when the test says so, as a thread does that reads from an object store."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Learner], Future[Learner]]] = []

    def __call__(self, load: Callable[[], Learner]) -> Future[Learner]:
        done: Future[Learner] = Future()
        self.waiting.append((load, done))
        return done

    def load(self, error: Exception | None = None) -> None:
        """Load what has waited longest, or fail to."""
        load, done = self.waiting.pop(0)
        if error is None:
            done.set_result(load())
        else:
            done.set_exception(error)
