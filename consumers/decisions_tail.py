"""The tail of P.decisions: what candidates and trainings have decided, read on as it comes, without waiting."""

from __future__ import annotations

from typing import Protocol

from streams.kafka import BEGINNING, Reader
from streams.pipeline import Pipeline

MOST_RECORDS = 1_000  # in one look


class Decisions(Protocol):
    """What reads P.decisions; the tests have one in memory."""

    def read(self, offset: int) -> tuple[list[bytes], int]:
        """Give what there is from an offset on, and the offset behind it; 0 is the earliest record there is."""


class DecisionsTail:
    """P.decisions over Kafka, outside any group: the offset is the caller's to keep."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._topic = f"{pipeline.name}.decisions"
        self._reader = Reader(pipeline.kafka)
        self._next = -1  # what the reader gives next

    def read(self, offset: int) -> tuple[list[bytes], int]:
        """Give what was fetched from an offset on; another look finds what comes later."""
        if offset != self._next:
            self._reader.assign(self._topic, {0: offset or BEGINNING})
        messages = self._reader.poll(MOST_RECORDS, 0.0)
        self._next = messages[-1].offset() + 1 if messages else offset
        return [message.value() or b"" for message in messages], self._next
