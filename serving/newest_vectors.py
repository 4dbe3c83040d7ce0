"""The newest feature vectors of a pipeline, read backwards from the ends of its features topic.

Frames hold one row or thousands, so how far to go back shows only on the way: each step takes four times as many frames
of every partition as the one before, and costs a third of a second besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serving.tail import fingerprint_of
from streams.building import read
from streams.errors import TopicError
from streams.features import columns
from streams.frames import EVENT, FrameSchema, features_schema
from streams.kafka import Message, Reader, Topics
from streams.pipeline import Pipeline
from streams.records import HeldRecords, Record

FIRST_FRAMES, GROWTH = 4, 4  # of a step, for each partition
POLL_MESSAGES = 10_000
POLL_S = 0.2

Floats = npt.NDArray[np.float64]
Span = tuple[int, int]  # offsets: the first, and the one behind the last


class Vectors(NamedTuple):
    """Feature vectors [B, F], the oldest first, by the times of their events (us)."""

    times_B: npt.NDArray[np.int64]
    vectors_BF: Floats


class Frames(Protocol):
    """What is asked of a reader of topics; `streams.kafka.Reader` is one."""

    # ruff: noqa: D102 -- see there

    def start_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]: ...
    def end_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]: ...
    def assign(self, topic: str, offsets: dict[int, int]) -> None: ...
    def poll(self, max_messages: int, timeout_s: float) -> list[Message]: ...
    def reached(self, topic: str, partition: int) -> int: ...


def newest_vectors(pipeline: Pipeline, rows: int) -> Vectors | None:
    """Read at most `rows` of the newest vectors from Kafka; None if the topic does not exist yet."""
    topics, topic = Topics(pipeline.kafka), f"{pipeline.name}.features"
    try:
        partitions = list(range(topics.partitions(topic)))
    except TopicError:
        return None
    finally:
        topics.close()
    reader = Reader(pipeline.kafka)
    try:
        return read_backwards(reader, topic, partitions, features_schema(columns(pipeline)), rows)
    finally:
        reader.close()


def read_backwards(frames: Frames, topic: str, partitions: list[int], schema: FrameSchema, rows: int) -> Vectors:
    """Collect the newest event rows whose columns are those of `schema`, about as many frames of each partition.

    Frames of other columns were written before the pipeline file was changed: nothing older than those is looked at.
    """
    first, ends = frames.start_offsets(topic, partitions), frames.end_offsets(topic, partitions)
    found, taken, step = [_empty(schema)], 0, FIRST_FRAMES
    while taken < rows:
        spans = {one: (max(first[one], end - step), end) for one, end in ends.items() if end > first[one]}
        if not spans:
            break
        for partition, messages in _messages(frames, topic, spans).items():
            own = [message for message in messages if fingerprint_of(message) == schema.fingerprint]
            if own:
                found.append(_vectors(schema, partition, own))
                taken += found[-1].times_B.size
            elif messages:
                first[partition] = spans[partition][1]
        ends = {one: start for one, (start, _) in spans.items()}
        step *= GROWTH
    times_B, vectors_BF = (np.concatenate(parts) for parts in zip(*found, strict=True))
    newest = np.argsort(times_B, kind="stable")[-rows:]
    return Vectors(times_B[newest], vectors_BF[newest])


def _messages(frames: Frames, topic: str, spans: Mapping[int, Span]) -> dict[int, list[Message]]:
    """Read these offsets of each partition, of which some may hold no record."""
    found: dict[int, list[Message]] = {partition: [] for partition in spans}
    at = {partition: start for partition, (start, _) in spans.items()}
    frames.assign(topic, dict(at))
    while any(at[partition] < end for partition, (_, end) in spans.items()):
        for message in frames.poll(POLL_MESSAGES, POLL_S):
            partition, offset = message.partition(), message.offset()
            at[partition] = offset + 1
            if offset < spans[partition][1]:
                found[partition].append(message)
        at = {partition: max(offset, frames.reached(topic, partition)) for partition, offset in at.items()}
    return found


def _vectors(schema: FrameSchema, partition: int, messages: list[Message]) -> Vectors:
    records = [Record(message.value() or b"", message.offset(), 0) for message in messages]
    table = read(schema.layout, HeldRecords(schema.topic, partition, records))[0]
    is_event = table.numbers("kind") == EVENT
    return Vectors(table.numbers("time")[is_event], table.matrix()[is_event])


def _empty(schema: FrameSchema) -> Vectors:
    return Vectors(np.zeros(0, np.int64), np.zeros((0, len(schema.columns))))
