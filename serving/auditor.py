"""`millrace audit`: goes over all partitions, once or again and again, and keeps what it found.

A round compares what has been served since the one before. In between the state of the recomputation stays in memory,
as it does in the features role.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from typing import Self

from consumers.inlet import FrameInlet
from consumers.process import KafkaControlLog
from serving.audit import WHOLE, Audit
from serving.feed import Bounds, Feed, KafkaFeed, bounds
from serving.names import Names
from serving.tally import Tally
from streams.control import Control
from streams.errors import TopicError, UnavailableError
from streams.features import columns
from streams.frames import features_schema
from streams.kafka import Topics
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.sources import SourceMemory
from streams.tables import Table

ONE_SIDED = "(row)"  # in place of a column: rows that only one side has; no column has such a name

Watch = Callable[[int, int, int], None]
"""Told how far a partition is: its number, messages of P.features taken now, and how many there are."""


class Auditor:
    """The audits of all partitions of a pipeline.

    Args:
        pipeline: whose topics are compared.
        sample: the share of rows that are compared.
        is_from_retained: go on with a log that was cut by retention.

    Attributes:
        cut: by partition, the first offset of a log that does not begin with its first row.

    Raises:
        TopicError: there is no log.
        UnavailableError: the log was cut, and `is_from_retained` is not given.
    """

    def __init__(self, pipeline: Pipeline, *, sample: float = WHOLE, is_from_retained: bool = False) -> None:
        self._pipeline, self._sample = pipeline, sample
        self._log, self._features = f"{pipeline.name}.log", f"{pipeline.name}.features"
        topics = Topics(pipeline.kafka)
        try:
            self._partitions = list(range(topics.partitions(self._log)))
            self._log_id = topics.uuid(self._log) or ""
            if topics.partitions(self._features) != len(self._partitions):
                raise TopicError(f"{self._features} has other partitions than {self._log}; they must be as many")
        finally:
            topics.close()
        found = bounds(pipeline.kafka, self._log, self._partitions)
        self.cut = {partition: one.start for partition, one in found.items() if one.start}
        if self.cut and not is_from_retained:
            partition, start = next(iter(self.cut.items()))
            where = f"{self._log} partition {partition} begins at offset {start}: the rows before were cut by retention"
            raise UnavailableError(f"{where}, so values cannot be exact; --from-retained compares what is left")
        self._control_log = KafkaControlLog(pipeline)
        self._control = Control(self._control_log)
        served = bounds(pipeline.kafka, self._features, self._partitions)
        self._audits = [self._audit(partition, found[partition], served[partition]) for partition in self._partitions]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control_log.close()

    @property
    def tallies(self) -> list[Tally]:
        """What was found so far, by partition."""
        return [audit.tally for audit in self._audits]

    def round(self, watch: Watch = lambda *_: None) -> None:
        """Compare everything that was served and not compared yet."""
        # In this order: what was served was in the log before.
        served = bounds(self._pipeline.kafka, self._features, self._partitions)
        log = bounds(self._pipeline.kafka, self._log, self._partitions)
        for partition, audit in enumerate(self._audits):
            total = served[partition].end - served[partition].start
            audit.run(served[partition].end, log[partition].end, partial(_tell, watch, partition, total))

    def count_unserved(self) -> None:
        """After the only round: count what the log gives beyond the last served rows."""
        for audit in self._audits:
            audit.count_unserved()

    def _audit(self, partition: int, log: Bounds, served: Bounds) -> Audit:
        kafka = self._pipeline.kafka
        naming = None
        if log.start:
            naming = Names(self._served_rows(partition, served)).of
        return Audit(
            self._pipeline,
            partition,
            self._control,
            self._log_id,
            KafkaFeed(kafka, self._features, partition, served.start),
            lambda: KafkaFeed(kafka, self._log, partition, log.start),
            sample=self._sample,
            naming=naming,
        )

    def _served_rows(self, partition: int, served: Bounds) -> Iterator[Table]:
        feed: Feed = KafkaFeed(self._pipeline.kafka, self._features, partition, served.start)
        schema = features_schema(columns(self._pipeline))
        inlet = FrameInlet(schema, self._control, SourceMemory(self._control))
        with closing(feed.read(served.end)) as parts:
            for records in parts:
                yield inlet.decode(records).rows


class Export:
    """What Prometheus is told of an audit; every column has its series from the start, at 0."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.metrics = RoleMetrics("audit", pipeline.name)
        self.metrics.release(version("millrace"))
        names = ("id", "key", "time", "produced", *(column.name for column in columns(pipeline)), ONE_SIDED)
        self._rows, self._skew = 0, Counter(dict.fromkeys(names, 0))
        self.metrics.audited(0, self._skew)

    def update(self, tallies: Sequence[Tally]) -> int:
        """Add what is new since the last call; gives how much of it is skew."""
        rows, skew = sum(tally.compared for tally in tallies), skew_of(tallies)
        new = skew - self._skew
        self.metrics.audited(rows - self._rows, new)
        self._rows, self._skew = rows, skew
        return new.total()


def skew_of(tallies: Sequence[Tally]) -> Counter[str]:
    """Count what is not as it should be: differing values by column, and rows of one side only."""
    found: Counter[str] = Counter()
    for tally in tallies:
        found.update(tally.unlike)
        if tally.one_sided:
            found[ONE_SIDED] += tally.one_sided
    return found


def watch_on(auditor: Auditor, export: Export, every_s: float, say: Callable[[Sequence[Tally]], None]) -> None:
    """Repeat the round until interrupted; `say` is called when there is something new to say."""
    while True:
        began = time.monotonic()
        auditor.round()
        if export.update(auditor.tallies):
            say(auditor.tallies)
        time.sleep(max(0.0, began + every_s - time.monotonic()))


def _tell(watch: Watch, partition: int, total: int, messages: int) -> None:
    watch(partition, messages, total)
