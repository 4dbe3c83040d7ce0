"""Frames: what travels between roles. One Kafka message = one Arrow record batch of rows, in order.

A frame is an IPC record-batch message without its schema; the schema's fingerprint is a message header and P.control
resolves it. Columns of numbers never carry Arrow nulls: NaN or -1 stand for "does not concern this row".
Order and numbers of rows never depend on how they were cut into frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.building import Builder, read
from streams.layouts import Layout, heap_memory
from streams.pipeline import Pipeline
from streams.records import HeldRecords, Packed, Record
from streams.stages import StageSpec, stage_topic
from streams.tables import Stack, Table, cut

EVENT, LABEL, MARK, VERSION, COMMAND = 0, 1, 2, 3, 4
SET, MISSING, RETRACTED, AMENDED, NO_OUTCOME = 0, 1, 2, 3, -1
KIND_NAMES = ("event", "label", "mark", "version", "command")
OUTCOME_NAMES = ("set", "missing", "retracted", "amended")

MAX_FRAME_ROWS = 8_192
MAX_FRAME_BYTES = 512 * 1024
ROOM_FOR_METADATA = 8_192
BEGINNING = np.iinfo(np.int64).min  # a mark nobody has sent yet
END = np.iinfo(np.int64).max  # the mark of a partition at its end

SCHEMA_HEADER = "millrace-schema"


class Column(msgspec.Struct, frozen=True):
    """One column of the feature matrix; a category is an exact integer code in float64."""

    name: str
    is_category: bool


class FrameSchema(msgspec.Struct, frozen=True):
    """The columns of one inner topic. `columns` names the feature matrix (empty for the log)."""

    topic: str
    arrow: Any
    columns: tuple[Column, ...]
    fingerprint: str
    layout: Layout

    def describe(self) -> dict[str, Any]:
        """Give the JSON form that P.control carries under `schema/<fingerprint>`."""
        fields = {field.name: str(field.type) for field in self.arrow}
        columns = [[c.name, "category" if c.is_category else "number"] for c in self.columns]
        return {"topic": self.topic, "fields": fields, "columns": columns}


class Rows(NamedTuple):
    """Frame rows that a role puts out: those rows of `table` that `picked` names, of all its columns.

    `cause[i]` is the input row that made row i, for merging partitions by time.
    """

    topic: str
    partition: int
    table: Table
    picked: npt.NDArray[np.int64]
    cause: npt.NDArray[np.int64]


class Spread(NamedTuple):
    """Frame rows for all `partitions` of a topic: row i, made by input row i, goes to partition `targets[i]`.

    -1 is nowhere. A role writes a topic either so or by `Rows`.
    """

    topic: str
    partitions: int
    targets: npt.NDArray[np.int64]
    table: Table


class Outgoing(NamedTuple):
    """JSON records that a role puts out, each with its cause and, if wanted, its Kafka key."""

    topic: str
    partition: int
    values: Packed
    keys: Packed | None
    cause: npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Rows of one input partition without repeats, in order, and the clocks as they stand after each row.

    `label_clock` is the smallest mark over the labels' partitions, `clock` over events' and labels' (PROTOCOL 12).
    """

    rows: Table
    label_clock: npt.NDArray[np.int64]
    clock: npt.NDArray[np.int64]


_COMMON: list[tuple[str, pa.DataType]] = [
    ("kind", pa.int8()),
    ("source", pa.int32()),
    ("sequence", pa.int64()),
    ("time", pa.int64()),
    ("id", pa.string()),
    ("key", pa.string()),
    ("produced", pa.int64()),
]
_LABEL: list[tuple[str, pa.DataType]] = [("label", pa.float64()), ("outcome", pa.int8())]


def _schema(topic: str, fields: list[tuple[str, pa.DataType]], columns: tuple[Column, ...] = ()) -> FrameSchema:
    arrow = pa.schema(fields)
    text = topic + ";" + ",".join(f"{name}:{kind}" for name, kind in fields)
    text += ";" + ",".join(f"{c.name}:{'c' if c.is_category else 'n'}" for c in columns)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return FrameSchema(topic, arrow, columns, digest, Layout(arrow))


def log_schema(pipeline: Pipeline) -> FrameSchema:
    """Columns of P.log: the declared fields as they came, categories as text."""
    kinds = {"number": pa.float64(), "boolean": pa.float64(), "category": pa.string()}
    fields = [(field.name, kinds[field.kind]) for field in pipeline.events.fields]
    return _schema("log", [*_COMMON, *_LABEL, *((f"field.{name}", kind) for name, kind in fields)])


def features_schema(columns: tuple[Column, ...]) -> FrameSchema:
    """Columns of P.features: event rows with their number and feature vector."""
    vector = pa.list_(pa.float64(), len(columns))
    return _schema("features", [*_COMMON, ("number", pa.int64()), ("vector", vector)], columns)


def examples_schema(columns: tuple[Column, ...]) -> FrameSchema:
    """Columns of P.examples: event rows, and label rows with the vector of prediction time."""
    vector = pa.list_(pa.float64(), len(columns))
    return _schema("examples", [*_COMMON, ("number", pa.int64()), *_LABEL, ("vector", vector)], columns)


def stage_schema(stage: StageSpec, columns: tuple[Column, ...]) -> FrameSchema:
    """Columns of the topic between a stage and the next: what later stages need, and the whole feature matrix.

    `number` is the first stage's, whose place in the log it tells. `entity.N` is the hash of the entity of stage N, 0
    where it is missing. Fields are numbers, categories among them their codes. Columns of later stages are NaN.
    """
    entities = [(f"entity.{number}", pa.int64()) for number in stage.entities]
    fields = [(f"field.{field.name}", pa.float64()) for field in stage.carried]
    vector = pa.list_(pa.float64(), len(columns))
    own = [*_COMMON, ("number", pa.int64()), *_LABEL, *entities, *fields, ("vector", vector)]
    return _schema(stage_topic(stage.number), own, columns)


def build(schema: FrameSchema, columns: dict[str, Any], rows: int) -> Table:
    """Make a table of `rows` rows from arrays of numbers, a matrix or `Text`; absent columns become -1, NaN or null."""
    return Builder(schema.layout, {}).build(columns, rows)


def encode(stack: Stack, index: npt.NDArray[np.int64]) -> Iterator[Table]:
    """Cut some rows of a stack into frames of at most 8,192 rows and 512 KiB, in memory that `Table.give` can give."""
    return cut(stack, index, (MAX_FRAME_ROWS, MAX_FRAME_BYTES - ROOM_FOR_METADATA), heap_memory)


def decode(payload: bytes, schema: FrameSchema) -> Table:
    """Read one frame.

    Raises:
        FrameError: when the bytes are not a record batch of this schema.
    """
    return read(schema.layout, HeldRecords(schema.topic, 0, [Record(payload, 0, 0)]))[0]
