"""Serve: feature vectors in, predictions out, each answered once.

Answers are JSON records on P.predictions, in the order of the features. After a crash the role reads what it had
already answered and skips it (PROTOCOL 24); only a zombie beside its successor can answer twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from consumers.inlet import FrameInlet, locate_each
from consumers.role import Inlet, OpenPartition, Pieces, Task
from serving.answers import COUNT, NEWEST, Asked, Frame, Picked, frame_of, pick_kernel, render
from serving.candidate import Candidate
from serving.champion import Champion
from serving.explaining import explained
from serving.key_rows import KeyRows
from serving.split import in_split
from streams.control import Claim, Control
from streams.event_numbers import MANY
from streams.frames import Batch, FrameSchema, Outgoing
from streams.metrics import RoleMetrics
from streams.records import Records
from streams.snapshots import State
from streams.sources import SourceMemory

Clock = Callable[[], float]
Keep = Callable[[KeyRows], None]


class _Name(msgspec.Struct):
    """What is read back of an answer."""

    generation: int
    partition: int
    number: int


class _Framed(NamedTuple):
    """What answers of a candidate's version share, and where they are counted."""

    version: str
    frame: Frame
    metrics: RoleMetrics


_read_name = msgspec.json.Decoder(_Name).decode


class ServeTask:
    """Answers one partition.

    Args:
        partition: of P.features, and of P.predictions too.
        champion: who answers, shared by all partitions of the process; it changes between batches.
        generation_of: resolves a source number to its generation.
        clock: wall clock in seconds, for latencies.
        metrics: the role's metrics.
        keep: takes every answered row for the online store, without waiting; None without a store.
        is_explained: answers say what moved them.
    """

    def __init__(
        self,
        partition: int,
        champion: Champion,
        generation_of: Callable[[int], int],
        clock: Clock,
        metrics: RoleMetrics,
        keep: Keep | None = None,
        *,
        is_explained: bool = False,
    ) -> None:
        self._is_explained = is_explained
        self._partition = partition
        self._champion = champion
        self._generation_of = generation_of
        self._clock = clock
        self._metrics = metrics
        self._keep = keep
        self._sources = np.empty(0, np.int32)  # met so far, and the generation of each
        self._generations = np.empty(0, np.int64)
        self._frames: dict[str, _Framed] = {}  # by candidate, of its last version
        self._skip = np.empty(0, np.int64)
        self._passed = np.array([-1], np.int64)

    def process(self, batch: Batch) -> Sequence[Outgoing]:
        """Answer the events of a batch with one call of the model, two where traffic is split."""
        rows = batch.rows
        asked = Asked(
            rows.numbers("time"),
            rows.numbers("produced"),
            rows.text_at("id"),
            rows.text_at("key"),
        )
        picked = self._pick(batch, asked)
        if picked.row.size and self._skip.size:
            is_new = ~np.isin(picked.name, self._skip)
            picked = picked._replace(row=picked.row[is_new], name=picked.name[is_new])
            self._forget_passed()
        parts = self._parts(batch, picked)
        return [self._answer(batch, asked, *part) for part in parts if part[0].row.size]

    def _parts(self, batch: Batch, picked: Picked) -> list[tuple[Picked, Candidate, str]]:
        """Say who answers which of the events, and as what."""
        champion = self._champion
        answering, other = champion.answering, champion.split
        if other is None:
            return [(picked, answering, champion.standing)]
        is_other = in_split(batch.rows.text("key"), batch.rows.text("id"), champion.share)[picked.row]
        mine, others = (
            picked._replace(row=picked.row[is_part], name=picked.name[is_part]) for is_part in (~is_other, is_other)
        )
        return [(mine, answering, champion.standing), (others, other, "split")]

    def _pick(self, batch: Batch, asked: Asked) -> Picked:
        """Find the events and pass them; a poll may hold the last rows of one generation and the first of the next."""
        rows = batch.rows
        kind, source, number = (rows.numbers(name) for name in ("kind", "source", "number"))
        picked = Picked.room(rows.num_rows)
        while (
            stop := pick_kernel(kind, source, number, self._sources, self._generations, asked.id, asked.key, picked)
        ) < rows.num_rows:
            self._sources = np.append(self._sources, source[stop])
            self._generations = np.append(self._generations, self._generation_of(int(source[stop])))
        count = picked.told[COUNT]
        self._passed[0] = max(self._passed[0], picked.told[NEWEST])
        return picked._replace(row=picked.row[:count], name=picked.name[:count])

    def _answer(self, batch: Batch, asked: Asked, picked: Picked, candidate: Candidate, standing: str) -> Outgoing:
        row, x_BF = picked.row, batch.rows.matrix()
        first, last = int(row[0]), int(row[-1])
        if last - first + 1 == row.size:
            x_BF = x_BF[first : last + 1]
        else:
            x_BF = x_BF[row]
            x_BF.flags.writeable = False  # like a view of the batch: another type of array compiles another kernel
        score_BS = candidate.predict(x_BF).reshape(row.size, candidate.task.outputs)
        framed = self._framed(candidate.name, candidate.version)
        rendered = render(asked, picked, score_BS, framed.frame, int(self._clock() * 1e6))
        framed.metrics.predicted(rendered.counts, rendered.latency_s)
        framed.metrics.predictions(standing, row.size)
        if self._is_explained:
            rendered = explained(rendered, candidate.explain(x_BF))
        if self._keep is not None:
            self._keep(KeyRows(rendered.keys, rendered.values, picked.name, asked.time[row], x_BF))
        return Outgoing("predictions", self._partition, rendered.values, rendered.keys, row)

    def _framed(self, name: str, version: str) -> _Framed:
        framed = self._frames.get(name)
        if framed is None or framed.version != version:
            frame = frame_of(name, version, self._partition, self._champion.task)
            framed = self._frames[name] = _Framed(version, frame, self._metrics.of(name))
        return framed

    # What was answered before a crash

    def answered(self, values: list[bytes]) -> None:
        """Take the records found in the output since the snapshot; their events are skipped when they pass."""
        names = [_read_name(value) for value in values]
        ours = [n.generation * MANY + n.number for n in names if n.partition == self._partition]
        self._skip = np.unique(np.array(ours, np.int64))
        self._forget_passed()

    def _forget_passed(self) -> None:
        self._skip = self._skip[self._skip > self._passed[0]]

    def is_skip_done(self) -> bool:
        """Whether everything found answered has been passed."""
        return self._skip.size == 0

    def state(self) -> State:
        """The last event passed."""
        return {"passed": self._passed.copy()}

    def restore(self, state: State) -> None:
        """Take back the last event passed."""
        self._passed = state["passed"].copy()

    def is_sound(self) -> bool:
        """Always."""
        return True

    def measure(self, metrics: RoleMetrics) -> None:
        """Nothing beside what every answer tells."""


