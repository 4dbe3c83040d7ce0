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

from streams.errors import FrameError
from streams.pipeline import Pipeline
from streams.records import Packed

EVENT, LABEL, MARK, VERSION, COMMAND = 0, 1, 2, 3, 4
SET, MISSING, RETRACTED, AMENDED, NO_OUTCOME = 0, 1, 2, 3, -1
KIND_NAMES = ("event", "label", "mark", "version", "command")
OUTCOME_NAMES = ("set", "missing", "retracted", "amended")

MAX_FRAME_ROWS = 8_192
MAX_FRAME_BYTES = 512 * 1024
GUESSED_SHARE = 0.97  # of a frame's bytes that are rows; the rest is metadata and texts longer than the average
BEGINNING = np.iinfo(np.int64).min  # a mark nobody has sent yet
END = np.iinfo(np.int64).max  # the mark of a partition at its end

SCHEMA_HEADER = "millrace-schema"
_NO_BYTES = np.frombuffer(bytes(1), np.uint8)
_NO_BITMAP = np.frombuffer(b"", np.uint8)
_LEAST_ROOM = 1_024  # rows


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

    def describe(self) -> dict[str, Any]:
        """Give the JSON form that P.control carries under `schema/<fingerprint>`."""
        fields = {field.name: str(field.type) for field in self.arrow}
        columns = [[c.name, "category" if c.is_category else "number"] for c in self.columns]
        return {"topic": self.topic, "fields": fields, "columns": columns}


class Text(NamedTuple):
    """An Arrow string column as views: `data[offsets[i]:offsets[i+1]]`; `valid` is a bitmap, empty without nulls."""

    offsets: npt.NDArray[np.int32]
    data: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.uint8]


class TextAt(NamedTuple):
    """An Arrow string column as addresses, for kernels that copy text; valid as long as its batch lives."""

    offsets: int
    data: int
    valid: int  # of the bitmap, 0 without nulls
    start: int  # row i is bit `start + i` of the bitmap


class Rows(NamedTuple):
    """Frame rows that a role puts out; `cause[i]` is the input row that made row i, for merging partitions by time."""

    topic: str
    partition: int
    batch: pa.RecordBatch
    cause: npt.NDArray[np.int64]


class Spread(NamedTuple):
    """Frame rows for all partitions of a topic: row i, made by input row i, goes to partition `targets[i]`.

    -1 is nowhere. A role writes a topic either so or by `Rows`.
    """

    topic: str
    targets: npt.NDArray[np.int64]
    batch: pa.RecordBatch


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

    rows: pa.RecordBatch
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
    return FrameSchema(topic, arrow, columns, hashlib.blake2b(text.encode(), digest_size=8).hexdigest())


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


