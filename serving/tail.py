"""Showing what passes on a pipeline's topics, one JSON line per row, with frames decoded."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from consumers.process import KafkaControlLog
from streams.control import Control
from streams.errors import PipelineError
from streams.frames import (
    BEGINNING,
    END,
    KIND_NAMES,
    MARK,
    NO_OUTCOME,
    OUTCOME_NAMES,
    SCHEMA_HEADER,
    FrameSchema,
    decode,
)
from streams.kafka import BEGINNING as FIRST_OFFSET
from streams.kafka import Message, Reader, Topics
from streams.pipeline import Pipeline
from streams.stages import stage_topics
from streams.topic_specs import inner_topics

FRAMED = ("log", "features", "examples")
POLL_S = 0.2
POLL_MESSAGES = 1_000


def show_topic(
    pipeline: Pipeline, what: str, *, count: int | None = None, is_from_start: bool = False, is_following: bool = True
) -> None:
    """Print rows of one topic until `count`, the end (unless following) or Ctrl-C.

    Raises:
        PipelineError: there is no such topic.
        FrameError: a frame's schema is unknown or its bytes are damaged.
    """
    check_topic(pipeline, what)
    encode = msgspec.json.Encoder().encode
    for number, row in enumerate(rows(pipeline, what, is_from_start=is_from_start, is_following=is_following), 1):
        sys.stdout.buffer.write((row if isinstance(row, bytes) else encode(row)) + b"\n")
        if is_following:
            sys.stdout.buffer.flush()
        if number == count:
            break
    sys.stdout.buffer.flush()


def rows(pipeline: Pipeline, what: str, *, is_from_start: bool, is_following: bool) -> Iterator[dict[str, Any] | bytes]:
    """Yield the rows of a topic: decoded frames, or JSON records as they are."""
    log = KafkaControlLog(pipeline) if what in (*FRAMED, *stage_topics(pipeline)) else None
    control = Control(log) if log is not None else None
    try:
        for message in _messages(pipeline, f"{pipeline.name}.{what}", is_from_start, is_following):
            if control is not None:
                yield from frame_rows(message, control)
            elif what == "control":
                yield _control_row(message)
            else:
                yield message.value() or b"null"
    finally:
        if log is not None:
            log.close()


def check_topic(pipeline: Pipeline, what: str) -> None:
    """Refuse a name that is none of the pipeline's topics, with the nearest one.

    Raises:
        PipelineError: there is no such topic.
    """
    names = inner_topics(pipeline)
    if what not in names:
        near = difflib.get_close_matches(what, names, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise PipelineError([f'{pipeline.name} has no topic "{what}"; allowed: {", ".join(names)}{hint}'])


def frame_rows(message: Message, control: Control) -> Iterator[dict[str, Any]]:
    """Decode one frame into its rows; what does not concern a row is left out."""
    schema = control.schema(fingerprint_of(message))
    table = decode(message.value() or b"", schema)
    place = {"partition": message.partition(), "offset": message.offset()}
    for row in table.to_arrow().to_pylist():
        yield place | _readable(row, schema)


def fingerprint_of(message: Message) -> str:
    """Give the fingerprint of a frame's schema; empty if the message is no frame."""
    return dict(message.headers() or []).get(SCHEMA_HEADER, b"").decode()


def _readable(row: dict[str, Any], schema: FrameSchema) -> dict[str, Any]:
    kind, time_us, outcome = row.pop("kind"), row.pop("time"), row.pop("outcome", NO_OUTCOME)
    shown: dict[str, Any] = {"kind": KIND_NAMES[kind], "source": row.pop("source")}
    if kind == MARK:
        return shown | {"time_us": {END: "end", BEGINNING: "unknown"}.get(time_us, time_us)}
    vector = row.pop("vector", None)
    shown |= {"sequence": row.pop("sequence"), "time_us": time_us}
    shown |= {name: value for name, value in row.items() if not _is_absent(value)}
    if outcome != NO_OUTCOME:
        shown["outcome"] = OUTCOME_NAMES[outcome]
    if vector is not None:
        shown["features"] = {
            column.name: None if math.isnan(value) else int(value) if column.is_category else value
            for column, value in zip(schema.columns, vector, strict=True)
        }
    return shown


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, int) and value == -1)


def _control_row(message: Message) -> dict[str, Any]:
    value = message.value()
    return {"key": (message.key() or b"").decode(), "value": None if value is None else msgspec.json.decode(value)}


def _messages(pipeline: Pipeline, topic: str, is_from_start: bool, is_following: bool) -> Iterator[Message]:
    topics = Topics(pipeline.kafka)
    partitions = list(range(topics.partitions(topic)))
    topics.close()
    reader = Reader(pipeline.kafka)
    try:
        ends = reader.end_offsets(topic, partitions)
        reader.assign(topic, dict.fromkeys(partitions, FIRST_OFFSET) if is_from_start else ends)
        while True:
            yield from reader.poll(POLL_MESSAGES, POLL_S)
            if not is_following and all(reader.reached(topic, one) >= end for one, end in ends.items()):
                return
    finally:
        reader.close()
