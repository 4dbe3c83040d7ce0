"""The backfill where features take several stages: all partitions at once, for rows go from each to each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from serving.chain import Chain
from serving.feed import Feed
from serving.merged_log import MergedLog
from serving.settled_rows import Period, SettledRows
from streams.control import Control
from streams.frames import Rows
from streams.pipeline import Pipeline


class ChainBackfill:
    """The rows of all partitions on their way from the log through all stages to files.

    Memory holds the state of all stages and partitions, about 20,000 rows between stages, and what one read of each
    partition gives.

    Args:
        pipeline: says which features and how long labels are waited for.
        control: resolves the log's sources.
        feeds: of every partition of the log.
        wanted: the partitions that are written; all are computed.
        out: the dataset's directory.
        period: which events are written; all are computed.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        control: Control,
        feeds: Mapping[int, Feed],
        wanted: Sequence[int],
        out: Path,
        period: Period,
    ) -> None:
        self._log, self._chain = MergedLog(pipeline, control, feeds), Chain(pipeline)
        self._is_by_id, self._all = pipeline.labels.match == "id", range(pipeline.partitions)
        self._settled = {partition: SettledRows(pipeline, partition, out, period) for partition in wanted}

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return sum(settled.rows for settled in self._settled.values())

    @property
    def corrections(self) -> int:
        """Labels that changed after their event was settled, which the dataset does not show."""
        return sum(settled.corrections for settled in self._settled.values())

    def run(self, ends: Mapping[int, int], seen: Callable[[int, int], None]) -> None:
        """Go over the log up to these offsets; `seen` is told of a partition how many messages were read."""
        clock = self._log.clock
        for parts in self._log.read(ends, seen):
            self._put(self._chain.take(parts, clock), is_settled=True)
            clock = self._log.clock
        for partitions, deadlines in self._left():
            for clock_us in deadlines:
                self._put(self._chain.settle(partitions, clock_us), is_settled=False)
        for settled in self._settled.values():
            settled.close()

    def _left(self) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
        """Say in which partitions of the log events wait yet, and where clocks must stand for them."""
        if self._is_by_id:
            found = {clock_us for settled in self._settled.values() for clock_us in settled.deadlines()}
            yield self._all, sorted(found)
            return
        for partition, settled in self._settled.items():  # an event is in the same one of P.features: that of its key
            yield (partition,), settled.deadlines()

    def _put(self, outputs: Mapping[int, Sequence[Rows]], *, is_settled: bool) -> None:
        for partition, settled in self._settled.items():
            settled.put(outputs.get(partition, ()), is_settled=is_settled)
