"""Tables: rows in columns, lying in one block of memory just as they travel in a frame.

A block is an Arrow IPC record-batch message: its metadata, then the columns' buffers, each on a multiple of 8 bytes.
Reading frames is checking their metadata and copying their columns behind one another; writing one is copying the rows
that it shall have and filling in the metadata. Both are a pass of a kernel (message_kernels.py, table_kernels.py) over
any number of tables: pyarrow's own objects cost more than the rows of a small frame.

Source: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.layouts import NO_BITMAP, NOTHING, Bytes, Int64s, Layout, Memory, Text, TextAt, own_memory
from streams.memory import HeapBytes, address_of
from streams.message_kernels import ITEMS, PARTS, head_kernel, source_kernel
from streams.table_kernels import fill_kernel, join_kernel, measure_joined_kernel, measure_kernel

NO_LIMITS = (1 << 40, 1 << 60)


class Table:
    """Rows of one layout: views of its columns are read-only and cost nothing.

    Args:
        layout: of the block.
        block: the memory; nobody who reads these rows sees them written to.
        places: where columns begin in it, see `Layout.blank`.
        start: the first row of the block that belongs to this table.
        num_rows: how many rows it has.
        length: of the message that the block begins with, if these are its rows; else 0.
        address: of the block, if the caller knows it.
    """

    __slots__ = ("_address", "_source", "_views", "block", "layout", "length", "num_rows", "places", "start")

    def __init__(
        self, layout: Layout, block: Bytes, places: Int64s, start: int, num_rows: int, length: int = 0, address: int = 0
    ) -> None:
        self.layout = layout
        self._address = address or address_of(block)
        if block.flags.writeable:
            block = block.view()
            block.flags.writeable = False
        self.block = block
        self.places = places
        self.start = start
        self.num_rows = num_rows
        self.length = length
        self._source: Int64s | None = None
        self._views: dict[str, npt.NDArray[Any]] = {}

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """View a column of numbers."""
        found = self._views.get(name)
        if found is None:  # most columns are asked for several times, and a view takes longer than a few rows
            column = self.layout.places[name]
            dtype = self.layout.dtypes[column]
            at = self.places.item(column, ITEMS) + self.start * dtype.itemsize
            found = self._views[name] = self.block[at : at + self.num_rows * dtype.itemsize].view(dtype)
        return found

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
        bitmap = NO_BITMAP
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
        return Table(self.layout, self.block, self.places, self.start + start, rows, 0, self._address)

    def take(self, index: Int64s) -> Table:
        """Copy rows by index."""
        return gather([self], index)

    def source(self) -> Int64s:
        """Give the addresses of all parts and the first row, as kernels take them; not to be written to."""
        if self._source is None:
            self._source = np.empty(self.places.size + 1, np.int64)
            source_kernel(self.places, self._address, self.start, self._source)
        return self._source

    def payload(self) -> Bytes:
        """Give the frame of these rows: a view of the table's own memory, or of a copy of those it has a part of."""
        whole = self if self.length else join([self])
        return whole.block[: whole.length]

    def give(self) -> HeapBytes:
        """Give the frame of these rows without a copy, and its memory with it: this table has no rows any more.

        Only what `cut` made with `heap_memory` can be given away, and whoever has views of it must not use them again.
        """
        given: Any = self.block
        while isinstance(given, np.ndarray):
            given = given.base
        if not isinstance(given, HeapBytes) or not self.length:
            raise TypeError("only a whole frame in memory of the heap can be given away")
        given.size, self.block, self.num_rows = self.length, NOTHING, 0
        self._address, self._source = 0, None  # who looks at it nevertheless fails at once
        self._views.clear()
        return given

    def message(self) -> bytes:
        """Give the frame of these rows as a copy."""
        return self.payload().tobytes()

    def to_arrow(self) -> pa.RecordBatch:
        """Copy the rows into an Arrow record batch."""
        return pa.ipc.read_record_batch(pa.py_buffer(self.message()), self.layout.arrow)


