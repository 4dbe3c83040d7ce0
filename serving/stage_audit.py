"""The audit of one stage of features: all partitions that it writes, from all partitions that it reads.

A stage in a chain writes from every input partition to every partition of the next topic. Chunks as written are
compared in the order in which Kafka had them, whatever their partition: so recomputed rows wait only until what was
written at the same time elsewhere is reached. The last stage stays in its partition; these go one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing

from serving.audit import Audit
from serving.course import Courses
from serving.hop import Hop
from serving.tally import Tally

Seen = Callable[[int, int], None]
"""Told of a partition how many messages a step took."""


class StageAudit:
    """Compares what a stage has written with what its input gives.

    Args:
        hop: the stage.
        courses: its recomputations.
        audits: of its output partitions, over these courses.
    """

    def __init__(self, hop: Hop, courses: Courses, audits: Sequence[Audit]) -> None:
        self.hop = hop
        self._courses, self._audits = courses, list(audits)

    @property
    def tallies(self) -> list[Tally]:
        """What was found so far, by partition."""
        return [audit.tally for audit in self._audits]

    def run(
        self,
        written: Mapping[int, int],
        read: Mapping[int, int],
        seen: Seen = lambda *_: None,
        *,
        is_last: bool = False,
    ) -> None:
        """Compare what was written up to these offsets, which must have been asked for before those of the input were.

        Args:
            written: where to stop in each output partition.
            read: where to stop in each input partition.
            seen: told of every step.
            is_last: nothing is compared later; what the input gives beyond the last rows written is counted, and the
                state let go.
        """
        self._courses.reach(read)
        for together in [[audit] for audit in self._audits] if self.hop.spec.is_last else [self._audits]:
            try:
                _run(together, written, seen)
                if is_last:
                    self._count_unserved(together)
            finally:
                self._courses.close()
            if is_last:
                self._forget(together)

    def _count_unserved(self, audits: Sequence[Audit]) -> None:
        """Go to the end of the input and count what comes after the last rows written."""
        for course in self._courses.newest(_partitions(audits)):
            is_more = True
            while is_more:
                for audit in audits:
                    audit.count_unserved(course)
                is_more = course.advance()

    def _forget(self, audits: Sequence[Audit]) -> None:
        self._courses.forget(_partitions(audits))
        for audit in audits:
            audit.forget()


def _partitions(audits: Sequence[Audit]) -> list[int]:
    """Name the input partitions that only these audits need: all, or each its own in the last stage."""
    return [audit.tally.partition for audit in audits]


def _run(audits: Sequence[Audit], ends: Mapping[int, int], seen: Seen) -> None:
    """Take chunks of several partitions, always the one that was written first."""
    with ExitStack() as stack:
        parts = [stack.enter_context(closing(audit.read(ends[audit.tally.partition]))) for audit in audits]
        heads = {at: head for at, part in enumerate(parts) if (head := next(part, None)) is not None}
        while heads:
            at = min(heads, key=lambda at: int(heads[at].stamps[-1]))
            audits[at].take(heads[at])
            seen(audits[at].tally.partition, heads[at].offsets.size)
            if (head := next(parts[at], None)) is None:
                del heads[at]
            else:
                heads[at] = head
