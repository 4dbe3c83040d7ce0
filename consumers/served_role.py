"""The role that scores what was served: examples, answers and scores in, figures out; a stream of learn.

It reads P.examples as the candidates do, in a group and from snapshots of its own; P.predictions and P.scores beside
it, from positions that are part of the same snapshot. It writes no topic, so nobody waits for it: what it says are
metrics, and a file for `millrace models`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from consumers.examples_role import ExamplesRole
from consumers.inlet import FrameInlet
from consumers.role import Inlet, OpenPartition, Task
from consumers.score_records import decode_scores
from consumers.served import PATIENCE_US, ServedTask
from consumers.served_figures import figures_of, write_served
from streams.control import Control
from streams.errors import FrameError, UnavailableError
from streams.frames import BEGINNING, END, FrameSchema
from streams.kafka import Tail, Tailing, Topics
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.records import value
from streams.served import ROLE
from streams.snapshots import State
from streams.sources import SourceMemory

LOG = logging.getLogger("consumers.served")
MOST_ANSWERS = 10_000  # of a partition in one look
MOST_WAITING = 50_000  # answers of a partition that wait for their events
MOST_RECORDS = 500  # of scores in one look, up to 200 blocks each
WRITE_EVERY_US = 10_000_000
LATEST_PATIENCE_US = 60_000_000  # where serve began behind some events, of which no answer comes


class Tails(NamedTuple):
    """What is read beside the examples."""

    answers: Tailing
    scores: Tailing


class ServedInlet(FrameInlet):
    """The examples; they are at their end when the last of them is scored."""

    task: ServedTask | None = None

    def mark(self) -> int:
        """The smallest mark over the partition's sources."""
        mark = super().mark()
        is_scored = self.task is None or self.task.rows.size == 0
        return mark if mark != END or is_scored else BEGINNING


class ServedRole(ExamplesRole):
    """Scores what was answered.

    Args:
        pipeline: the pipeline; its task is no clustering.
        control: resolves sources.
        metrics: of this stream.
        tails: opens P.predictions and P.scores; over Kafka if it is not given.
    """

    name = ROLE
    writes: Mapping[str, FrameSchema] = {}
    ahead_kib = 1_024
    most_rows = 20_000

    def __init__(
        self,
        pipeline: Pipeline,
        control: Control,
        metrics: RoleMetrics,
        tails: Callable[[], Tails] | None = None,
    ) -> None:
        super().__init__(pipeline, control)
        self._metrics = metrics
        self._open_tails = tails or (lambda: open_tails(pipeline))
        self._tails: Tails | None = None
        self._task: ServedTask | None = None  # whose positions the tails follow
        self._next_write_us = 0

    @property
    def is_full(self) -> bool:
        """Whether enough examples wait for their answers."""
        return self._task is not None and self._task.is_full

    def inlet(self, topic: str, partition: int, sources: list[int]) -> ServedInlet:
        """Examples are written by every partition of features."""
        return ServedInlet(self._schema, self._control, SourceMemory(self._control))

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> ServedTask:
        """One scoreboard over all examples."""
        assert isinstance(inlet, ServedInlet)  # noqa: S101 - made by `inlet` above
        pipeline = self._pipeline
        inlet.task = ServedTask(
            pipeline.task,
            tuple(model.name for model in pipeline.models),
            self._place_of,
            pipeline.labels.keep_us,
            pipeline.labels.wait_us,
            LATEST_PATIENCE_US if pipeline.serve.start == "latest" else PATIENCE_US,
            is_split=pipeline.serve.split_to is not None,
            ended=inlet.memory.ended,
            aliases=self._control.aliases,
        )
        return inlet.task

    def _place_of(self, source: int) -> tuple[int, int]:
        claim = self._control.source(source)
        return claim.partition, claim.generation

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Begin at the earliest example there is: what was answered before is not scored any more."""
        LOG.warning("%s: begins anew at the earliest example: %s", self.name, reason)

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Read on what is beside the examples, and tell how it stands."""
        if not partitions:
            self._task = None
            return
        station = partitions[0]
        task = station.task
        assert isinstance(task, ServedTask)  # noqa: S101 - made by `task` above
        tails = self._tails_of(task)
        has_read = self._read_answers(task, tails.answers)
        has_read |= self._read_scores(task, tails.scores)
        task.look(now_us, lambda partition: _is_at_end(tails.answers, partition, task.positions))
        station.has_changed |= has_read
        if now_us >= self._next_write_us:
            self._next_write_us = now_us + WRITE_EVERY_US
            write_served(self._state, figures_of(task, now_us))

    def _tails_of(self, task: ServedTask) -> Tails:
        """Read from the positions of the task at hand, which is another one when the partition comes again."""
        if self._tails is None or task is not self._task:
            if self._tails is not None:
                _close(self._tails)
                self._tails = self._task = None
            tails = self._open_tails()
            try:
                positions, scores_to = tails.answers.begin(task.positions), tails.scores.begin({0: task.scores_to})[0]
            except UnavailableError:  # the next tick opens them anew: what was not begun cannot be read
                _close(tails)
                raise
            self._tails, self._task, task.positions, task.scores_to = tails, task, positions, scores_to
        return self._tails

    def _read_answers(self, task: ServedTask, tail: Tailing) -> bool:
        has_read = False
        for partition in range(tail.partitions):
            room = min(MOST_ANSWERS, MOST_WAITING - task.answers.waiting(partition))
            records = tail.take(partition, room) if room > 0 else None
            if records is not None:
                task.positions[partition] = int(records.offsets[-1]) + 1
                task.hear(partition, records)
                records.release()
                has_read = True
        return has_read

    def _read_scores(self, task: ServedTask, tail: Tailing) -> bool:
        records = None if task.shadowing.is_full else tail.take(0, MOST_RECORDS)
        if records is None:
            return False
        for i in range(records.offsets.size):
            try:
                task.hear_scores(decode_scores(value(records, i) or b""))
            except FrameError:
                self._metrics.incident("score_unread")
        task.scores_to = int(records.offsets[-1]) + 1
        records.release()
        return True


def _close(tails: Tails) -> None:
    tails.answers.close()
    tails.scores.close()


def _is_at_end(tail: Tailing, partition: int, positions: Mapping[int, int]) -> bool:
    """Whether all answers of a partition there are were read; of one that the topic has not there never are any."""
    if partition >= tail.partitions:
        return True
    return 0 <= tail.end(partition) <= positions[partition]


def open_tails(pipeline: Pipeline) -> Tails:
    """Open P.predictions and P.scores over Kafka."""
    topics = Topics(pipeline.kafka)
    try:
        partitions = topics.partitions(f"{pipeline.name}.predictions")
    finally:
        topics.close()
    answers = Tail(pipeline.kafka, f"{pipeline.name}.predictions", partitions)
    return Tails(answers, Tail(pipeline.kafka, f"{pipeline.name}.scores", 1))
