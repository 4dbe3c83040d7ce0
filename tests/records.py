"""Raw records, good ones to be spoiled, and a desk where one raw partition is decoded."""

from __future__ import annotations

import json
from typing import Any

from consumers.inlet_raw import RecordInlet
from streams import frames
from streams.decoding import Bad
from streams.pipeline import Condition, Pipeline
from tests.memory_kafka import Record, held
from tests.rows import events, labels, pipeline

NOW_MS = 1_700_000_000_000
NOW_US = NOW_MS * 1000
EVENT_RECORD: dict[str, Any] = {
    "id": "e1", "key": "k1", "at": NOW_US, "amount": 2.5, "shop": "a", "is_new": True, "route": {"miles": 7}
}  # fmt: skip
LABEL_RECORD: dict[str, Any] = {"id": "e1", "key": "k1", "at": NOW_US, "y": 1}
ABSENT = object()


class Desk:
    """An inlet of one raw partition and the dead letters it made."""

    def __init__(self, declared: Pipeline, topic: str = "events", kinds: tuple[str, ...] = ("events",)) -> None:
        self.dead: list[tuple[int, Bad]] = []
        sources = {kind: number for number, kind in enumerate(("events", "labels")) if kind in kinds}
        schema = frames.log_schema(declared)
        self.topic = topic
        self.inlet = RecordInlet(
            declared,
            topic,
            3,
            sources,
            schema,
            lambda records, i, why: self.dead.append((int(records.offsets[i]), why)),
        )
        self.next = 10

    def take(self, *records: Any, stamp_ms: int = NOW_MS) -> list[dict[str, Any]]:
        """Decode records (JSON values, bytes, or whole messages) and give the rows; the account must hold."""
        messages = [self.message(record, stamp_ms) for record in records]
        decoded = self.inlet.decode(held(messages))
        inlet = self.inlet
        assert inlet.records == inlet.ignored + inlet.dead + inlet.taken
        assert inlet.dead == len(self.dead)
        assert decoded.offsets.tolist() == sorted(decoded.offsets.tolist())
        assert decoded.rows.num_rows == decoded.offsets.size == decoded.stamps.size
        rows: list[dict[str, Any]] = decoded.rows.to_arrow().to_pylist()
        return rows

    def message(self, record: Any, stamp_ms: int = NOW_MS, headers: Any = None) -> Record:
        """The next message of the partition."""
        if isinstance(record, Record):
            return record
        value = record if isinstance(record, bytes | None) else json.dumps(record).encode()
        self.next += 1
        return Record(self.topic, 3, self.next - 1, stamp_ms, b"kafka-key", value, headers)

    def mark(self, text: bytes | None) -> Record:
        """A publisher's mark."""
        return self.message(None, headers=[("millrace-mark", text)])

    @property
    def errors(self) -> list[str]:
        """Error classes of the dead letters so far."""
        return [why.error for _, why in self.dead]


def event(**changes: Any) -> dict[str, Any]:
    """A good event with some values changed or absent."""
    return {name: value for name, value in {**EVENT_RECORD, **changes}.items() if value is not ABSENT}


def label(**changes: Any) -> dict[str, Any]:
    """A good label with some values changed or absent."""
    return {name: value for name, value in {**LABEL_RECORD, **changes}.items() if value is not ABSENT}


def events_desk(**changes: Any) -> Desk:
    """A partition of the events' topic."""
    return Desk(pipeline(events=events(**changes)))


def labels_desk(**changes: Any) -> Desk:
    """A partition of the labels' topic."""
    return Desk(pipeline(labels=labels(**changes)), "labels", ("labels",))


def both_desk() -> Desk:
    """One topic with events and labels, told apart by `where`."""
    one = pipeline(
        events=events(where=(Condition(("is", "event"), value=True),)),
        labels=labels(topic="events", where=(Condition(("is", "label"), value=True),)),
    )
    return Desk(one, "events", ("events", "labels"))
