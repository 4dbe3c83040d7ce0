"""The audit of one partition: every row written there beside the one that the stage's input gives for its number.

Rows as written are the driver: they come in the order of their numbers, each source's for itself, and beside each
source goes a recomputation of its own (a zombie of an earlier generation may write between the rows of a newer one). So
memory holds the state of the features role and one chunk of rows a side, whatever the topics hold, and an audit goes on
later where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import numpy.typing as npt

from consumers.inlet import FrameInlet
from serving.comparison import compare
from serving.course import Course, Courses
from serving.feed import Feed
from serving.hop import Hop
from serving.replica import Naming, Replica
from serving.tally import Tally
from streams.control import Control
from streams.frames import EVENT, LABEL
from streams.records import Records
from streams.sources import SourceMemory
from streams.tables import Table

WHOLE = 1.0
NEVER = 1 << 62  # above every number
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_WRITERS_OWN = frozenset(
    {"source", "sequence"}
)  # a recomputation writes as nobody; sequences are what rows are found by

Int64s = npt.NDArray[np.int64]


class Audit:
    """Compares the rows of one partition that a stage writes with what its input gives.

    Args:
        hop: the stage.
        partition: of the topic that it writes.
        control: resolves sources.
        served: that partition, from its first record on.
        courses: what each source should have written; shared by all partitions of the stage.
        sample: the share of rows that are compared, chosen by their numbers.
        naming: gives the numbers of a source's events where its input was cut (see names.py), None where it was not.
    """

    def __init__(
        self,
        hop: Hop,
        partition: int,
        control: Control,
        served: Feed,
        courses: Courses,
        *,
        sample: float = WHOLE,
        naming: Callable[[int], Naming | None] = lambda _: None,
    ) -> None:
        self.tally = Tally(partition, hop.spec.number)
        self._hop, self._served, self._courses, self._sample, self._naming = hop, served, courses, sample, naming
        memory = SourceMemory(control)
        memory.is_from_start = False  # a row that is missing is to be counted, not to stop the audit
        self._inlet = FrameInlet(hop.output, control, memory)
        self._replicas: dict[Course, Replica] = {}
        self._begins: dict[int, int] = {}  # of each source, the first number that can be compared
        self._last: dict[int, int] = {}  # and the largest one met

    def read(self, end: int) -> Generator[Records]:
        """Give what was written up to `end` and not given yet, for `take`."""
        return self._served.read(end)

    def take(self, records: Records) -> None:
        """Compare the next rows as written."""
        rows = self._inlet.admit(self._inlet.decode(records).rows)[0].rows
        is_row, source = rows.numbers("kind") <= LABEL, rows.numbers("source")
        for one in np.unique(source[is_row]).tolist():
            self._take_source(one, rows.take(np.flatnonzero(is_row & (source == one))))

    def count_unserved(self, course: Course) -> None:
        """Count the rows at hand that come after the last one written; nothing can be compared with them then."""
        replica = self._replica(course, None)
        self.tally.unserved += self._count(replica.left())
        replica.passed = replica.number_B.size
        while course.waits(self.tally.partition):
            replica.fetch()
            self.tally.unserved += self._count(replica.number_B)
            replica.passed = replica.number_B.size
        self.tally.unserved += replica.unserved
        replica.unserved = 0

    def forget(self) -> None:
        """Let go of the rows at hand; nothing is compared any more."""
        self._replicas.clear()

    def _take_source(self, source: int, rows: Table) -> None:
        naming = self._naming(source)
        if naming is not None:  # labels of what is gone come after the cut, too
            rows = rows.take(np.flatnonzero(rows.numbers("kind") == EVENT))
        number_B = rows.numbers(self._hop.counted_by)
        if not number_B.size:
            return
        if source not in self._begins:
            self._begins[source] = self._begin(source, int(number_B[0]), naming)
        self.tally.out_of_reach += self._count(number_B[number_B < self._begins[source]])
        highest_B = np.maximum.accumulate(np.append(self._last.get(source, -1), number_B))
        self._last[source] = int(highest_B[-1])
        is_next_B = number_B > highest_B[:-1]
        self.tally.only_served += self._count(number_B[~is_next_B])
        within = np.flatnonzero(is_next_B & (number_B >= self._begins[source]))
        course = self._courses.of(source)
        if within.size and course is not None:
            self._walk(self._replica(course, naming), rows.take(within), is_named=naming is not None)

    def _begin(self, source: int, first: int, naming: Naming | None) -> int:
        """Set a recomputation beside a source met with row `first`; gives the first number that can be compared."""
        course = self._courses.of(source)
        if course is None:
            return NEVER
        is_first = all(met.partition != course.partition for met in self._replicas)
        is_cut = self._served.start > 0 and is_first  # retention took the rows before its first one
        replica = self._replica(course, naming)
        if not is_cut and naming is None:
            return 0
        while not replica.left().size or replica.number_B[-1] < first:
            if not replica.fetch():
                return NEVER if naming is not None else 0
        replica.passed = int(np.searchsorted(replica.number_B, first))
        return int(replica.left()[0])

    def _replica(self, course: Course, naming: Naming | None) -> Replica:
        if course not in self._replicas:
            self._replicas[course] = Replica(course, self.tally.partition, self._hop.counted_by, naming)
        return self._replicas[course]

    def _walk(self, replica: Replica, served: Table, *, is_named: bool) -> None:
        """Go along both sides by number: all of `served`, and the replica up to its last row."""
        number_B, at = served.numbers(self._hop.counted_by), 0
        while at < number_B.size:
            left_B = replica.left()
            if left_B.size:
                stop = int(np.searchsorted(number_B, left_B[-1], side="right"))
                is_last = stop == number_B.size
                reach = int(np.searchsorted(left_B, number_B[-1], side="right")) if is_last else left_B.size
                self._match(replica, served.slice(at, stop - at), reach, is_named=is_named)
                at = stop
            elif not replica.fetch():
                self.tally.only_served += self._count(number_B[at:])
                return

    def _match(self, replica: Replica, served: Table, reach: int, *, is_named: bool) -> None:
        """Deal with the next `reach` rows of the replica and with what was served among them."""
        number_B, left_B = served.numbers(self._hop.counted_by), replica.left()[:reach]
        is_both_B = np.isin(number_B, left_B)
        self.tally.only_served += self._count(number_B[~is_both_B])
        self.tally.only_recomputed += self._count(left_B[~np.isin(left_B, number_B)])
        chosen = np.flatnonzero(is_both_B & is_sampled(number_B, self._sample))
        if chosen.size and replica.table is not None:
            again = replica.table.take(replica.passed + np.searchsorted(left_B, number_B[chosen]))
            self._compare(served.take(chosen), again, _WRITERS_OWN | {"number"} if is_named else _WRITERS_OWN)
        replica.passed += reach

    def _compare(self, served: Table, again: Table, leaving_out: frozenset[str]) -> None:
        self.tally.compared += served.num_rows
        numbers = served.numbers(self._hop.counted_by)
        for unlike in compare(served, again, self._hop.output.columns, leaving_out):
            self.tally.note(unlike, numbers, served.to_arrow().column("id").to_pylist())

    def _count(self, number_B: Int64s) -> int:
        return int(is_sampled(number_B, self._sample).sum())


def is_sampled(number_B: Int64s, share: float) -> npt.NDArray[np.bool_]:
    """Say which rows belong to a sample: by a hash of their number, so that every audit takes the same.

    >>> bool(is_sampled(np.arange(10), 1.0).all()), int(is_sampled(np.arange(10_000), 0.1).sum())
    (True, 999)
    """
    if share >= WHOLE:
        return np.ones(number_B.size, np.bool_)
    mixed_B = number_B.astype(np.uint64) + _MIX[0]  # splitmix64, https://prng.di.unimi.it/splitmix64.c
    mixed_B = (mixed_B ^ (mixed_B >> np.uint64(30))) * _MIX[1]
    mixed_B = (mixed_B ^ (mixed_B >> np.uint64(27))) * _MIX[2]
    drawn_B: npt.NDArray[np.bool_] = (mixed_B ^ (mixed_B >> np.uint64(31))) < np.uint64(share * 2**64)
    return drawn_B