class ServeRole:
    """The serve role of a pipeline."""

    name = "serve"
    has_state = True
    is_renewable = False
    gathers = 0.0
    ahead_kib = 2_048
    most_rows = 10_000
    is_full = False
    answers_to: str | None = "predictions"
    writes: Mapping[str, FrameSchema] = {}

    def __init__(
        self,
        topic: str,
        schema: FrameSchema,
        control: Control,
        champion: Champion,
        metrics: RoleMetrics,
        start: str,
        clock: Clock = time.time,
        keep: Keep | None = None,
        *,
        is_explained: bool = False,
    ) -> None:
        self._is_explained = is_explained
        self.inputs: tuple[str, ...] = (topic,)
        self.start = start
        self._schema = schema
        self.reads: FrameSchema | None = schema
        self._control = control
        self._champion = champion
        self._metrics = metrics
        self._clock = clock
        self._keep = keep

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        """None: answers carry their event's name."""
        return []

    def inlet(self, topic: str, partition: int, sources: list[int]) -> FrameInlet:
        """A partition of P.features is written by one source."""
        return FrameInlet(self._schema, self._control, SourceMemory(self._control, heard_needed=1))

    def decode(self, found: Sequence[tuple[Inlet, Records]]) -> list[Pieces]:
        """Frames stay in their records until their rows are taken."""
        return locate_each(found)

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> ServeTask:
        """The answers of one partition."""
        return ServeTask(
            partition,
            self._champion,
            self._generation_of,
            self._clock,
            self._metrics,
            self._keep,
            is_explained=self._is_explained,
        )

    def _generation_of(self, source: int) -> int:
        return self._control.source(source).generation

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Never: features that are gone stay unanswered only if that is allowed."""

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        """None: nobody reads marks behind serve."""
        return []

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Follow promotions and versions."""
        self._champion.follow(now_us)
