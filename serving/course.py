"""What a source should have written: a stage's outputs, computed again, that wait until they are compared.

A stage of a chain spreads the rows of one input partition over all partitions of the next topic, so one recomputation
stands behind the comparisons of several partitions.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping

from serving.feed import Feed
from serving.hop import Hop
from serving.recomputation import Recomputation
from streams.control import Control
from streams.pipeline import Pipeline
from streams.records import Records
from streams.tables import Table


class Course:
    """The outputs of one recomputation, by output partition, each once.

    Args:
        partition: the input partition.
        recomputation: computes them.
        feed: gives that partition from its first record on.

    Attributes:
        end: how far in the input it may go.
    """

    def __init__(self, partition: int, recomputation: Recomputation, feed: Feed) -> None:
        self.partition, self.end = partition, 0
        self._recomputation, self._feed = recomputation, feed
        self._records: Generator[Records] | None = None
        self._waiting: dict[int, deque[Table]] = defaultdict(deque)

    def next(self, partition: int) -> Table | None:
        """Give the next rows for an output partition; None at the end of the input."""
        while not self._waiting[partition]:
            if not self.advance():
                return None
        return self._waiting[partition].popleft()

    def waits(self, partition: int) -> bool:
        """Whether there are rows for an output partition without going on in the input."""
        return bool(self._waiting[partition])

    def advance(self) -> bool:
        """Take the next records of the input; False at its end."""
        if self._records is None:
            self._records = self._feed.read(self.end)
        records = next(self._records, None)
        if records is None:
            return False
        for partition, table in self._recomputation.written(records):
            self._waiting[partition].append(table)
        return True

    def close(self) -> None:
        """Let go of the input until it is needed again; what is at hand stays."""
        if self._records is not None:
            self._records.close()
            self._records = None


class Courses:
    """The courses of a stage, one for each source that was met (a zombie may write beside its successor).

    Args:
        pipeline: the pipeline.
        hop: the stage.
        control: resolves sources.
        read_id: UUID of the topic that the stage reads; rows computed from an earlier one of its name are out of reach.
        feed: gives an input partition from its first record on, once for each course.
    """

    def __init__(
        self, pipeline: Pipeline, hop: Hop, control: Control, read_id: str, feed: Callable[[int], Feed]
    ) -> None:
        self._pipeline, self._hop, self._control = pipeline, hop, control
        self._read_id, self._feed = read_id, feed
        self._made: list[Course] = []
        self._of: dict[int, Course] = {}
        self._newest: dict[int, Course] = {}  # of each input partition, where the stream goes on
        self._ends: Mapping[int, int] = {}

    def reach(self, ends: Mapping[int, int]) -> None:
        """Let all go on up to these offsets of the input partitions."""
        self._ends = ends
        for course in self._made:
            course.end = ends[course.partition]

    def of(self, source: int) -> Course | None:
        """Give the course of a source, from the first row on when it is met first; None if its input is gone."""
        if source not in self._of:
            claim = self._control.source(source)
            if claim.topic_id != self._read_id:
                return None
            self._of[source] = self._newest[claim.partition] = self._make(claim.partition)
        return self._of[source]

    def newest(self, partitions: Collection[int]) -> Iterator[Course]:
        """Give of each input partition the course of the source met last; a new one where none was met."""
        for partition in partitions:
            yield self._newest.get(partition) or self._make(partition)

    def close(self) -> None:
        """Let go of the input until it is needed again."""
        for course in self._made:
            course.close()

    def forget(self, partitions: Collection[int]) -> None:
        """Let go of all state of some input partitions, of which nothing is asked any more."""
        self._made = [course for course in self._made if course.partition not in partitions]
        self._of = {source: course for source, course in self._of.items() if course.partition not in partitions}
        self._newest = {partition: course for partition, course in self._newest.items() if partition not in partitions}

    def _make(self, partition: int) -> Course:
        again = Recomputation(self._pipeline, partition, self._control, self._hop)
        course = Course(partition, again, self._feed(partition))
        course.end = self._ends[partition]
        self._made.append(course)
        return course
