"""Serve: feature vectors in, predictions out, each answered once.

Answers are JSON records on P.predictions, in the order of the features. After a crash the role reads what it had
already answered and skips it (PROTOCOL 24); only a zombie beside its successor can answer twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.inlet import FrameInlet
from consumers.role import Inlet, OpenPartition, Task
from serving.champion import Champion
from streams import frames
from streams.control import Claim, Control
from streams.frames import EVENT, Batch, FrameSchema, Outgoing
from streams.metrics import RoleMetrics
from streams.snapshots import State
from streams.sources import SourceMemory

Clock = Callable[[], float]
_MANY = 1_000_000_000_000  # separates generation and number in one int64


class Answer(msgspec.Struct):
    """One prediction, as published. `partition`, `generation` and `number` are the event's name inside Millrace."""

    id: str
    key: str | None
    time_us: int
    prediction: int
    probability: float
    model: str
    version: str
    generation: int
    partition: int
    number: int
    latency_ms: float | None


class _Name(msgspec.Struct):
    """What is read back of an answer."""

    generation: int
    partition: int
    number: int


_encode = msgspec.json.Encoder().encode_lines
_read_name = msgspec.json.Decoder(_Name).decode


class ServeTask:
    """Answers one partition.

    Args:
        partition: of P.features, and of P.predictions too.
        champion: the model in memory, shared by all partitions of the process.
        generation_of: resolves a source number to its generation.
        clock: wall clock in seconds, for latencies.
        metrics: the role's metrics.
    """

    def __init__(
        self,
        partition: int,
        champion: Champion,
        generation_of: Callable[[int], int],
        clock: Clock,
        metrics: RoleMetrics,
    ) -> None:
        self._partition = partition
        self._champion = champion
        self._generation_of = generation_of
        self._clock = clock
        self._metrics = metrics.of(champion.name)
        self._skip = np.empty(0, np.int64)
        self._passed = np.array([-1], np.int64)

    def process(self, batch: Batch) -> Sequence[Outgoing]:
        """Answer the events of a batch with one call of the model."""
        rows = batch.rows
        index = np.flatnonzero(frames.numbers(rows, "kind") == EVENT)
        if not index.size:
            return []
        name = self._generations(frames.numbers(rows, "source")[index]) * _MANY + frames.numbers(rows, "number")[index]
        self._passed[0] = max(int(self._passed[0]), int(name.max()))
        if self._skip.size:
            is_new = ~np.isin(name, self._skip)
            index, name = index[is_new], name[is_new]
            self._forget_passed()
            if not index.size:
                return []
        return [self._answer(batch, index, name)]

    def _generations(self, source: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """The generation each row was written in; a poll may hold the last rows of one and the first of the next."""
        numbers, inverse = np.unique(source, return_inverse=True)
        generations = np.array([self._generation_of(number) for number in numbers.tolist()], np.int64)
        found: npt.NDArray[np.int64] = generations[inverse]
        return found

    def _answer(self, batch: Batch, index: npt.NDArray[np.int64], name: npt.NDArray[np.int64]) -> Outgoing:
        rows = batch.rows
        picked = slice(int(index[0]), int(index[-1]) + 1) if index[-1] - index[0] + 1 == index.size else index
        probability = self._champion.predict(frames.matrix(rows)[picked])
        produced = frames.numbers(rows, "produced")[picked]
        now_us = int(self._clock() * 1e6)
        latency = np.where(produced >= 0, (now_us - produced) / 1000.0, np.nan)
        self._metrics.predicted(produced, now_us)
        ids, keys = rows.column("id").to_pylist(), rows.column("key").to_pylist()
        if len(ids) != index.size:
            ids, keys = [ids[i] for i in index.tolist()], [keys[i] for i in index.tolist()]
        model, version, partition = self._champion.name, self._champion.version, self._partition
        values = zip(
            ids,
            keys,
            frames.numbers(rows, "time")[picked].tolist(),
            (probability >= 0.5).astype(np.int64).tolist(),
            probability.tolist(),
            (name // _MANY).tolist(),
            (name % _MANY).tolist(),
            np.round(latency, 3).tolist(),
            strict=True,
        )
        answers = [
            Answer(id_, key, at, p, q, model, version, generation, partition, n, ms)
            for id_, key, at, p, q, generation, n, ms in values
        ]
        lines = _encode(answers).split(b"\n")
        lines.pop()
        return Outgoing("predictions", self._partition, lines, [k.encode() for k in keys], index)

    # What was answered before a crash

    def answered(self, values: list[bytes]) -> None:
        """Take the records found in the output since the snapshot; their events are skipped when they pass."""
        names = [_read_name(value) for value in values]
        ours = [n.generation * _MANY + n.number for n in names if n.partition == self._partition]
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
    ) -> None:
        self.inputs: tuple[str, ...] = (topic,)
        self.start = start
        self._schema = schema
        self.reads: FrameSchema | None = schema
        self._control = control
        self._champion = champion
        self._metrics = metrics
        self._clock = clock

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        """None: answers carry their event's name."""
        return []

    def inlet(self, topic: str, partition: int, sources: list[int]) -> FrameInlet:
        """A partition of P.features is written by one source."""
        return FrameInlet(self._schema, self._control, SourceMemory(self._control, heard_needed=1))

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> ServeTask:
        """The answers of one partition."""
        return ServeTask(partition, self._champion, self._generation_of, self._clock, self._metrics)

    def _generation_of(self, source: int) -> int:
        return self._control.source(source).generation

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Never: features that are gone stay unanswered only if that is allowed."""

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        """None: nobody reads marks behind serve."""
        return []

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Follow the champion's versions."""
        self._champion.follow(now_us)
