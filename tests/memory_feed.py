"""Partitions read by hand, in memory: what backfill and audit go over in tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from streams import frames
from streams.control import Control
from streams.frames import FrameSchema, log_schema
from streams.pipeline import Pipeline
from streams.records import Records
from tests.featurizing import Clocks
from tests.memory_kafka import Record, held
from tests.rows import batch_of, claim_of

Row = dict[str, Any]


class MemoryFeed:
    """Gives records in polls of a few; records before `start` are there no more."""

    def __init__(self, records: Sequence[Record], start: int = 0, most: int = 3) -> None:
        self.start = self.position = start
        self._records, self._most = records, most

    def read(self, end: int) -> Generator[Records]:
        while self.position < end:
            stop = min(end, self.position + self._most)
            part = self._records[self.position : stop]
            self.position = stop
            yield held(part)


def frame(schema: FrameSchema, rows: list[Row], offset: int = 0) -> Record:
    """A record with these rows of a topic."""
    header = [(frames.SCHEMA_HEADER, schema.fingerprint.encode())]
    return Record(schema.topic, 0, offset, 0, None, batch_of(schema, rows).message(), header)


def rows_of(schema: FrameSchema, record: Record) -> list[Row]:
    """The rows of a record."""
    found: list[Row] = frames.decode(record.value_ or b"", schema).to_arrow().to_pylist()
    return found


def changed(schema: FrameSchema, record: Record, change: Callable[[list[Row]], list[Row]]) -> Record:
    """The same record with other rows."""
    return frame(schema, change(rows_of(schema, record)), record.offset_)


def sourced(control: Control, rows: list[Row]) -> tuple[list[Row], Clocks]:
    """Give rows as ingest writes them, each from one of two sources, and the clocks as they stand after each.

    Marks come from the events' and from the labels' source in turn.
    """
    events = control.claim(claim_of(stream="ingest", topic_id="e", kind="events", is_gapless=False))
    labels = control.claim(claim_of(stream="ingest", topic_id="l", kind="labels", is_gapless=False))
    marks = {events: int(frames.BEGINNING), labels: int(frames.BEGINNING)}
    next_: dict[int, int] = {events: 0, labels: 0}
    made, clocks, mark_source = [], [], labels
    for row in rows:
        source = {"event": events, "label": labels}.get(row["kind"], mark_source)
        if row["kind"] == "mark":
            mark_source = events if mark_source == labels else labels
            marks[source] = max(marks[source], row["time"])
            made.append({**row, "source": source})
        else:
            made.append({**row, "source": source, "sequence": next_[source]})
            next_[source] += 1
        clocks.append((marks[labels], min(marks.values())))
    return made, clocks


def log_of(pipeline: Pipeline, rows: list[Row], sizes: Sequence[int]) -> list[Record]:
    """Cut rows into records of these sizes, in turn."""
    records: list[Record] = []
    at = 0
    while at < len(rows):
        size = sizes[len(records) % len(sizes)]
        records.append(frame(log_schema(pipeline), rows[at : at + size], len(records)))
        at += size
    return records
