"""What a partition should hold of one source: rows computed again, chunk by chunk, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from serving.course import Course
from streams.frames import EVENT
from streams.tables import Table

Int64s = npt.NDArray[np.int64]
Naming = Callable[[Table], Int64s]
"""Gives the number that each event has in the partition, -1 for one that it does not have."""


class Replica:
    """The rows of one source at hand: `table`, numbered `number_B`, of which the first `passed` were dealt with.

    Args:
        course: computes them.
        partition: for which they are.
        counted_by: the column that numbers them.
        naming: the numbers of events where the input was cut, so that they cannot be counted; other rows are left out.
    """

    def __init__(self, course: Course, partition: int, counted_by: str, naming: Naming | None = None) -> None:
        self._course, self._partition, self._counted_by, self._naming = course, partition, counted_by, naming
        self._next = 0
        self.table: Table | None = None
        self.number_B = np.zeros(0, np.int64)
        self.passed = 0
        self.unserved = 0  # events that the partition does not have, where the input was cut

    def left(self) -> Int64s:
        """The numbers at hand that were not dealt with."""
        return self.number_B[self.passed :]

    def fetch(self) -> bool:
        """Replace the rows at hand by the next ones; False at the end of the input."""
        table = self._course.next(self._partition)
        if table is None:
            return False
        self._number(table)
        return True

    def _number(self, table: Table) -> None:
        self.passed = 0
        if self._naming is None:
            self.table, self.number_B = table, table.numbers(self._counted_by)
            return
        table = table.take(np.flatnonzero(table.numbers("kind") == EVENT))
        number_B = self._naming(table)
        highest_B = np.maximum.accumulate(np.append(self._next - 1, number_B))
        known = np.flatnonzero(number_B > highest_B[:-1])  # -1 is not, nor is an event named as one before it
        self._next = int(highest_B[-1]) + 1
        self.unserved += table.num_rows - known.size
        self.table, self.number_B = table.take(known), number_B[known]
