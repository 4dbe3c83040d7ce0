"""`millrace audit`: goes over all stages and partitions, once or again and again, and keeps what it found.

Each stage is compared with what the topic before it gives as it was written, for that is what the stage has read, in an
order that nothing else tells: the log beside P.stage1, P.stage1 beside P.stage2, …, the last one beside P.features. A
round compares what has been written since the one before. In between the state of the recomputation stays in memory, as
it does in the features role.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from typing import Self

from consumers.inlet import FrameInlet
from consumers.process import KafkaControlLog
from serving.audit import WHOLE, Audit
from serving.course import Courses
from serving.feed import Bounds, Feed, KafkaFeed, beginning, bounds
from serving.hop import Hop, hops
from serving.names import Names
from serving.replica import Naming
from serving.stage_audit import StageAudit
from serving.tally import Tally
from streams.control import Control
from streams.errors import TopicError, UnavailableError
from streams.kafka import Topics
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.sources import SourceMemory
from streams.tables import Table

ONE_SIDED = "(row)"  # in place of a column: rows that only one side has; no column has such a name

Watch = Callable[[int, int, int, int], None]
"""Told how far a stage's partition is: their numbers, messages taken now, and how many there are."""
Known = Mapping[str, Mapping[int, Bounds]]


class Auditor:
    """The audits of all stages of a pipeline.

    Args:
        pipeline: whose topics are compared.
        sample: the share of rows that are compared.
        is_from_retained: go on with topics that were cut by retention.

    Attributes:
        cut: by topic and partition, the first offset where what a stage reads does not begin with its first row.

    Raises:
        TopicError: a topic is missing, or has other partitions than the log.
        UnavailableError: what a stage reads was cut, and `is_from_retained` is not given.
    """

    def __init__(self, pipeline: Pipeline, *, sample: float = WHOLE, is_from_retained: bool = False) -> None:
        self._pipeline, self._sample, self._hops = pipeline, sample, hops(pipeline)
        self._ids = self._look()
        known = self._bounds()
        read = {self._name(hop.reads): known[hop.reads] for hop in self._hops}
        self._control_log = KafkaControlLog(pipeline)
        self._control = Control(self._control_log)
        self._control.refresh()
        self._is_parted = bool(self._control.aliases)
        places = {(topic, at): one.start for topic, found in read.items() for at, one in found.items()}
        self.cut = {place: start for place, start in places.items() if self._is_cut(start)}
        if self.cut and not is_from_retained:
            self._control_log.close()
            (topic, partition), start = next(iter(self.cut.items()))
            where = f"{topic} partition {partition} {beginning(start)}"
            raise UnavailableError(f"{where}, so values cannot be exact; --from-retained compares what is left")
        self._stages = [self._stage(hop, known) for hop in self._hops]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control_log.close()

    @property
    def tallies(self) -> list[Tally]:
        """What was found so far, by stage and partition."""
        return [tally for stage in self._stages for tally in stage.tallies]

    def round(self, watch: Watch = lambda *_: None, *, is_last: bool = False) -> None:
        """Compare everything that was written and not compared yet.

        Args:
            watch: told of every step.
            is_last: there is no other round: what topics give beyond the last rows written is counted, and of each
                stage the state let go.
        """
        known = self._bounds()
        for stage in self._stages:
            written = known[stage.hop.writes]
            totals = {partition: found.end - found.start for partition, found in written.items()}
            tell = partial(_tell, watch, stage.hop.spec.number, totals)
            stage.run(_ends(written), _ends(known[stage.hop.reads]), tell, is_last=is_last)

    def _look(self) -> dict[str, str]:
        """Give the UUID of every topic that a stage reads; they and P.features must have the same partitions."""
        topics = Topics(self._pipeline.kafka)
        try:
            log, *others = (self._name(hop.reads) for hop in self._hops)
            self._partitions = list(range(topics.partitions(log)))
            for name in (*others, self._name("features")):
                if topics.partitions(name) != len(self._partitions):
                    raise TopicError(f"{name} has other partitions than {log}; they must be as many")
            return {hop.reads: topics.uuid(self._name(hop.reads)) or "" for hop in self._hops}
        finally:
            topics.close()

    def _bounds(self) -> Known:
        """Ask for the topics' bounds, the last topic's first: what was written there was in those before."""
        names = ["features", *(hop.reads for hop in reversed(self._hops))]
        return {name: bounds(self._pipeline.kafka, self._name(name), self._partitions) for name in names}

    def _stage(self, hop: Hop, known: Known) -> StageAudit:
        read = known[hop.reads]
        feed = partial(self._feed, hop.reads, read)
        courses = Courses(self._pipeline, hop, self._control, self._ids[hop.reads], feed)
        audits = [self._audit(hop, partition, courses, known) for partition in self._partitions]
        return StageAudit(hop, courses, audits)

    def _audit(self, hop: Hop, partition: int, courses: Courses, known: Known) -> Audit:
        written = known[hop.writes]
        naming: Callable[[int], Naming | None] = _no_naming
        if cut := {at for at, found in known[hop.reads].items() if self._is_cut(found.start)}:
            names = Names(self._written_rows(hop, partition, written), hop.counted_by)
            naming = partial(self._naming, names, cut)
        served = self._feed(hop.writes, written, partition)
        return Audit(hop, partition, self._control, served, courses, sample=self._sample, naming=naming)

    def _is_cut(self, start: int) -> bool:
        """Whether rows were there before the first one: retention took them, or a change of partitions."""
        return start > 0 or self._is_parted

    def _naming(self, names: Names, cut: set[int], source: int) -> Naming | None:
        """Give the naming of a source if the partition that it was computed from was cut."""
        return names.of(source) if self._control.source(source).partition in cut else None

    def _written_rows(self, hop: Hop, partition: int, written: Mapping[int, Bounds]) -> Iterator[Table]:
        inlet = FrameInlet(hop.output, self._control, SourceMemory(self._control))
        with closing(self._feed(hop.writes, written, partition).read(written[partition].end)) as parts:
            for records in parts:
                yield inlet.decode(records).rows

    def _feed(self, topic: str, found: Mapping[int, Bounds], partition: int) -> Feed:
        return KafkaFeed(self._pipeline.kafka, self._name(topic), partition, found[partition].start)

    def _name(self, topic: str) -> str:
        return f"{self._pipeline.name}.{topic}"


