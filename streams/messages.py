"""The metadata of an Arrow record-batch message: the same bytes for every frame of a schema, but for a few numbers.

pyarrow writes one message; where its numbers stand is found by the flatbuffer's own tables. Whoever writes a frame
copies that head and fills the numbers in, whoever reads one compares it with the head and takes them out.

Sources: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format (Message.fbs, Schema.fbs) and
https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ROWS, BODY, NODES, BUFFERS = range(4)
"""Places in `MessageForm.spots`: of the number of rows, the size of the body, the first node, and the first buffer."""

_PREFIX = 8  # the mark of a message, and its metadata's size
_HEADER, _BODY_LENGTH = 2, 3  # fields of Message
_LENGTH, _NODES, _BUFFERS = 0, 1, 2  # fields of RecordBatch
_PAIR = 16  # bytes of a node (rows, nulls) and of a buffer (place in the body, size)


class MessageForm(NamedTuple):
    """What messages of one schema have in common.

    Attributes:
        head: a message up to its body.
        mask: [head] 1 where all messages are the same, 0 in their numbers.
        spots: see ROWS, BODY, NODES, BUFFERS: byte positions in the head.
    """

    head: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    spots: npt.NDArray[np.int64]


def message_form(schema: pa.Schema) -> MessageForm:
    """Find out how messages of a schema look."""
    sample = pa.RecordBatch.from_arrays([_sample(field.type) for field in schema], schema=schema)
    message = sample.serialize().to_pybytes()
    size = _PREFIX + struct.unpack_from("<i", message, 4)[0]
    root = _follow(message, _PREFIX)
    batch = _follow(message, _field(message, root, _HEADER))
    nodes, buffers = (_follow(message, _field(message, batch, field)) for field in (_NODES, _BUFFERS))
    spots = [_field(message, batch, _LENGTH), _field(message, root, _BODY_LENGTH), nodes + 4, buffers + 4]
    mask = np.ones(size, np.uint8)
    for spot in spots[:NODES]:
        mask[spot : spot + 8] = 0
    for vector in (nodes, buffers):
        count = struct.unpack_from("<i", message, vector)[0]
        mask[vector + 4 : vector + 4 + count * _PAIR] = 0
    head = np.frombuffer(message[:size], np.uint8).copy()
    return MessageForm(head, mask, np.array(spots, np.int64))


def _sample(kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        values = pa.Array.from_buffers(pa.float64(), kind.list_size, [None, pa.py_buffer(bytes(8 * kind.list_size))])
        return pa.FixedSizeListArray.from_buffers(kind, 1, [None], children=[values])
    if kind == pa.string():
        return pa.StringArray.from_buffers(1, pa.py_buffer(struct.pack("<ii", 0, 1)), pa.py_buffer(b"x"))
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(8))])


def _follow(message: bytes, at: int) -> int:
    """Go where an offset at `at` points to."""
    return at + int(struct.unpack_from("<I", message, at)[0])


def _field(message: bytes, table: int, field: int) -> int:
    """Give the place of a table's field, which must be there."""
    vtable = table - int(struct.unpack_from("<i", message, table)[0])
    return table + int(struct.unpack_from("<H", message, vtable + 4 + 2 * field)[0])
