"""Making tables: of frames as they were read, and of columns.

Source: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.errors import FrameError
from streams.layouts import NO_BITMAP, Bytes, Int64s, Layout, Text
from streams.memory import address_of
from streams.message_kernels import ITEMS, PARTS, locate_kernel
from streams.records import Records, value
from streams.tables import Table, join_sources


class Located:
    """Rows of one frame that still lie in its record: `streams.tables.join` copies them, in whatever pieces.

    Args:
        layout: of the rows.
        source: where the columns are, and which is the first row (see message_kernels.py).
        num_rows: how many rows it has.
        owner: what holds the record, as long as these rows are needed.
    """

    __slots__ = ("_owner", "_source", "layout", "num_rows")

    def __init__(self, layout: Layout, source: Int64s, num_rows: int, owner: object) -> None:
        self.layout, self.num_rows = layout, num_rows
        self._source, self._owner = source, owner

    def source(self) -> Int64s:
        """Give the addresses of all parts and the first row, as kernels take them; not to be written to."""
        return self._source

    def slice(self, start: int, rows: int | None = None) -> Located:
        """Give at most `rows` rows from `start` on, without a copy; None is all there are."""
        rest = self.num_rows - start
        source = self._source.copy()
        source[-1] += start
        return Located(self.layout, source, rest if rows is None else min(rows, rest), self._owner)


def locate(layout: Layout, records: Records) -> list[Located]:
    """Find the rows of each of some frames, each of which keeps all these records from being given back.

    Raises as `read`.
    """
    sources, counts, kept = _sources(layout, records)
    owner = (records, kept)
    return [Located(layout, source, rows, owner) for source, rows in zip(sources, counts.tolist(), strict=True)]


def read(layout: Layout, records: Records) -> tuple[Table, Int64s]:
    """Copy the frames of some records into one table; gives the rows of each record, too.

    Raises:
        FrameError: a record is not a frame of this layout.
    """
    sources, counts, _ = _sources(layout, records)
    return join_sources(layout, sources, counts), counts


def _sources(layout: Layout, records: Records) -> tuple[Int64s, Int64s, list[Bytes]]:
    """Give the source and the rows of each frame, and rewritten ones, which somebody must hold."""
    size, form = records.sizes.size, layout.form
    sources, counts = np.empty((size, layout.columns * PARTS + 1), np.int64), np.empty(size, np.int64)
    addresses, sizes, start = records.addresses, records.sizes, 0
    kept: list[Bytes] = []
    while True:
        start = locate_kernel(addresses, sizes, start, form, layout.widths, layout.matrix, sources, counts)
        if start == size:
            return sources, counts, kept
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
    return table.payload()


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
    bitmap = NO_BITMAP
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
