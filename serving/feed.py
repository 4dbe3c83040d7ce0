"""The records of one partition, read by hand from its first one on: what backfill and audit go over."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple, Protocol

from streams.kafka import Message, Reader
from streams.records import HeldRecords, Record, Records

POLL_FRAMES = 4_000  # of one poll, when they are small; large ones are as many as the client fetches ahead (4 MiB)
POLL_S = 0.5


class Bounds(NamedTuple):
    """What a partition holds: its first offset, and the offset after its last record."""

    start: int
    end: int


class Feed(Protocol):
    """Gives the records of one partition in order, as far as it is asked to."""

    start: int  # the first offset there is

    def read(self, end: int) -> Generator[Records]:
        """Yield what has not been given yet of the records before `end`, as they come."""


class KafkaFeed:
    """A partition of a real topic. Between two reads nothing is open; what was fetched too far is fetched again.

    Args:
        settings: the [kafka] table.
        topic: its full name.
        partition: of the topic.
        start: the first offset to give.
    """

    def __init__(self, settings: Mapping[str, str], topic: str, partition: int, start: int) -> None:
        self.start = self.position = start
        self._settings, self._topic, self._partition = settings, topic, partition

    def read(self, end: int) -> Generator[Records]:
        """See `Feed.read`.

        Raises:
            CutError: retention has overtaken the reading.
        """
        if self.position >= end:
            return
        reader = Reader(self._settings)
        try:
            reader.assign(self._topic, {self._partition: self.position})
            while self.position < end:
                messages = reader.poll(POLL_FRAMES, POLL_S)
                if messages:
                    self.position = min(end, messages[-1].offset() + 1)
                elif reader.reached(self._topic, self._partition) >= end:  # the last offsets may hold no record
                    self.position = end
                wanted = [message for message in messages if message.offset() < end]
                if wanted:
                    yield _held(wanted)
        finally:
            reader.close()


def bounds(settings: Mapping[str, str], topic: str, partitions: Sequence[int]) -> dict[int, Bounds]:
    """Ask the broker what partitions hold now."""
    reader = Reader(settings)
    try:
        starts = reader.start_offsets(topic, list(partitions))
        ends = reader.end_offsets(topic, list(partitions))
        return {partition: Bounds(starts[partition], ends[partition]) for partition in partitions}
    finally:
        reader.close()


def _held(messages: Sequence[Message]) -> HeldRecords:
    records = [
        Record(m.value(), m.offset(), m.timestamp()[1] * 1_000, m.key(), tuple(m.headers() or ())) for m in messages
    ]
    return HeldRecords(messages[0].topic(), messages[0].partition(), records)


def beginning(start: int) -> str:
    """Say how a topic begins that does not begin with its first row."""
    if start == 0:
        return "was made anew for another number of partitions: the rows before are gone"
    return f"begins at offset {start}: the rows before were cut by retention"
