"""The newest feature vectors, read backwards: which rows are found, and how few records are looked at for them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from serving.newest_vectors import FIRST_FRAMES, Vectors, read_backwards
from streams.features import columns
from streams.frames import SCHEMA_HEADER, Column, FrameSchema, encode, features_schema
from streams.kafka import Message
from streams.tables import Stack
from tests.featurizing import small_pipeline
from tests.memory_kafka import Broker
from tests.rows import batch_of

SCHEMA = features_schema(columns(small_pipeline(raw=True)))
OTHER = features_schema((Column("older", is_category=False),))
TOPIC = "p.features"


class Frames:
    """A reader of a topic in memory that gives a few records at a time and notes how many."""

    def __init__(self, counts: int = 1) -> None:
        self.broker = Broker(lambda: 0.0, {TOPIC: counts})
        self.given = 0

    def write(self, partition: int, times: Iterable[int], schema: FrameSchema = SCHEMA, kind: str = "event") -> None:
        """One frame; a row's first value is its time."""
        width = len(schema.columns)
        rows = [{"kind": kind, "time": time, "vector": [float(time)] * width} for time in times]
        table = batch_of(schema, rows)
        for frame in encode(Stack([table]), np.arange(table.num_rows)):
            headers = [(SCHEMA_HEADER, schema.fingerprint.encode())]
            self.broker.append(TOPIC, partition, frame.message(), headers=headers)

    def start_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {partition: self.broker.low[topic, partition] for partition in partitions}

    def end_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {partition: self.broker.end(topic, partition) for partition in partitions}

    def assign(self, topic: str, offsets: dict[int, int]) -> None:
        self.at = dict(offsets)

    def poll(self, max_messages: int, timeout_s: float) -> list[Message]:
        found: list[Message] = []
        for partition, at in self.at.items():
            found += self.broker.logs[TOPIC, partition][at : at + 3]
            self.at[partition] = at + 3
        self.given += len(found)
        return found

    def reached(self, topic: str, partition: int) -> int:
        end = self.broker.end(topic, partition)
        return end if self.at[partition] >= end else -1

    def newest(self, rows: int) -> Vectors:
        partitions = list(range(self.broker.partitions(TOPIC)))
        return read_backwards(self, TOPIC, partitions, SCHEMA, rows)


@pytest.mark.parametrize("rows", [1, 5, 30, 59, 60, 1_000])
def test_the_newest_rows_are_found_in_order_whatever_their_frames(rows: int) -> None:
    """Single rows in one partition and pairs in the other, as fast as each other."""
    frames = Frames(2)
    for time in range(30):
        frames.write(0, [2 * time])
        frames.write(1, [2 * time + 1])
    found = frames.newest(rows)

    assert found.times_B.tolist() == list(range(60))[-rows:]
    assert found.vectors_BF[:, 2].tolist() == found.times_B.tolist()


def test_only_as_much_is_read_as_it_takes() -> None:
    """A topic may hold a week."""
    frames = Frames()
    for time in range(1_000):
        frames.write(0, [10 * time + row for row in range(10)])
    found = frames.newest(15)

    assert found.times_B.tolist() == list(range(9_985, 10_000))
    assert frames.given == FIRST_FRAMES


def test_marks_are_no_rows() -> None:
    """A partition may hold nothing else for hours."""
    frames = Frames()
    frames.write(0, [7])
    for time in range(100, 150):
        frames.write(0, [time], kind="mark")

    assert frames.newest(10).times_B.tolist() == [7]


def test_rows_from_before_the_columns_changed_are_left_out() -> None:
    """They would be described under names that they do not have; what is older still is not read at all."""
    frames = Frames()
    for time in range(500):
        frames.write(0, [time], OTHER)
    frames.write(0, [1_000])
    found = frames.newest(10)

    assert found.times_B.tolist() == [1_000]
    assert frames.given < 50


def test_an_empty_topic_has_no_rows() -> None:
    """Nor does one whose rows retention has taken."""
    frames = Frames(2)
    frames.write(1, [7])
    frames.broker.low[TOPIC, 1] = 1

    assert frames.newest(10).vectors_BF.shape == (0, 3)
    assert frames.given == 0
