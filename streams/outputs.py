"""Rows on their way out: the columns of P.examples, filled by kernels, and the batches made of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.compiled import inlined
from streams.frames import EVENT, FrameSchema, build

Texts = tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]


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
    for byte in range(size):
        data[end + byte] = source[start + byte]
    offsets[at + 1] = end + size


def examples_batch(output: Output, schema: FrameSchema, source: int, sequence: int) -> pa.RecordBatch:
    """Make the rows of P.examples; `sequence` is the first row's."""
    rows = int(output.sizes[ROWS])
    valid = pa.py_buffer(np.packbits(output.key_valid[:rows], bitorder="little")) if output.sizes[KEYLESS] else None
    columns = {
        "kind": output.kind[:rows],
        "source": np.full(rows, source, np.int32),
        "sequence": np.arange(sequence, sequence + rows),
        "time": output.time[:rows],
        "id": _text(output.id_offsets, output.id_data, rows, None),
        "key": _text(output.key_offsets, output.key_data, rows, valid),
        "produced": output.produced[:rows],
        "number": output.number[:rows],
        "label": output.label[:rows],
        "outcome": output.outcome[:rows],
        "vector": output.vectors_BF[:rows],
    }
    return build(schema, columns, rows)


def _text(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], rows: int, valid: pa.Buffer | None) -> pa.Array:
    texts = data[: int(offsets[rows])]
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets[: rows + 1]), pa.py_buffer(texts), valid)


def features_batch(
    examples: pa.RecordBatch, output: Output, schema: FrameSchema, source: int, sequence: int
) -> tuple[pa.RecordBatch, npt.NDArray[np.int64]]:
    """Make the rows of P.features, the events among the examples, and give their causes too."""
    total = int(output.sizes[ROWS])
    at_B = np.flatnonzero(output.kind[:total] == EVENT)
    rows = at_B.size
    taken = pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(at_B)])  # pa.array would import pandas
    columns = {
        "kind": np.full(rows, EVENT, np.int8),
        "source": np.full(rows, source, np.int32),
        "sequence": np.arange(sequence, sequence + rows),
        "time": output.time[at_B],
        "id": examples.column("id").take(taken),
        "key": examples.column("key").take(taken),
        "produced": output.produced[at_B],
        "number": output.number[at_B],
        "vector": np.take(output.vectors_BF, at_B, axis=0),
    }
    return build(schema, columns, rows), output.cause[at_B]
