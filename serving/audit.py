"""The audit of one partition: every served vector beside the one that the log gives for its number.

Served rows are the driver: they come in the order of their numbers, each source's for itself, and beside each source
goes a recomputation of its own (a zombie of an earlier generation may write between the rows of a newer one). So memory
holds the state of the features role and one chunk of rows a side, whatever the topics hold, and an audit goes on later
where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
import numpy.typing as npt

from consumers.inlet import FrameInlet
from serving.comparison import compare
from serving.feed import Feed
from serving.recomputation import Recomputation
from serving.replica import Naming, Replica
from serving.tally import Tally
from streams.control import Control
from streams.features import columns
from streams.frames import EVENT, features_schema
from streams.pipeline import Pipeline
from streams.records import Records
from streams.sources import SourceMemory
from streams.tables import Table

WHOLE = 1.0
NEVER = 1 << 62  # above every number
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

Int64s = npt.NDArray[np.int64]


class Audit:
    """Compares the rows of one partition of P.features with what its partition of the log gives.

    Args:
        pipeline: says which features.
        partition: of both topics.
        control: resolves sources.
        log_id: UUID of the log's topic; rows computed from an earlier topic of its name are out of reach.
        served: the partition of P.features, from its first record on.
        log: gives the partition of the log from its first record on, once for each source.
        sample: the share of rows that are compared, chosen by their numbers.
        naming: numbers of a log that was cut (see names.py), by source.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        partition: int,
        control: Control,
        log_id: str,
        served: Feed,
        log: Callable[[], Feed],
        *,
        sample: float = WHOLE,
        naming: Callable[[int], Naming] | None = None,
    ) -> None:
        self.tally = Tally(partition)
        self._pipeline, self._control, self._log_id = pipeline, control, log_id
        self._served, self._log, self._sample, self._naming = served, log, sample, naming
        self._columns = columns(pipeline)
        memory = SourceMemory(control)
        memory.is_from_start = False  # a row that is missing is to be counted, not to stop the audit
        self._inlet = FrameInlet(features_schema(self._columns), control, memory)
        self._replicas: dict[int, Replica] = {}
        self._begins: dict[int, int] = {}  # of each source, the first number that can be compared
        self._last: dict[int, int] = {}  # and the largest one met
        self._newest: Replica | None = None  # of the source met last: where the stream goes on
        self._log_end = 0

    def run(self, served_end: int, log_end: int, seen: Callable[[int], None] = lambda _: None) -> None:
        """Compare what was served up to `served_end`, which must have been asked before `log_end` was.

        Args:
            served_end: where to stop in P.features.
            log_end: where to stop in the log.
            seen: told how many messages of P.features each step took.
        """
        self._log_end = log_end
        for replica in self._replicas.values():
            replica.open(log_end)
        try:
            with closing(self._served.read(served_end)) as parts:
                for records in parts:
                    self._take(records)
                    seen(records.offsets.size)
        finally:
            for replica in self._replicas.values():
                replica.close()

    def count_unserved(self) -> None:
        """Go to the end of the log and count what comes after the last served row; nothing can be compared then."""
        replica = self._newest or self._make_replica(None)
        replica.open(self._log_end)
        try:
            self.tally.unserved += self._count(replica.left())
            while replica.fetch():
                self.tally.unserved += self._count(replica.number_B)
        finally:
            replica.close()
        self.tally.unserved += replica.unserved

    def _take(self, records: Records) -> None:
        rows = self._inlet.admit(self._inlet.decode(records).rows)[0].rows
        is_event, source = rows.numbers("kind") == EVENT, rows.numbers("source")
        for one in np.unique(source[is_event]).tolist():
            self._take_source(one, rows.take(np.flatnonzero(is_event & (source == one))))

    def _take_source(self, source: int, rows: Table) -> None:
        number_B = rows.numbers("number")
        if source not in self._begins:
            self._begins[source] = self._begin(source, int(number_B[0]))
        self.tally.out_of_reach += self._count(number_B[number_B < self._begins[source]])
        highest_B = np.maximum.accumulate(np.append(self._last.get(source, -1), number_B))
        self._last[source] = int(highest_B[-1])
        is_next_B = number_B > highest_B[:-1]
        self.tally.only_served += self._count(number_B[~is_next_B])
        within = np.flatnonzero(is_next_B & (number_B >= self._begins[source]))
        if within.size:
            self._walk(self._replicas[source], rows.take(within))

    def _begin(self, source: int, first: int) -> int:
        """Set a recomputation beside a source met with row `first`; gives the first number that can be compared."""
        if self._control.source(source).topic_id != self._log_id:
            return NEVER
        is_cut = self._served.start > 0 and not self._replicas  # retention took the rows before its first one
        replica = self._replicas[source] = self._newest = self._make_replica(source)
        replica.open(self._log_end)
        if not is_cut and self._naming is None:
            return 0
        while not replica.left().size or replica.number_B[-1] < first:
            if not replica.fetch():
                return NEVER if self._naming is not None else 0
        replica.passed = int(np.searchsorted(replica.number_B, first))
        return int(replica.left()[0])

    def _make_replica(self, source: int | None) -> Replica:
        naming = self._naming(source) if self._naming is not None and source is not None else None
        again = Recomputation(self._pipeline, self.tally.partition, self._control)
        return Replica(again, self._log(), naming)

    def _walk(self, replica: Replica, served: Table) -> None:
        """Go along both sides by number: all of `served`, and the replica up to its last row."""
        number_B, at = served.numbers("number"), 0
        while at < number_B.size:
            left_B = replica.left()
            if left_B.size:
                stop = int(np.searchsorted(number_B, left_B[-1], side="right"))
                is_last = stop == number_B.size
                reach = int(np.searchsorted(left_B, number_B[-1], side="right")) if is_last else left_B.size
                self._match(replica, served.slice(at, stop - at), reach)
                at = stop
            elif not replica.fetch():
                self.tally.only_served += self._count(number_B[at:])
                return

    def _match(self, replica: Replica, served: Table, reach: int) -> None:
        """Deal with the next `reach` rows of the replica and with what was served among them."""
        number_B, left_B = served.numbers("number"), replica.left()[:reach]
        is_both_B = np.isin(number_B, left_B)
        self.tally.only_served += self._count(number_B[~is_both_B])
        self.tally.only_recomputed += self._count(left_B[~np.isin(left_B, number_B)])
        chosen = np.flatnonzero(is_both_B & is_sampled(number_B, self._sample))
        if chosen.size and replica.table is not None:
            again = replica.table.take(replica.passed + np.searchsorted(left_B, number_B[chosen]))
            self._compare(served.take(chosen), again)
        replica.passed += reach

    def _compare(self, served: Table, again: Table) -> None:
        self.tally.compared += served.num_rows
        for unlike in compare(served, again, self._columns):
            self.tally.note(unlike, served.numbers("number"), served.to_arrow().column("id").to_pylist())

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
