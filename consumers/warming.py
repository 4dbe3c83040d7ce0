"""Warming: a role's kernels are loaded before it joins its group, so that the first event does not wait for them.

Compiled code comes from the disk cache in about a second, and is compiled in ten or more where there is none yet. A
throw-away role over a made-up control topic takes a few made-up rows the way real ones go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from consumers.role import Role
from streams import frames
from streams.control import Claim, Control
from streams.frames import EVENT, LABEL, MARK, SCHEMA_HEADER, FrameSchema, Rows, Spread
from streams.layouts import Text
from streams.memory import HeapBytes
from streams.merging import Intake, spread_order
from streams.pipeline import Events, Labels, Pipeline
from streams.records import Headers, HeldRecords, Packed, Payload, Record, Records
from streams.tables import Stack, Table

ROWS = 4


class _NoLog:
    """A control topic on which everything is claimed at once and nothing stays."""

    def __init__(self) -> None:
        self._new: list[tuple[int, str, bytes | None]] = []
        self._end = 0

    def append(self, key: str, value: bytes) -> None:
        self._new.append((self._end, key, value))
        self._end += 1

    def read_new(self) -> list[tuple[int, str, bytes | None]]:
        new, self._new = self._new, []
        return new


class NoOutbox:
    """Stands in for the producer: what a role sends by itself while it is warmed goes nowhere."""

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Drop a record."""

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        """Drop records."""

    def give(self, topic: str, partition: int, value: HeapBytes, headers: Headers) -> None:
        """Drop a frame."""

    def poll(self) -> None:
        """Nothing is told."""

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


def warm(make: Callable[[Control], Role], pipeline: Pipeline) -> None:
    """Take made-up rows through inlet, task and framing of a throw-away role."""
    control = Control(_NoLog())
    role = make(control)
    source = control.claim(Claim("warming", "", 0, "rows", 0, 1, is_gapless=False))
    for topic in role.inputs:
        claims = role.claims(topic, "", 0, 0, 1)
        sources = [control.claim(claim) for claim in claims]
        inlet = role.inlet(topic, 0, sources)
        task = role.task(inlet, 0, sources, 0)
        intake = Intake(0, 0)
        for records in _records(role.reads, source, pipeline, topic):
            intake.add(*inlet.decode(records), end=1)
        while intake.rows:
            rows, keys = intake.take(min(intake.rows, ROWS + 1))
            for output in task.process(inlet.admit(rows)[0]):
                if isinstance(output, Spread):
                    spread_order([keys], [output.targets], [intake], output.partitions)
                    list(frames.encode(Stack([output.table]), np.arange(output.table.num_rows)))
                elif isinstance(output, Rows):
                    list(frames.encode(Stack([output.table]), output.picked))
        task.restore(task.state())


def _records(schema: FrameSchema | None, source: int, pipeline: Pipeline, topic: str) -> list[Records]:
    if schema is not None:
        headers = ((SCHEMA_HEADER, schema.fingerprint.encode()),)
        payloads = [_rows(schema, source, kind).message() for kind in (EVENT, LABEL, MARK)]
        made = [Record(payload, at, 0, None, headers) for at, payload in enumerate(payloads)]
        return [HeldRecords(topic, 0, made)]
    # Of the first moment of 1970, as their content says: no time lies in its record's future.
    parts = (pipeline.events, pipeline.labels) if pipeline.labels.is_declared else (pipeline.events,)
    declared = [part for part in parts if part.topic == topic]
    payloads = [made for part in declared for made in (_json(part), _careful(_json(part)))]
    return [HeldRecords(topic, 0, [Record(payload, at, 0)]) for at, payload in enumerate(payloads)]


def _rows(schema: FrameSchema, source: int, kind: int) -> Table:
    """Made-up rows: the events' ids are the labels', so that labels find them."""
    number = np.arange(ROWS, dtype=np.int64)
    names = Text(np.arange(ROWS + 1, dtype=np.int32), np.frombuffer(b"abcd", np.uint8), np.empty(0, np.uint8))
    columns: dict[str, Any] = {
        "kind": np.full(ROWS, kind, np.int8),
        "source": np.full(ROWS, source, np.int32),
        "sequence": number + ROWS * kind,
        "time": number,
        "id": names,
        "key": names,
        "number": number,
    }
    if kind == LABEL:
        columns |= {"label": np.ones(ROWS), "outcome": np.zeros(ROWS, np.int8)}
    known: Sequence[str] = schema.arrow.names
    return frames.build(schema, {name: column for name, column in columns.items() if name in known}, ROWS)


def _json(part: Events | Labels) -> bytes:
    record: dict[str, Any] = {}
    time = "1970-01-01T00:00:00Z" if part.time_unit == "rfc3339" else 0
    values: list[tuple[tuple[str, ...] | None, Any]] = [(part.id, "a"), (part.key, "a"), (part.time, time)]
    values += [(part.value, None)] if isinstance(part, Labels) else [(field.path, None) for field in part.fields]
    for path, value in values:
        _put(record, path, value)
    for condition in part.where:
        _put(record, condition.path, condition.value)
    return msgspec.json.encode(record)


def _careful(payload: bytes) -> bytes:
    """Give the same record, but with an escape in it, so that it goes the way of those that are not plain."""
    return payload[:1] + b'"\\u0000":0,' + payload[1:]


def _put(record: dict[str, Any], path: tuple[str, ...] | None, value: object) -> None:
    for name in (path or ())[:-1]:
        record = record.setdefault(name, {})
    if path:
        record[path[-1]] = value
