"""Whole workers over Kafka in memory, with a clock that the test moves and a role that copies rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from consumers.features_role import FeaturesRole
from consumers.ingest import IngestRole
from consumers.inlet import FrameInlet, locate_each
from consumers.learn_role import LearnRole
from consumers.role import Inlet, OpenPartition, Pieces, Role, Task
from consumers.saving import Writer, at_once
from consumers.station import Shop
from consumers.worker import Settings, Worker
from streams import frames
from streams.control import Claim, Control
from streams.frames import EVENT, Batch, FrameSchema, Rows
from streams.hashing import ENTITY_SEED, hash_bytes
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.records import Records
from streams.snapshots import State
from streams.sources import SourceMemory
from streams.state_folder import state_of
from tests.memory_kafka import Broker, MemoryControlLog, MemoryInbox, MemoryOutbox, held
from tests.rows import log_rows, pipeline

START_S = 1_700_000_000.0


class CopyTask:
    """Copies event rows under a source and sequence of its own."""

    def __init__(self, partition: int, source: int) -> None:
        self.partition, self.source = partition, source
        self.sequence = 0
        self.steps: list[int] = []

    def process(self, batch: Batch) -> list[Rows]:
        self.steps.append(batch.rows.num_rows)
        index = np.flatnonzero(batch.rows.numbers("kind") == EVENT)
        if not index.size:
            return []
        columns = {
            "kind": np.full(index.size, EVENT, np.int8),
            "source": np.full(index.size, self.source, np.int32),
            "sequence": np.arange(self.sequence, self.sequence + index.size),
            "time": batch.rows.numbers("time")[index],
            "id": batch.rows.take(index).text("id"),
        }
        self.sequence += index.size
        return [
            Rows("features", self.partition, frames.build(SCHEMA, columns, index.size), np.arange(index.size), index)
        ]

    def state(self) -> State:
        return {"sequence": np.array(self.sequence)}

    def restore(self, state: State) -> None:
        self.sequence = int(state["sequence"])

    def is_sound(self) -> bool:
        return True

    def measure(self, metrics: RoleMetrics) -> None:
        pass


SCHEMA = frames.features_schema(())


class CopyRole:
    """P.log to P.features, row by row: what every role with state has in common."""

    name = "copy"
    has_state = True
    is_renewable = False
    start = "earliest"
    gathers = 0.0
    ahead_kib = 1_024
    most_rows = 10_000
    is_full = False
    answers_to: str | None = None

    def __init__(self, declared: Pipeline, control: Control) -> None:
        self._control = control
        self.inputs: tuple[str, ...] = ("p.log",)
        self.reads: FrameSchema | None = frames.log_schema(declared)
        self.writes: Mapping[str, FrameSchema] = {"features": SCHEMA}
        self.ticks: list[int] = []

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        return [Claim("copy", topic_id, partition, "rows", generation, siblings, is_gapless=True)]

    def inlet(self, topic: str, partition: int, sources: list[int]) -> FrameInlet:
        assert self.reads is not None
        return FrameInlet(self.reads, self._control, SourceMemory(self._control, is_log=True))

    def decode(self, found: Sequence[tuple[Inlet, Records]]) -> list[Pieces]:
        return locate_each(found)

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> CopyTask:
        return CopyTask(partition, sources[0])

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        raise NotImplementedError

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        return [("features", partition)]

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        self.ticks.append(now_us)


class Office:
    """One broker, and workers that are started, crashed and replaced at will."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.now = START_S
        self.pipeline = pipeline(state=directory, **changes)
        self.counts = {"events": 2, "labels": 1, "p.log": 2, "p.features": 2, "p.examples": 1}
        self.broker = Broker(lambda: self.now, self.counts)

    def worker(
        self, role: str = "copy", partitions: Sequence[tuple[str, int]] = (), writer: Writer = at_once, **settings: Any
    ) -> Worker:
        """Start a worker with these partitions; it reads everything there is in each poll."""
        control = Control(MemoryControlLog(self.broker, "p.control"))
        outbox, metrics = MemoryOutbox(self.broker), RoleMetrics(role, "p")
        is_replay = settings.get("is_replay", False)
        made: Role
        if role == "ingest":
            made = IngestRole(self.pipeline, outbox, metrics, is_replay=is_replay)
        elif role.startswith("features"):
            made = FeaturesRole(self.pipeline, control, int(role.removeprefix("features").removeprefix("-") or 1))
        elif role.startswith("learn."):
            model = next(model for model in self.pipeline.models if f"learn.{model.name}" == role)
            made = LearnRole(self.pipeline, model, control, outbox, metrics)
        else:
            made = CopyRole(self.pipeline, control)
        inbox = EagerInbox(self.broker, f"p.{role}")
        snapshots = state_of(self.pipeline) / "snapshots"
        shop = Shop(made, self.pipeline, inbox, control, self.broker, self.broker, snapshots)
        worker = Worker(shop, outbox, metrics, Settings(**settings), lambda: self.now, writer)
        worker.start()
        if partitions:
            inbox.give(list(partitions))
        return worker

    def publish(self, topic: str, partition: int, record: dict[str, Any] | None, **message: Any) -> None:
        """Write a raw record; `at` in seconds after the start becomes the event's time."""
        value = None if record is None else msgspec.json.encode(record)
        self.broker.append(topic, partition, value, b"k", **message)

    def event(self, name: str, partition: int = 0, at: float = 0.0, key: str = "k", stamp: float | None = None) -> None:
        """Publish an event; `at` and `stamp` are seconds after the start."""
        record = {"id": name, "key": key, "at": int((START_S + at) * 1e6)}
        stamp_ms = None if stamp is None else int((START_S + stamp) * 1000)
        self.publish("events", partition, record, stamp_ms=stamp_ms)

    def rows(self, topic: str, partition: int) -> list[dict[str, Any]]:
        """All rows of an inner topic's partition, marks too."""
        schema = {"p.log": frames.log_schema(self.pipeline), "p.features": SCHEMA}[topic]
        found: list[dict[str, Any]] = []
        for record in self.broker.logs[topic, partition]:
            found += frames.decode(record.value_ or b"", schema).to_arrow().to_pylist()
        return found

    def ids(self, topic: str, partition: int) -> list[str]:
        """Ids of the rows of a partition, without marks."""
        return [row["id"] for row in self.rows(topic, partition) if row["kind"] == EVENT]

    def marks(self, topic: str, partition: int) -> list[float]:
        """Times of the marks of a partition, in seconds after the start."""
        return [row["time"] / 1e6 - START_S for row in self.rows(topic, partition) if row["kind"] == frames.MARK]

    def log(self, partition: int, rows: list[dict[str, Any]]) -> None:
        """Write a frame of log rows as ingest would, under a source claimed for it."""
        schema = frames.log_schema(self.pipeline)
        payload = log_rows(rows).message()
        self.broker.append("p.log", partition, payload, None, [(frames.SCHEMA_HEADER, schema.fingerprint.encode())])

    def source(self, kind: str = "events", partition: int = 0, siblings: int = 1) -> int:
        """Claim a source of ingest."""
        claim = Claim("ingest", "uuid", partition, kind, 0, siblings, is_gapless=False)
        return Control(MemoryControlLog(self.broker, "p.control")).claim(claim)

    def commit(self, role: str, topic: str, partition: int) -> tuple[int, str] | None:
        """What the group has committed."""
        return self.broker.commits.get((f"p.{role}", topic, partition))


class EagerInbox(MemoryInbox):
    """A consumer that gives everything there is."""

    def __init__(self, broker: Broker, group: str) -> None:
        super().__init__(broker, group)
        self.is_closed = False

    def poll(self, wanted: Mapping[tuple[str, int], int], timeout_s: float) -> list[Records]:
        self.wanted = dict(wanted)
        keys = [key for key in sorted(wanted) if key in self.positions and key not in self.held_back]
        parts = [self.take(key, wanted[key]) for key in keys]
        return [held(part) for part in parts if part]

    def close(self) -> None:
        self.is_closed = True
        super().close()


def inbox(worker: Worker) -> EagerInbox:
    """The worker's consumer."""
    found = worker.shop.inbox
    assert isinstance(found, EagerInbox)
    return found


def key_of(partition: int) -> str:
    """A key that lives in a partition of two."""
    return next(key for key in map(str, range(100)) if (hash_bytes(key.encode(), ENTITY_SEED) >> 32) % 2 == partition)