class Overlay(Table):
    """The rows of a table in another layout, with some columns laid over its own.

    Args:
        layout: of the rows as they shall be; what is not laid over is the table's column of the same name.
        rows: the table.
        columns: numbers [B] or the matrix [B, F], by name, as the layout has them; nobody writes to them any more.
    """

    __slots__ = ("_columns", "_rows")

    def __init__(self, layout: Layout, rows: Table, columns: dict[str, npt.NDArray[Any]]) -> None:
        super().__init__(layout, rows.block, rows.places, rows.start, rows.num_rows)
        self._rows, self._columns = rows, {name: sealed(values) for name, values in columns.items()}

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """View a column of numbers."""
        return self._columns[name] if name in self._columns else self._rows.numbers(name)

    def matrix(self) -> npt.NDArray[np.float64]:
        """View the feature matrix as [B, F]."""
        name = self.layout.names[self.layout.matrix]
        return self._columns[name] if name in self._columns else self._rows.matrix()

    def text(self, name: str) -> Text:
        """View a column of text."""
        return self._rows.text(name)

    def text_at(self, name: str) -> TextAt:
        """Give the addresses of a column of text."""
        return self._rows.text_at(name)

    def slice(self, start: int, rows: int | None = None) -> Table:
        """Give at most `rows` rows from `start` on, as a copy."""
        return join([self]).slice(start, rows)

    def source(self) -> Int64s:
        """Give the addresses of all parts and the first row, as kernels take them; not to be written to."""
        if self._source is None:
            theirs, layout, widths = self._rows.source(), self.layout, self.layout.widths.tolist()
            self._source = np.zeros(layout.columns * PARTS + 1, np.int64)
            self._source[-1] = self.start
            for column, name in enumerate(layout.names):
                at = column * PARTS
                if name in self._columns:
                    self._source[at + ITEMS] = address_of(self._columns[name]) - self.start * widths[column]
                else:
                    before = self._rows.layout.places[name] * PARTS
                    self._source[at : at + PARTS] = theirs[before : before + PARTS]
        return self._source


def sealed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View an array as all columns of a table are, read-only: kernels are compiled for one kind of array."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


class Sourced(Protocol):
    """Rows that kernels find by their addresses: those of a table, or of a frame that still lies in its record."""

    layout: Layout
    num_rows: int

    def source(self) -> Int64s:
        """Give the addresses of all parts and the first row (see message_kernels.py)."""


class Stack:
    """Tables of one layout as if they were one: what rows are picked from, by an index counted through all of them.

    Args:
        tables: at least one.

    Attributes:
        layout: of the tables.
        num_rows: of all tables.
        sources: [T, 3 C + 1] their sources (see message_kernels.py).
        ends: [T] the number of rows up to the end of each.
    """

    def __init__(self, tables: Sequence[Sourced]) -> None:
        self.layout = tables[0].layout
        self.tables = tuple(tables)  # their memory must stay
        self.sources = np.empty((len(tables), self.layout.columns * PARTS + 1), np.int64)
        self.ends = np.empty(len(tables), np.int64)
        self.num_rows = 0
        for place, table in enumerate(tables):
            self.num_rows += table.num_rows
            self.sources[place], self.ends[place] = table.source(), self.num_rows


def gather(tables: Sequence[Table], index: Int64s) -> Table:
    """Copy rows of several tables of one layout into a new one, in any order.

    Args:
        tables: at least one.
        index: [B] of each row, counted through all tables.
    """
    return next(cut(Stack(tables), index, NO_LIMITS)) if index.size else empty(tables[0].layout)


def cut(stack: Stack, index: Int64s, limits: tuple[int, int], memory: Memory = own_memory) -> Iterator[Table]:
    """Copy rows as `gather` does, into as many tables as it takes to keep each within `limits`: rows, and bytes.

    A row that is larger has a table for itself. The tables lie in what `memory` gives.
    """
    layout = stack.layout
    index = np.ascontiguousarray(index, np.int64)  # kernels are called straight, and take it as it lies
    origins = np.empty((2, min(index.size, limits[0])), np.int64)
    start = 0
    while start < index.size:
        sizes, nulls = layout.zeros(), layout.zeros()
        stop = measure_kernel(
            layout.widths, layout.texts, stack.sources, stack.ends, index, start, limits, origins, sizes, nulls
        )
        rows = stop - start
        block, places, length = layout.blank(rows, sizes, nulls, memory=memory)
        fill_kernel(layout.widths, stack.sources, origins, rows, nulls, places, address_of(block))
        yield _finished(layout, block, places, rows, nulls, length)
        start = stop


def join(tables: Sequence[Sourced], memory: Memory = own_memory) -> Table:
    """Copy rows of one layout behind one another into a new table, which lies in what `memory` gives."""
    counts = np.array([table.num_rows for table in tables], np.int64)
    return join_sources(tables[0].layout, Stack(tables).sources, counts, memory)


def join_sources(layout: Layout, sources: Int64s, counts: Int64s, memory: Memory = own_memory) -> Table:
    """Copy the first `counts` rows of each source (see table_kernels.py) into a new table, as `join` does."""
    sizes, nulls = layout.zeros(), layout.zeros()
    rows = measure_joined_kernel(layout.widths, sources, counts, sizes, nulls)
    block, places, length = layout.blank(rows, sizes, nulls, memory=memory)
    join_kernel(layout.widths, sources, counts, nulls, places, address_of(block))
    return _finished(layout, block, places, rows, nulls, length)


def _finished(layout: Layout, block: Bytes, places: Int64s, rows: int, nulls: Int64s, length: int) -> Table:
    address = address_of(block)
    head_kernel(layout.form, layout.widths, layout.matrix, rows, nulls, places, address, length)
    return Table(layout, block, places, 0, rows, length, address)


def empty(layout: Layout) -> Table:
    """Give a table without rows."""
    return join_sources(layout, np.zeros((0, layout.columns * PARTS + 1), np.int64), np.zeros(0, np.int64))
