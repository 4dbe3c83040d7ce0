"""Tables: rows in columns, lying in one block of memory just as they travel in a frame.

A block is an Arrow IPC record-batch message: its metadata, then the columns' buffers, each on a multiple of 8 bytes.
Reading frames is checking their metadata and copying their columns behind one another; writing one is copying the rows
that it shall have and filling in the metadata. Both are a pass of a kernel (table_kernels.py) over any number of
tables: pyarrow's own objects cost more than the rows of a small frame.

Source: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.errors import FrameError
from streams.messages import MessageForm, message_form
from streams.records import Records, value
from streams.table_kernels import (
    ITEMS,
    PARTS,
    fill_kernel,
    head_kernel,
    join_kernel,
    locate_kernel,
    measure_joined_kernel,
    measure_kernel,
    place_kernel,
)

TEXT = -1
"""The width of a column of text."""
SLACK = 8  # bytes
NO_LIMITS = (1 << 40, 1 << 60)
_NO_BITMAP = np.frombuffer(b"", np.uint8)

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Text(NamedTuple):
    """A column of text as views: `data[offsets[i]:offsets[i+1]]`; `valid` is a bitmap, empty without nulls."""

    offsets: npt.NDArray[np.int32]
    data: Bytes
    valid: Bytes


class TextAt(NamedTuple):
    """A column of text as addresses, for kernels that copy text; valid as long as its table lives."""

    offsets: int
    data: int
    valid: int  # of the bitmap, 0 without nulls
    start: int  # row i is bit `start + i` of the bitmap


class Layout:
    """How the rows of an Arrow schema lie in a block: what is known of its columns before there are any rows.

    Attributes:
        arrow: the schema; columns are numbers, text, or one fixed-size list of float64 (the feature matrix).
        names: of the columns, in order.
        places: the number of each column.
        widths: [C] bytes of a row in each column, TEXT for text.
        dtypes: [C] of the numbers in each column, None for text.
        matrix: the number of the feature matrix, -1 where there is none.
        features: the width F of the matrix.
        columns: the number C of columns.
        form: what the metadata of all messages have in common.
    """

    def __init__(self, arrow: pa.Schema) -> None:
        self.arrow = arrow
        self.names = tuple(arrow.names)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.widths = np.array([_width(field.type) for field in arrow], np.int64)
        self.dtypes = [_dtype(field.type) for field in arrow]
        is_matrix = [pa.types.is_fixed_size_list(field.type) for field in arrow]
        self.matrix = is_matrix.index(True) if any(is_matrix) else -1
        self.form: MessageForm = message_form(arrow)
        self.columns = self.widths.size
        self.features = int(self.widths[self.matrix]) // 8 if self.matrix >= 0 else 0

    def __eq__(self, other: object) -> bool:
        """Equal schemas lie in the same way."""
        return isinstance(other, Layout) and bool(self.arrow.equals(other.arrow))

    def __hash__(self) -> int:
        """As their names."""
        return hash(self.names)

    def zeros(self) -> Int64s:
        """Room for a number per column."""
        return np.zeros(self.columns, np.int64)

    def blank(self, rows: int, sizes: Int64s, nulls: Int64s, spare: int = SLACK) -> tuple[Bytes, Int64s, int]:
        """Make a block for `rows` rows, with `sizes` bytes of text in each column and a bitmap where `nulls` is not 0.

        `spare` bytes follow the message, so that a column is never without memory.

        Returns:
            The block, whose contents are arbitrary; where its columns begin: [C, 3] bitmap, items or offsets, text, -1
            where there is none; and the length of the message.
        """
        places = np.empty((self.columns, PARTS), np.int64)
        length = place_kernel(self.widths, rows, sizes, nulls, self.form.head.size, places)
        return np.empty(length + max(spare, SLACK), np.uint8), places, length


class Table:
    """Rows of one layout: views of its columns are read-only and cost nothing.

    Args:
        layout: of the block.
        block: the memory; nobody writes to these rows any more.
        places: where columns begin in it, see `Layout.blank`.
        start: the first row of the block that belongs to this table.
        num_rows: how many rows it has.
        length: of the message that the block begins with, if these are its rows; else 0.
    """

    __slots__ = ("_address", "block", "layout", "length", "num_rows", "places", "start")

    def __init__(
        self, layout: Layout, block: Bytes, places: Int64s, start: int, num_rows: int, length: int = 0
    ) -> None:
        self.layout = layout
        self.block = block.view()
        self.block.flags.writeable = False
        self.places = places
        self.start = start
        self.num_rows = num_rows
        self.length = length
        self._address = address_of(block)

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """View a column of numbers."""
        column = self.layout.places[name]
        dtype = self.layout.dtypes[column]
        at = int(self.places[column, ITEMS]) + self.start * dtype.itemsize
        return self.block[at : at + self.num_rows * dtype.itemsize].view(dtype)

    def matrix(self) -> npt.NDArray[np.float64]:
        """View the feature matrix as [B, F]."""
        column = self.layout.matrix
        width = int(self.layout.widths[column])
        at = int(self.places[column, ITEMS]) + self.start * width
        flat = self.block[at : at + self.num_rows * width].view(np.float64)
        return flat.reshape(self.num_rows, self.layout.features)

    def text(self, name: str) -> Text:
        """View a column of text."""
        valid, items, data = self.places[self.layout.places[name]].tolist()
        at = items + 4 * self.start
        offsets = self.block[at : at + 4 * (self.num_rows + 1)].view(np.int32)
        bitmap = _NO_BITMAP
        if valid >= 0:
            bitmap = self.block[valid : valid + (self.start + self.num_rows + 7) // 8]
            if self.start:
                bitmap = np.packbits(np.unpackbits(bitmap, bitorder="little")[self.start :], bitorder="little")
                bitmap.flags.writeable = False
        return Text(offsets, self.block[data:], bitmap)

    def text_at(self, name: str) -> TextAt:
        """Give the addresses of a column of text."""
        valid, items, data = self.places[self.layout.places[name]].tolist()
        bitmap = self._address + valid if valid >= 0 else 0
        return TextAt(self._address + items + 4 * self.start, self._address + data, bitmap, self.start)

    def slice(self, start: int, rows: int | None = None) -> Table:
        """Give at most `rows` rows from `start` on, without a copy; None is all there are."""
        rest = self.num_rows - start
        rows = rest if rows is None else min(rows, rest)
        return Table(self.layout, self.block, self.places, self.start + start, rows)

    def take(self, index: Int64s) -> Table:
        """Copy rows by index."""
        return gather([self], index)

    def source(self) -> Int64s:
        """Give the addresses of all parts and the first row, as kernels take them."""
        found = np.empty(self.places.size + 1, np.int64)
        flat = self.places.reshape(-1)
        found[:-1] = np.where(flat >= 0, flat + self._address, 0)
        found[-1] = self.start
        return found

    def message(self) -> bytes:
        """Give the frame of these rows."""
        whole = self if self.length else join([self])
        return whole.block[: whole.length].tobytes()

    def to_arrow(self) -> pa.RecordBatch:
        """Copy the rows into an Arrow record batch."""
        return pa.ipc.read_record_batch(pa.py_buffer(self.message()), self.layout.arrow)


def gather(tables: Sequence[Table], index: Int64s) -> Table:
    """Copy rows of several tables of one layout into a new one, in any order.

    Args:
        tables: at least one.
        index: [B] of each row, counted through all tables.
    """
    return next(cut(tables, index, NO_LIMITS)) if index.size else empty(tables[0].layout)


def cut(tables: Sequence[Table], index: Int64s, limits: tuple[int, int]) -> Iterator[Table]:
    """Copy rows as `gather` does, into as many tables as it takes to keep each within `limits`: rows, and bytes.

    A row that is larger has a table for itself.
    """
    layout = tables[0].layout
    sources = np.stack([table.source() for table in tables])
    ends = np.cumsum([table.num_rows for table in tables])
    origins = np.empty((2, min(index.size, limits[0])), np.int64)
    start = 0
    while start < index.size:
        sizes, nulls = layout.zeros(), layout.zeros()
        stop = measure_kernel(layout.widths, sources, ends, index, start, limits, origins, sizes, nulls)
        rows = stop - start
        block, places, length = layout.blank(rows, sizes, nulls)
        fill_kernel(layout.widths, sources, origins, rows, nulls, places, address_of(block))
        yield _finished(layout, block, places, rows, nulls, length)
        start = stop


def join(tables: Sequence[Table]) -> Table:
    """Copy tables of one layout behind one another into a new one."""
    sources = np.stack([table.source() for table in tables])
    return join_sources(tables[0].layout, sources, np.array([table.num_rows for table in tables], np.int64))


def join_sources(layout: Layout, sources: Int64s, counts: Int64s) -> Table:
    """Copy the first `counts` rows of each source (see table_kernels.py) into a new table."""
    sizes, nulls = layout.zeros(), layout.zeros()
    rows = measure_joined_kernel(layout.widths, sources, counts, sizes, nulls)
    block, places, length = layout.blank(rows, sizes, nulls)
    join_kernel(layout.widths, sources, counts, nulls, places, address_of(block))
    return _finished(layout, block, places, rows, nulls, length)


def _finished(layout: Layout, block: Bytes, places: Int64s, rows: int, nulls: Int64s, length: int) -> Table:
    address = address_of(block)
    head_kernel(layout.form, layout.widths, layout.matrix, rows, nulls, places, address, length)
    return Table(layout, block, places, 0, rows, length)


def empty(layout: Layout) -> Table:
    """Give a table without rows."""
    return join_sources(layout, np.zeros((0, layout.columns * PARTS + 1), np.int64), np.zeros(0, np.int64))


def read(layout: Layout, records: Records) -> tuple[Table, Int64s]:
    """Copy the frames of some records into one table; gives the rows of each record, too.

    Raises:
        FrameError: a record is not a frame of this layout.
    """
    size, form = records.sizes.size, layout.form
    sources, counts = np.empty((size, layout.columns * PARTS + 1), np.int64), np.empty(size, np.int64)
    addresses, sizes, start = records.addresses, records.sizes, 0
    kept: list[Bytes] = []  # rewritten frames, as long as they are copied
    while True:
        start = locate_kernel(addresses, sizes, start, form, layout.widths, layout.matrix, sources, counts)
        if start == size:
            return join_sources(layout, sources, counts), counts
        kept.append(_rewritten(layout, records, start))
        addresses, sizes = addresses.copy(), sizes.copy()
        addresses[start], sizes[start] = address_of(kept[-1]), kept[-1].size


def _rewritten(layout: Layout, records: Records, i: int) -> Bytes:
    """Give a frame as this process would write it: another version of Arrow may lay out its metadata in another way."""
    payload = value(records, i) or b""
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(payload), layout.arrow)
        batch.validate(full=True)
        columns = {name: _column(batch.column(name)) for name in layout.names}
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        where = f"partition {records.partition}, offset {records.offsets[i]}: {len(payload)} bytes"
        raise FrameError(f"a frame of {records.topic} cannot be read: {error} ({where})") from error
    table = Builder(layout, {}).build(columns, batch.num_rows)
    return np.frombuffer(table.message(), np.uint8)


def _column(array: pa.Array) -> Any:
    if array.type == pa.string():
        return text_of(array)
    if array.null_count:
        raise pa.ArrowInvalid("a column of numbers has nulls")
    return np.asarray(array.flatten() if pa.types.is_fixed_size_list(array.type) else array)


def text_of(array: pa.StringArray) -> Text:
    """View an Arrow column of text as arrays, without a copy of its texts."""
    valid, offsets, data = array.buffers()
    views = np.zeros(1, np.int32)
    if len(array):
        views = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4)
    bitmap = _NO_BITMAP
    if array.null_count and array.offset:
        bitmap = np.packbits(array.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    elif array.null_count:
        bitmap = np.frombuffer(valid, np.uint8)
    bytes_ = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    for view in (views, bytes_, bitmap):
        view.flags.writeable = False
    return Text(views, bytes_, bitmap)


class Builder:
    """Makes tables of columns.

    Args:
        layout: of the tables.
        constants: columns that hold one number in every row; other absent columns become -1, NaN or null.
    """

    def __init__(self, layout: Layout, constants: dict[str, int]) -> None:
        self._layout = layout
        self._constants = constants
        self._held: list[npt.NDArray[Any]] = []
        self._source = np.zeros((1, layout.columns * PARTS + 1), np.int64)
        self._room = -1

    def build(self, columns: dict[str, Any], rows: int) -> Table:
        """Make a table of `rows` rows; columns are arrays of numbers, a matrix [B, F], or a `Text`."""
        if rows > self._room:
            self._grow(max(rows, 2 * self._room))
        source, kept, layout = self._source.copy(), [], self._layout
        for name, values in columns.items():
            column = layout.places.get(name)
            if column is None or values is None:
                continue
            at = column * PARTS
            dtype = layout.dtypes[column]
            if dtype is None:
                offsets = np.ascontiguousarray(values.offsets)
                source[0, at : at + PARTS] = (
                    address_of(values.valid) if values.valid.size else 0,
                    address_of(offsets),
                    address_of(values.data),
                )
                kept.append(offsets)
            else:
                numbers = np.ascontiguousarray(values, dtype)
                source[0, at + ITEMS] = address_of(numbers)
                kept.append(numbers)
        return join_sources(layout, source, np.array([rows], np.int64))

    def _grow(self, rows: int) -> None:
        """Hold what absent columns are made of."""
        self._held, layout = [], self._layout
        for column, (name, dtype) in enumerate(zip(layout.names, layout.dtypes, strict=True)):
            at, width = column * PARTS, int(layout.widths[column])
            if dtype is None:
                bitmap, offsets, nothing = np.zeros(rows // 8 + 1, np.uint8), np.zeros(rows + 1, np.int32), np.zeros(8)
                self._held += [bitmap, offsets, nothing]
                self._source[0, at : at + PARTS] = address_of(bitmap), address_of(offsets), address_of(nothing)
            else:
                filler = np.nan if dtype == np.float64 else -1
                numbers = np.full(max(1, rows * width // dtype.itemsize), self._constants.get(name, filler), dtype)
                self._held.append(numbers)
                self._source[0, at + ITEMS] = address_of(numbers)
        self._room = rows


def address_of(array: npt.NDArray[Any]) -> int:
    """Give the address of an array's first item."""
    address: int = array.__array_interface__["data"][0]
    return address


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return 8 * int(kind.list_size)
    return TEXT if kind == pa.string() else int(kind.bit_width) // 8


def _dtype(kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return np.dtype(np.float64)
    return None if kind == pa.string() else np.dtype(kind.to_pandas_dtype())
