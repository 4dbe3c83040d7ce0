"""Rows on their way out: the columns of P.examples, filled by kernels, and the batches made of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.compiled import bare, inlined
from streams.frames import EVENT, FrameSchema
from streams.intrinsics import copy_items


class Output(NamedTuple):
    """Room for B rows of P.examples with F features. `cause` is the input row that made a row."""

    kind: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    time: npt.NDArray[np.int64]
    produced: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    cause: npt.NDArray[np.int64]
    delay: npt.NDArray[np.int64]  # label time - event time of joined labels (us)
    label: npt.NDArray[np.float64]
    vectors_BF: npt.NDArray[np.float64]
    id_offsets: npt.NDArray[np.int32]
    id_data: npt.NDArray[np.uint8]
    key_offsets: npt.NDArray[np.int32]
    key_data: npt.NDArray[np.uint8]
    key_valid: npt.NDArray[np.uint8]  # one byte a row
    sizes: npt.NDArray[np.int64]  # [rows, rows without a key, joined labels]


ROWS, KEYLESS, DELAYS = 0, 1, 2


def make_output(rows: int, features: int, id_bytes: int, key_bytes: int) -> Output:
    """Make room; memory that is not used is never touched."""
    return Output(
        np.empty(rows, np.int8),
        np.empty(rows, np.int8),
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(rows),
        np.empty((rows, features)),
        np.zeros(rows + 1, np.int32),
        np.empty(id_bytes + 1, np.uint8),
        np.zeros(rows + 1, np.int32),
        np.empty(key_bytes + 1, np.uint8),
        np.empty(rows, np.uint8),
        np.zeros(3, np.int64),
    )


@inlined
def emit_kernel(
    output: Output, kind: int, outcome: int, cause: int, time_us: int, produced_us: int, number: int, label: float
) -> int:
    """Begin a row and give its place; its texts and vector follow."""
    at: int = output.sizes[ROWS]
    output.sizes[ROWS] = at + 1
    output.kind[at] = kind
    output.outcome[at] = outcome
    output.cause[at] = cause
    output.time[at] = time_us
    output.produced[at] = produced_us
    output.number[at] = number
    output.label[at] = label
    return at


@inlined
def emit_text_kernel(
    offsets: npt.NDArray[np.int32],
    data: npt.NDArray[np.uint8],
    at: int,
    source: npt.NDArray[np.uint8],
    start: int,
    size: int,
) -> None:
    """Write the text of row `at`, the last row so far."""
    end = offsets[at]
    copy_items(data, end, source, start, size)
    offsets[at + 1] = end + size


@inlined
def copy_row_kernel(target_BF: npt.NDArray[np.float64], at: int, source_BF: npt.NDArray[np.float64], row: int) -> None:
    """Copy one row of a matrix to a row of another as wide."""
    columns = target_BF.shape[1]
    copy_items(target_BF, at * columns, source_BF, row * columns, columns)


def to_batch(output: Output, schema: FrameSchema, source: int, sequence: int) -> pa.RecordBatch:
    """Make a batch of the rows so far; `sequence` is the first row's. A column that the schema lacks is left out."""
    rows = int(output.sizes[ROWS])
    valid = np.packbits(output.key_valid[:rows], bitorder="little") if output.sizes[KEYLESS] else None
    texts = {
        "id": (None, output.id_offsets, output.id_data),
        "key": (valid, output.key_offsets, output.key_data),
    }
    values: dict[str, npt.NDArray[Any]] = {
        "kind": output.kind,
        "source": np.full(rows, source, np.int32),
        "sequence": np.arange(sequence, sequence + rows),
        "time": output.time,
        "produced": output.produced,
        "number": output.number,
        "label": output.label,
        "outcome": output.outcome,
    }
    columns: list[pa.Array] = []
    for field in schema.arrow:
        if field.name in values:
            columns.append(_column(field.type, rows, None, values[field.name]))
        elif field.name in texts:
            columns.append(_column(field.type, rows, *texts[field.name]))
        else:
            size = field.type.list_size
            flat = _column(pa.float64(), rows * size, None, output.vectors_BF)
            columns.append(pa.FixedSizeListArray.from_buffers(field.type, rows, [None], children=[flat]))
    return pa.RecordBatch.from_arrays(columns, schema=schema.arrow)


def _column(kind: pa.DataType, rows: int, *arrays: npt.NDArray[Any] | None) -> pa.Array:
    buffers = [None if array is None else pa.py_buffer(array) for array in arrays]
    return pa.Array.from_buffers(kind, rows, buffers)


@bare
def copy_events_kernel(output: Output, events: Output) -> None:
    """Copy the event rows, which P.features gets too."""
    for row in range(output.sizes[ROWS]):
        if output.kind[row] != EVENT:
            continue
        at = emit_kernel(
            events, EVENT, output.outcome[row], output.cause[row], output.time[row], output.produced[row],
            output.number[row], output.label[row],
        )  # fmt: skip
        copy_row_kernel(events.vectors_BF, at, output.vectors_BF, row)
        start, stop = output.id_offsets[row], output.id_offsets[row + 1]
        emit_text_kernel(events.id_offsets, events.id_data, at, output.id_data, start, stop - start)
        start, stop = output.key_offsets[row], output.key_offsets[row + 1]
        emit_text_kernel(events.key_offsets, events.key_data, at, output.key_data, start, stop - start)
        events.key_valid[at] = output.key_valid[row]
        events.sizes[KEYLESS] += output.key_valid[row] == 0
