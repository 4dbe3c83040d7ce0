"""The partitions of the log merged by time, as one worker takes them in a replay (PROTOCOL 10).

A row's merge key is the running maximum of time in its partition (streams/merging.py). Each step gives of every
partition all rows up to some key, and of one key all at once. A partition that might still have an earlier row is read
on, which takes no marks: the whole log is there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing

from consumers.inlet import FrameInlet
from serving.chain import Keyed
from serving.feed import Feed
from streams.control import Control
from streams.frames import END, log_schema
from streams.merging import Bound, Intake
from streams.pipeline import Pipeline
from streams.records import Records
from streams.sources import SourceMemory

STEP_ROWS = 20_000  # of all partitions together, or as many as have one key: what lies between stages at a time


class MergedLog:
    """The log from its first row on.

    Args:
        pipeline: the pipeline.
        control: resolves the log's sources.
        feeds: of every partition.
    """

    def __init__(self, pipeline: Pipeline, control: Control, feeds: Mapping[int, Feed]) -> None:
        schema = log_schema(pipeline)
        self._feeds = feeds
        memories = {p: SourceMemory(control, is_log=True, has_labels=pipeline.labels.is_declared) for p in feeds}
        self._inlets = {p: FrameInlet(schema, control, memory) for p, memory in memories.items()}
        self._intakes = {p: Intake(0, p) for p in sorted(feeds)}

    @property
    def clock(self) -> int:
        """The smallest mark of all partitions, as far as rows were given."""
        return min(inlet.mark() for inlet in self._inlets.values())

    def read(self, ends: Mapping[int, int], seen: Callable[[int, int], None]) -> Iterator[dict[int, Keyed]]:
        """Give the rows before these offsets, step by step.

        Args:
            ends: where to stop in each partition.
            seen: told of a partition how many messages were read.
        """
        with ExitStack() as stack:
            parts = {p: stack.enter_context(closing(feed.read(ends[p]))) for p, feed in self._feeds.items()}
            while (limit := self._filled(parts, seen)) is not None:
                yield dict(self._taken(limit))

    def _filled(self, parts: Mapping[int, Generator[Records]], seen: Callable[[int, int], None]) -> int | None:
        """Read until some rows may be taken, and give the key up to which they may; None at the end."""
        while True:
            horizon = min(intake.bound.time for intake in self._intakes.values())
            full = [intake for intake in self._intakes.values() if intake.rows]
            if horizon == END:
                return self._capped(full, horizon) if full else None
            if any(intake.head.time < horizon for intake in full):
                return self._capped(full, horizon - 1)
            for partition, intake in self._intakes.items():
                if intake.bound.time == horizon:
                    self._read(partition, parts[partition], seen)

    def _capped(self, full: list[Intake], limit: int) -> int:
        share = max(1, STEP_ROWS // len(full))
        return min(limit, *(intake.key(min(share, intake.rows) - 1).time for intake in full))

    def _read(self, partition: int, part: Generator[Records], seen: Callable[[int, int], None]) -> None:
        intake, records = self._intakes[partition], next(part, None)
        if records is None:
            intake.mark = int(END)
            return
        rows, offsets, stamps = self._inlets[partition].decode(records)
        intake.add(rows, offsets, stamps, int(records.offsets[-1]) + 1)
        seen(partition, records.offsets.size)

    def _taken(self, limit: int) -> Iterator[tuple[int, Keyed]]:
        for partition, intake in self._intakes.items():
            if count := intake.count(Bound(limit, 1, int(END))):
                rows, keys = intake.take(count)
                batch, kept = self._inlets[partition].admit(rows)
                yield partition, Keyed(batch, keys if kept is None else keys[kept])
