"""What P.features should hold for one source: vectors computed again, chunk by chunk, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
import numpy.typing as npt

from serving.feed import Feed
from serving.recomputation import Recomputation
from streams.records import Records
from streams.tables import Table

Int64s = npt.NDArray[np.int64]
Naming = Callable[[Table], Int64s]
"""Gives the number that each row has in P.features, -1 for a row that it does not have."""


class Replica:
    """The rows of one source at hand: `table`, numbered `number_B`, of which the first `passed` were dealt with.

    Args:
        recomputation: computes them.
        feed: the partition of the log, from its first record on.
        naming: the numbers of a log that was cut; without it rows count from 0, as the stream counts them.
    """

    def __init__(self, recomputation: Recomputation, feed: Feed, naming: Naming | None = None) -> None:
        self._recomputation, self._feed, self._naming = recomputation, feed, naming
        self._records: Generator[Records] | None = None
        self._tables: Iterator[Table] = iter(())
        self._next = 0
        self.table: Table | None = None
        self.number_B = np.zeros(0, np.int64)
        self.passed = 0
        self.unserved = 0  # rows that P.features does not have, of a log that was cut

    def open(self, end: int) -> None:
        """Be ready to go on up to `end` of the log."""
        self._records = self._feed.read(end)

    def close(self) -> None:
        """Let go of the log until the next `open`; what is at hand stays."""
        if self._records is not None:
            self._records.close()
            self._records = None

    def left(self) -> Int64s:
        """The numbers at hand that were not dealt with."""
        return self.number_B[self.passed :]

    def fetch(self) -> bool:
        """Replace the rows at hand by the next ones; False at the end of the log."""
        while (table := next(self._tables, None)) is None:
            records = next(self._records, None) if self._records is not None else None
            if records is None:
                return False
            self._tables = self._recomputation.vectors(records)
        self._number(table)
        return True

    def _number(self, table: Table) -> None:
        self.passed = 0
        if self._naming is None:
            self.table, self.number_B = table, np.arange(self._next, self._next + table.num_rows)
            self._next += table.num_rows
            return
        number_B = self._naming(table)
        highest_B = np.maximum.accumulate(np.append(self._next - 1, number_B))
        known = np.flatnonzero(number_B > highest_B[:-1])  # -1 is not, nor is an event named as one before it
        self._next = int(highest_B[-1]) + 1
        self.unserved += table.num_rows - known.size
        self.table, self.number_B = table.take(known), number_B[known]
