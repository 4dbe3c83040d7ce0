"""Snapshots that are written later than they were begun, as the seed says."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future


class DeferredWriter:
    """Writes snapshots some time after they were begun, or when somebody waits for them; a crash may come before."""

    def __init__(self) -> None:
        self._begun: list[_Deferred] = []

    def __call__(self, write: Callable[[], tuple[int, str]]) -> Future[tuple[int, str]]:
        self._begun.append(_Deferred(write))
        return self._begun[-1]

    def write_some(self, rng: random.Random) -> None:
        """Write what was begun, or do not yet."""
        if self._begun and rng.random() < 0.4:
            self._begun.pop(0).result()


class _Deferred(Future[tuple[int, str]]):
    def __init__(self, write: Callable[[], tuple[int, str]]) -> None:
        super().__init__()
        self._write = write

    def result(self, timeout: float | None = None) -> tuple[int, str]:
        if not self.done():
            self.set_result(self._write())
        return super().result(timeout)
