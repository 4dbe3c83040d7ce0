"""Rows of P.examples that wait for answers: their columns, in order, without an object per row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.pending import Rows

Int64s = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[np.generic]]

_TYPES = (np.int8, np.int32, np.int64, np.int64, np.float64, np.int8, np.int64, np.int32, np.int64)


class Held(NamedTuple):
    """Some rows, 46 bytes each.

    Attributes:
        rows: what the scoreboard looks at.
        clock: how the clock stands after each row.
        partition: of events, where they are answered.
        name: of events, what their answer is known by (event_numbers.py).
    """

    rows: Rows
    clock: Int64s
    partition: npt.NDArray[np.int32]
    name: Int64s

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.name.size)

    def span(self, start: int, stop: int) -> Held:
        """Give the rows from `start` to `stop`, not copied."""
        return _held([column[start:stop] for column in _columns(self)])


class HeldRows:
    """A queue of rows.

    Example:
        >>> queue = HeldRows()
        >>> queue.size
        0
    """

    def __init__(self) -> None:
        self._parts = [_held([np.empty(0, kind) for kind in _TYPES])]

    @property
    def size(self) -> int:
        """How many wait."""
        return sum(part.size for part in self._parts)

    def add(self, more: Held) -> None:
        """Append rows."""
        self._parts.append(more)

    def head(self, most: int) -> Held:
        """Give the first rows, at most so many."""
        if len(self._parts) > 1:
            joined = zip(*(_columns(part) for part in self._parts), strict=True)
            self._parts = [_held([np.concatenate(columns) for columns in joined])]
        return self._parts[0].span(0, most)

    def take(self, count: int) -> Held:
        """Take the first rows away."""
        taken = self.head(count)
        self._parts[0] = self._parts[0].span(count, self._parts[0].size)
        return taken

    def state(self) -> State:
        """Give all that waits."""
        columns = _columns(self.head(self.size))
        return {name: column.copy() for name, column in zip(_NAMES, columns, strict=True)}

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            KeyError: an array is absent.
        """
        self._parts = [_held([state[name].astype(kind) for name, kind in zip(_NAMES, _TYPES, strict=True)])]


_NAMES = (*Rows._fields, *Held._fields[1:])


def _columns(held: Held) -> list[npt.NDArray[Any]]:
    return [*held.rows, held.clock, held.partition, held.name]


def _held(columns: list[npt.NDArray[Any]]) -> Held:
    size = len(Rows._fields)
    return Held(Rows(*columns[:size]), *columns[size:])