def numbers(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """View a column of numbers as numpy, without a copy."""
    array: npt.NDArray[Any] = batch.column(name).to_numpy(zero_copy_only=True)
    return array


def text(batch: pa.RecordBatch, name: str) -> Text:
    """View a column of text as numpy arrays, without a copy, read-only: kernels are compiled for one kind of array."""
    array = batch.column(name)
    valid, offsets, data = array.buffers()
    views = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4)
    if array.null_count == 0:
        bitmap = _NO_BITMAP
    elif array.offset:
        bitmap = np.packbits(array.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    else:
        bitmap = np.frombuffer(valid, np.uint8)
    bytes_ = np.frombuffer(data, np.uint8) if data is not None and data.size else _NO_BYTES
    views.flags.writeable = bytes_.flags.writeable = bitmap.flags.writeable = False
    return Text(views, bytes_, bitmap)


def text_at(batch: pa.RecordBatch, name: str) -> TextAt:
    """Give the addresses of a column of text."""
    array = batch.column(name)
    valid, offsets, data = array.buffers()
    start = array.offset
    bitmap = valid.address if valid is not None and array.null_count else 0
    return TextAt(offsets.address + 4 * start, data.address if data is not None else 0, bitmap, start)


def text_array(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Make an Arrow text column of B texts from offsets [B+1] and bytes, without a copy."""
    return pa.StringArray.from_buffers(offsets.size - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def matrix(batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
    """View the feature matrix as [B, F], without a copy."""
    column = batch.column("vector")
    start, rows, width = column.offset, len(column), column.type.list_size
    flat: npt.NDArray[np.float64] = column.values.to_numpy(
        zero_copy_only=True
    )  # of all rows that the batch was cut from
    return flat[start * width : (start + rows) * width].reshape(rows, width)


def build(schema: FrameSchema, columns: dict[str, Any], rows: int) -> pa.RecordBatch:
    """Make a batch of `rows` rows; a matrix is given as [B, F], absent columns become -1, NaN or null."""
    arrays = [_array(columns.get(field.name), field.type, rows) for field in schema.arrow]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)


def _array(values: Any, kind: pa.DataType, rows: int) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values is None and kind == pa.string():
        return pa.nulls(rows, kind)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        flat = np.full(rows * size, np.nan) if values is None else np.ascontiguousarray(values).reshape(-1)
        return pa.FixedSizeListArray.from_buffers(kind, rows, [None], children=[_primitive(flat, pa.float64())])
    if values is None:
        values = np.full(rows, np.nan if kind == pa.float64() else -1, kind.to_pandas_dtype())
    return _primitive(values, kind)


def _primitive(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    values = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(values)])


class Form:
    """Makes batches of columns without matrix, as `build` does, at a third of its cost for a handful of rows.

    Args:
        schema: of the batches.
        constants: columns that hold one number in every row; other absent columns become -1, NaN or null.
    """

    def __init__(self, schema: FrameSchema, constants: dict[str, int]) -> None:
        self._schema = schema
        self._constants = constants
        self._columns: list[tuple[str, pa.DataType, pa.Array]] = []
        self._room = 0

    def build(self, columns: dict[str, Any], rows: int) -> pa.RecordBatch:
        """Make a batch; columns are Arrow arrays, or numpy arrays in one piece that have the column's own type."""
        if rows > self._room or not self._room:
            self._grow(max(rows, _LEAST_ROOM))
        arrays = []
        for name, kind, held in self._columns:
            values = columns.get(name)
            if values is None:
                arrays.append(held.slice(0, rows))
            elif isinstance(values, pa.Array):
                arrays.append(values)
            else:
                arrays.append(pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(values)]))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema.arrow)

    def _grow(self, rows: int) -> None:
        constants = {name: np.full(rows, value) for name, value in self._constants.items()}
        batch = build(self._schema, constants, rows)
        self._columns = [(field.name, field.type, batch.column(field.name)) for field in self._schema.arrow]
        self._room = rows


def encode(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Cut a batch into frames of at most 8,192 rows and 512 KiB and give their bytes."""
    start, rows, size = 0, batch.num_rows, batch.nbytes
    step = min(MAX_FRAME_ROWS, max(1, rows))
    if size > MAX_FRAME_BYTES:  # a first guess, so that little is serialized in vain
        step = max(1, min(step, int(rows * GUESSED_SHARE * MAX_FRAME_BYTES / size)))
    while start < rows:
        payload = batch.slice(start, step).serialize()
        if payload.size > MAX_FRAME_BYTES and step > 1:
            step = max(1, min(step // 2, int(step * MAX_FRAME_BYTES / payload.size)))
            continue
        yield payload.to_pybytes()
        start += step


def decode(payload: bytes, schema: FrameSchema) -> pa.RecordBatch:
    """Read one frame.

    Raises:
        FrameError: when the bytes are not a record batch of this schema.
    """
    try:
        return pa.ipc.read_record_batch(pa.py_buffer(payload), schema.arrow)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        message = f"a frame of {schema.topic} cannot be read: {error}; {len(payload)} bytes found"
        raise FrameError(message) from error
