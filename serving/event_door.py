"""Events that come over HTTP: checked as ingest would, before they are published, so that who sends one is told."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from consumers.inlet_raw import RecordInlet
from streams.decoding import Bad
from streams.frames import EVENT, log_schema
from streams.pipeline import Pipeline
from streams.records import HeldRecords, Record, Records
from streams.tables import Table


class EventName(NamedTuple):
    """What an event is called; an id that follows from where the record will lie is not known yet."""

    id: str | None
    key: str | None


class RefusedError(ValueError):
    """A record is no event of this pipeline; `error` is the class that its dead letter would have."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


class EventDoor:
    """Decodes one record at a time with ingest's own decoder. Safe to call from several threads.

    Args:
        pipeline: says what an event is.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._topic, self._has_id = pipeline.events.topic, pipeline.events.id is not None
        self._bad: list[Bad] = []
        self._lock = threading.Lock()
        self._inlet = RecordInlet(pipeline, self._topic, 0, {"events": 0}, log_schema(pipeline), self._bury)

    def check(self, payload: bytes) -> EventName:
        """Give the event's id and key.

        Raises:
            RefusedError: it would become a dead letter, or be passed over.
        """
        with self._lock:
            self._bad.clear()
            stamp_us = int(time.time() * 1e6)
            rows = self._inlet.decode(HeldRecords(self._topic, 0, [Record(payload, 0, stamp_us)])).rows
            if self._bad:
                raise RefusedError(*self._bad[0])
            for row in range(rows.num_rows):
                if rows.numbers("kind")[row] == EVENT:
                    key = _text(rows, "key", row)
                    return EventName(_text(rows, "id", row), key) if self._has_id else EventName(None, key)
            raise RefusedError("other", "the record is no event: [events] where does not hold")

    def _bury(self, _records: Records, _i: int, bad: Bad) -> None:
        self._bad.append(bad)


def _text(rows: Table, column: str, row: int) -> str | None:
    text = rows.text(column)
    if text.valid.size and not text.valid[row // 8] >> (row % 8) & 1:
        return None
    return bytes(text.data[text.offsets[row] : text.offsets[row + 1]]).decode()