class Export:
    """What Prometheus is told of an audit; every column of every stage has its series from the start, at 0."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.metrics = RoleMetrics("audit", pipeline.name)
        self.metrics.release(version("millrace"))
        found = hops(pipeline)
        self._of = {hop.spec.number: self.metrics.of(hop.candidate) for hop in found}
        self._rows = dict.fromkeys(self._of, 0)
        self._skew = {hop.spec.number: Counter(dict.fromkeys(_compared(hop), 0)) for hop in found}
        for number, metrics in self._of.items():
            metrics.audited(0, self._skew[number])

    def update(self, tallies: Sequence[Tally]) -> int:
        """Add what is new since the last call; gives how much of it is skew."""
        total = 0
        for number, metrics in self._of.items():
            mine = [tally for tally in tallies if tally.stage == number]
            rows, skew = sum(tally.compared for tally in mine), skew_of(mine)
            new = skew - self._skew[number]
            metrics.audited(rows - self._rows[number], new)
            self._rows[number], self._skew[number] = rows, skew
            total += new.total()
        return total


def _compared(hop: Hop) -> list[str]:
    """Name what is compared of a stage's rows, and their being there."""
    others = {"source", "sequence", "vector"} | ({"kind", "number"} if hop.spec.is_last else set())
    own = [name for name in hop.output.layout.names if name not in others]
    return [*own, *(column.name for column in hop.output.columns), ONE_SIDED]


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


def _no_naming(_: int) -> None:
    return None


def _ends(found: Mapping[int, Bounds]) -> dict[int, int]:
    return {partition: one.end for partition, one in found.items()}


def _tell(watch: Watch, stage: int, totals: Mapping[int, int], partition: int, messages: int) -> None:
    watch(stage, partition, messages, totals[partition])
