"""Tables: rows in columns, lying in one block of memory just as they travel in a frame.

A block is an Arrow IPC record-batch message: room for its metadata, then the columns' buffers, each on a multiple of 8
bytes. Reading a frame is checking its metadata and copying its columns together with those of the other frames of a
poll; writing one is copying the rows that it shall have and filling in the metadata. Both are one pass of a kernel
(table_kernels.py) over any number of tables: pyarrow's own objects cost more than the rows of a small frame.

Source: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.errors import FrameError
from streams.messages import Message, message_form
from streams.records import Records, value
from streams.table_kernels import (
    DATA,
    ITEMS,
    PARTS,
    VALID,
    fill_kernel,
    head_kernel,
    join_kernel,
    locate_kernel,
    measure_joined_kernel,
    measure_kernel,
    place_kernel,
)

TEXT = 0
"""The width of a column of text."""
_NO_BYTES = np.frombuffer(bytes(1), np.uint8)
_NO_BITMAP = np.frombuffer(b"", np.uint8)

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Text(NamedTuple):
    """An Arrow string column as views: `data[offsets[i]:offsets[i+1]]`; `valid` is a bitmap, empty without nulls."""

    offsets: npt.NDArray[np.int32]
    data: Bytes
    valid: Bytes


class TextAt(NamedTuple):
    """An Arrow string column as addresses, for kernels that copy text; valid as long as its table lives."""

    offsets: int
    data: int
    valid: int  # of the bitmap, 0 without nulls
    start: int  # row i is bit `start + i` of the bitmap


class Layout:
    """How the rows of an Arrow schema lie in a block: what is known of its columns before there are any rows.

    Attributes:
        arrow: the schema; columns are numbers, text, or one fixed-size list of float64 (a matrix).
        names: of the columns, in order.
        places: the number of each column.
        widths: bytes of a row in each column, TEXT for text.
    """

    def __init__(self, arrow: pa.Schema) -> None:
        self.arrow = arrow
        self.names = tuple(arrow.names)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.widths = np.array([_width(field.type) for field in arrow], np.int64)
        self.dtypes = [_dtype(field.type) for field in arrow]
        self.message: Message = message_form(arrow)

    def blank(self, rows: int, sizes: Int64s, nulls: Int64s) -> tuple[Bytes, Int64s]:
        """Make a block for `rows` rows, with `sizes` bytes of text in each column and a bitmap where `nulls` is not 0.

        Returns:
            The block, whose contents are arbitrary, and where its columns begin: [C, 3] bitmap, items or offsets, text;
            -1 where there is none.
        """
        places = np.empty((self.widths.size, PARTS), np.int64)
        length = place_kernel(self.widths, rows, sizes, nulls, self.message.head.size, places)
        return np.empty(length, np.uint8), places


class Table:
    """Rows of one layout: views of its columns are read-only and cost nothing.

    Args:
        layout: of the block.
        block: the memory; nobody writes to it any more.
        places: where columns begin in it, see `Layout.blank`.
        start: the first row of the block that belongs to this table.
        num_rows: how many rows it has.
    """

    __slots__ = ("_address", "block", "layout", "num_rows", "places", "start")

    def __init__(self, layout: Layout, block: Bytes, places: Int64s, start: int, num_rows: int) -> None:
        block.flags.writeable = False
        self.layout = layout
        self.block = block
        self.places = places
        self.start = start
        self.num_rows = num_rows
        self._address = block.ctypes.data

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """View a column of numbers."""
        column = self.layout.places[name]
        dtype = self.layout.dtypes[column]
        at = int(self.places[column, ITEMS]) + self.start * dtype.itemsize
        return self.block[at : at + self.num_rows * dtype.itemsize].view(dtype)

    def matrix(self) -> npt.NDArray[np.float64]:
        """View the feature matrix as [B, F]."""
        column = self.layout.places["vector"]
        width = int(self.layout.widths[column])
        at = int(self.places[column, ITEMS]) + self.start * width
        flat = self.block[at : at + self.num_rows * width].view(np.float64)
        return flat.reshape(self.num_rows, width // 8)

    def text(self, name: str) -> Text:
        """View a column of text."""
        valid, items, data = self.places[self.layout.places[name]].tolist()
        at = items + 4 * self.start
        offsets = self.block[at : at + 4 * (self.num_rows + 1)].view(np.int32)
        bitmap = _NO_BITMAP
        if valid >= 0:
            bitmap = self.block[valid : valid + (self.start + self.num_rows + 7) // 8]
            if self.start:
                bits = np.unpackbits(bitmap, bitorder="little")[self.start :]
                bitmap = np.packbits(bits, bitorder="little")
                bitmap.flags.writeable = False
        return Text(offsets, self.block[data:] if data < self.block.size else _NO_BYTES, bitmap)

    def text_at(self, name: str) -> TextAt:
        """Give the addresses of a column of text."""
        valid, items, data = self.places[self.layout.places[name]].tolist()
        bitmap = self._address + valid if valid >= 0 else 0
        return TextAt(self._address + items + 4 * self.start, self._address + data, bitmap, self.start)

    def slice(self, start: int, rows: int | None = None) -> Table:
        """Give `rows` rows from `start` on, without a copy; None is all there are."""
        rest = self.num_rows - start
        return Table(self.layout, self.block, self.places, self.start + start, rest if rows is None else rows)

    def take(self, index: Int64s) -> Table:
        """Copy rows by index."""
        return gather([self], index)

    def source(self) -> list[int]:
        """Give the addresses of all parts (0 where there is none) and the first row, as kernels take them."""
        parts = (self.places + self._address) * (self.places >= 0)
        return [*parts.ravel().tolist(), self.start]

    def message(self) -> bytes:
        """Give the frame; only of a whole table as `gather`, `join` and `build` make them."""
        form = self.layout.message
        block = self.block.copy()
        head_kernel(form.head, form.spots, self.layout.widths, self.num_rows, self.places, block)
        return block.tobytes()

    def to_arrow(self) -> pa.RecordBatch:
        """Copy the rows into an Arrow record batch."""
        if not self.num_rows:
            return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in self.layout.arrow], schema=self.layout.arrow)
        return pa.ipc.read_record_batch(pa.py_buffer(join([self]).message()), self.layout.arrow)


def gather(tables: Sequence[Table], index: Int64s) -> Table:
    """Copy rows of several tables of one layout into a new one, in any order.

    Args:
        tables: at least one.
        index: of each row, counted through all tables.
    """
    layout, rows = tables[0].layout, index.size
    sources = np.array([table.source() for table in tables], np.int64)
    ends = np.cumsum([table.num_rows for table in tables])
    origins, sizes, nulls = np.empty((2, rows), np.int64), *_empty_totals(layout)
    measure_kernel(layout.widths, sources, ends, index, origins, sizes, nulls)
    block, places = layout.blank(rows, sizes, nulls)
    fill_kernel(layout.widths, sources, origins, nulls, places, block)
    return Table(layout, block, places, 0, rows)


def join(tables: Sequence[Table]) -> Table:
    """Copy tables of one layout behind one another into a new one."""
    sources = np.array([table.source() for table in tables], np.int64)
    return _join(tables[0].layout, sources, np.array([table.num_rows for table in tables], np.int64))


def _join(layout: Layout, sources: Int64s, counts: Int64s) -> Table:
    sizes, nulls = _empty_totals(layout)
    rows = measure_joined_kernel(layout.widths, sources, counts, sizes, nulls)
    block, places = layout.blank(rows, sizes, nulls)
    join_kernel(layout.widths, sources, counts, nulls, places, block)
    return Table(layout, block, places, 0, rows)


def empty(layout: Layout) -> Table:
    """Give a table without rows."""
    block, places = layout.blank(0, *_empty_totals(layout))
    return Table(layout, np.zeros(block.size, np.uint8), places, 0, 0)


def read(layout: Layout, records: Records) -> tuple[Table, Int64s]:
    """Copy the frames of some records into one table; gives the rows of each record, too.

    Raises:
        FrameError: a record is not a frame of this layout.
    """
    size, form = records.sizes.size, layout.message
    sources, counts = np.empty((size, layout.widths.size * PARTS + 1), np.int64), np.empty(size, np.int64)
    kept: list[Bytes] = []  # rewritten frames, as long as they are copied
    addresses, sizes, start = records.addresses, records.sizes, 0
    while start < size:
        start = locate_kernel(addresses, sizes, start, form.head, form.mask, form.spots, layout.widths, sources, counts)
        if start < size:
            kept.append(_rewritten(layout, value(records, start) or b""))
            addresses, sizes = addresses.copy(), sizes.copy()
            addresses[start], sizes[start] = kept[-1].ctypes.data, kept[-1].size
            if not kept[-1].size:
                counts[start], sources[start] = 0, 0
                start += 1
    return _join(layout, sources, counts), counts


def _rewritten(layout: Layout, payload: bytes) -> Bytes:
    """Give a frame as this process would write it: another version of Arrow may lay out metadata in another way."""
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(payload), layout.arrow)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise FrameError(f"a frame cannot be read: {error}; {len(payload)} bytes found") from error
    again = np.frombuffer(batch.serialize().to_pybytes() if batch.num_rows else b"", np.uint8)
    if bytes(again) == payload:
        raise FrameError(f"a frame cannot be read: its columns do not fit its {len(payload)} bytes")
    return again


def _empty_totals(layout: Layout) -> tuple[Int64s, Int64s]:
    return np.zeros(layout.widths.size, np.int64), np.zeros(layout.widths.size, np.int64)


def build(layout: Layout, columns: dict[str, Any], rows: int) -> Table:
    """Make a table of `rows` rows from columns by name.

    Args:
        layout: of the table; absent columns become -1, NaN or null.
        columns: a number for all rows, an array of numbers, a matrix [B, F], a `Text`, or a list of str and None.
        rows: how many.
    """
    texts = {name: _as_text(columns.get(name), rows) for name, d in zip(layout.names, layout.dtypes, strict=True) if not d}
    sizes, nulls = _empty_totals(layout)
    for name, text in texts.items():
        sizes[layout.places[name]] = int(text.offsets[-1]) - int(text.offsets[0])
        nulls[layout.places[name]] = text.valid.size
    block, places = layout.blank(rows, sizes, nulls)
    for column, (name, (valid, items, data)) in enumerate(zip(layout.names, places.tolist(), strict=True)):
        dtype = layout.dtypes[column]
        if dtype is not None:
            values, width = columns.get(name), int(layout.widths[column])
            if values is None:
                values = np.nan if dtype == np.float64 else -1
            elif isinstance(values, np.ndarray) and values.ndim > 1:
                values = values.reshape(-1)
            block[items : items + rows * width].view(dtype)[:] = values
            continue
        text = texts[name]
        start, stop = int(text.offsets[0]), int(text.offsets[-1])
        np.subtract(text.offsets, start, out=block[items : items + 4 * (rows + 1)].view(np.int32))
        block[data : data + stop - start] = text.data[start:stop]
        if valid >= 0:
            block[valid : valid + (rows + 7) // 8] = text.valid[: (rows + 7) // 8]
    return Table(layout, block, places, 0, rows)


def _as_text(values: Any, rows: int) -> Text:
    if isinstance(values, Text):
        return values
    values = [None] * rows if values is None else values
    parts = [b"" if one is None else one.encode() for one in values]
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    is_there = np.array([one is not None for one in values], np.bool_)
    valid = _NO_BITMAP if is_there.all() else np.packbits(is_there, bitorder="little")
    return Text(offsets, np.frombuffer(b"".join(parts) or bytes(1), np.uint8), valid)


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return 8 * int(kind.list_size)
    return TEXT if kind == pa.string() else int(kind.bit_width) // 8


def _dtype(kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return np.dtype(np.float64)
    return None if kind == pa.string() else np.dtype(kind.to_pandas_dtype())


__all__ = ["DATA", "ITEMS", "VALID", "Layout", "Table", "Text", "TextAt", "build", "empty", "gather", "join", "read"]
