"""Key rows that wait to be written: bounded, and a row of a key takes the place of an older one.

Giving rows never waits for whoever writes them. Rows stay in the batches they came in. Only when there are many are
they gone through: those that a newer row of their key has made useless go first, and what is still too much goes from
the oldest on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from serving.key_rows import KeyRows, newest

MOST_ROWS = 32_768  # kept when there are many: a third of a second of what Redis takes
MOST_BYTES = 32 << 20
MOST_BATCHES = 256  # an object each costs more than its row; so many are joined in 2 ms
MOST_PARTS = 1_024  # joined ones

SUPERSEDED, DROPPED = "superseded", "dropped"


class PendingKeys:
    """A queue between the thread that answers and the one that writes.

    Args:
        count: told how many rows were superseded or dropped.
        most_rows: how many keys are kept at least before any is dropped; twice as many rows may wait.
        most_bytes: the same in bytes.
    """

    def __init__(
        self, count: Callable[[str, int], None], most_rows: int = MOST_ROWS, most_bytes: int = MOST_BYTES
    ) -> None:
        self._count = count
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._changed = threading.Condition()
        self._parts: list[KeyRows] = []
        self._rows = self._bytes = 0
        self._batches = 0  # that came since the last were joined: the last parts
        self._is_closed = False

    @property
    def rows(self) -> int:
        """How many wait; some may be of one key."""
        return self._rows

    def put(self, rows: KeyRows) -> None:
        """Add rows that are newer than all before; about 2 us, and 0.3 us a row if there are many."""
        with self._changed:
            self._parts.append(rows)
            self._batches += 1
            self._grow(rows)
            self._changed.notify()

    def give_back(self, rows: KeyRows) -> None:
        """Add rows that were taken and could not be written; they are older than all that wait."""
        with self._changed:
            self._parts.insert(0, rows)
            self._grow(rows)

    def take(self, wait_s: float) -> KeyRows | None:
        """Take all rows, the newest of each key; None if there are none within `wait_s`, or none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._parts or self._is_closed, wait_s)
            parts = self._parts
            self._hold([])
        if not parts:
            return None
        found = self._newest(parts)
        return found if found.size else None

    def tidy(self) -> None:
        """Join what waits, if it is half of what may: then `put` need not. Called while nothing may be written."""
        with self._changed:
            if self._rows <= self._most_rows and self._bytes <= self._most_bytes:
                return
            parts = self._parts
            self._hold([])
        self.give_back(self._fitted(parts))

    def close(self) -> None:
        """Let nobody wait for rows any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _grow(self, rows: KeyRows) -> None:
        self._rows += rows.size
        self._bytes += rows.size_bytes
        is_much = self._rows > 2 * self._most_rows or self._bytes > 2 * self._most_bytes
        if is_much or len(self._parts) > MOST_PARTS + MOST_BATCHES:
            self._hold([self._fitted(self._parts)])
        elif self._batches > MOST_BATCHES:
            self._hold([*self._parts[: -self._batches], self._newest(self._parts[-self._batches :])])

    def _fitted(self, parts: list[KeyRows]) -> KeyRows:
        """Join parts, and drop from the oldest on what is too much."""
        kept = self._newest(parts)
        dropped = max(0, kept.size - self._most_rows)
        if kept.size_bytes > self._most_bytes:
            dropped = max(dropped, int(kept.size * (1 - self._most_bytes / kept.size_bytes)))
        if dropped == 0:
            return kept
        self._count(DROPPED, dropped)
        return newest([kept.part(dropped, kept.size)])  # a copy, so that what is dropped is given back

    def _hold(self, parts: list[KeyRows]) -> None:
        self._parts, self._batches = parts, 0
        self._rows, self._bytes = sum(part.size for part in parts), sum(part.size_bytes for part in parts)

    def _newest(self, parts: list[KeyRows]) -> KeyRows:
        found = newest(parts)
        superseded = sum(part.size for part in parts) - found.size
        if superseded:
            self._count(SUPERSEDED, superseded)
        return found
