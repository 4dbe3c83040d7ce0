"""Copying rows between blocks: where columns lie, how much they need, and the copying itself (see tables.py).

A *source* is a table as kernels take it: for each column the addresses of its bitmap, items and text (0 where there is
none), then its first row. A column's width is the bytes of an item, -1 for text. A matrix is one item a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.intrinsics import copy_bytes, load_8, load_32, load_64, store_8, store_32, store_64
from streams.messages import BODY, BUFFERS, NODES, ROWS, MessageForm

VALID, ITEMS, DATA = 0, 1, 2
PARTS = 3
ALIGNMENT = 8

Int64s = npt.NDArray[np.int64]


@inlined
def _padded(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@inlined
def _is_null(bitmap: int, row: int) -> bool:
    return bitmap != 0 and (load_8(bitmap + (row >> 3)) >> (row & 7)) & 1 == 0


@inlined
def _set_bit(bitmap: int, row: int) -> None:
    store_8(bitmap + (row >> 3), load_8(bitmap + (row >> 3)) | 1 << (row & 7))


@inlined
def _closed(body: int, end: int) -> int:
    """Go from the end of a buffer to the begin of the next; what lies between is zero, as everything that travels."""
    for at in range(end, _padded(end)):
        store_8(body + at, 0)
    return _padded(end)


@bare
def place_kernel(widths: Int64s, rows: int, sizes: Int64s, nulls: Int64s, head: int, places: Int64s) -> int:
    """Lay out a block behind a head; gives its length. `places` is [C, 3], -1 where there is no bitmap or text."""
    at = head
    for column in range(widths.size):
        places[column, VALID] = places[column, DATA] = -1
        if nulls[column]:
            places[column, VALID] = at
            at += _padded((rows + 7) // 8)
        places[column, ITEMS] = at
        at += _padded(rows * widths[column] if widths[column] >= 0 else (rows + 1) * 4)
        if widths[column] < 0:
            places[column, DATA] = at
            at += _padded(sizes[column])
    return at


@bare
def head_kernel(
    form: MessageForm,
    widths: Int64s,
    matrix: int,
    rows: int,
    nulls: Int64s,
    places: Int64s,
    address: int,
    length: int,
) -> None:
    """Write the head of the message at `address`, as long as `length`, before its columns.

    Column `matrix` has two nodes and one buffer more than others have.
    """
    spots = form.spots
    for at in range(form.head.size):
        store_8(address + at, form.head[at])
    store_64(address + spots[ROWS], rows)
    store_64(address + spots[BODY], length - form.head.size)
    node, buffer, end, body = address + spots[NODES], address + spots[BUFFERS], 0, address + form.head.size
    for column in range(widths.size):
        store_64(node, rows)
        store_64(node + 8, nulls[column])
        node += 16
        store_64(buffer, end)
        store_64(buffer + 8, (rows + 7) // 8 if nulls[column] else 0)
        if nulls[column]:
            end = _closed(body, end + (rows + 7) // 8)
        buffer += 16
        width = widths[column]
        if column == matrix:
            store_64(node, rows * (width // 8))
            store_64(node + 8, 0)
            node += 16
            store_64(buffer, end)
            store_64(buffer + 8, 0)
            buffer += 16
        size = rows * width if width >= 0 else (rows + 1) * 4
        store_64(buffer, end)
        store_64(buffer + 8, size)
        end = _closed(body, end + size)
        buffer += 16
        if width < 0:
            size = load_32(address + places[column, ITEMS] + 4 * rows)
            store_64(buffer, end)
            store_64(buffer + 8, size)
            end = _closed(body, end + size)
            buffer += 16


@bare
def locate_kernel(
    addresses: Int64s,
    sizes: Int64s,
    start: int,
    form: MessageForm,
    widths: Int64s,
    matrix: int,
    sources: Int64s,
    counts: Int64s,
) -> int:
    """Make sources of messages from record `start` on; gives the first that is not as `form` says, else their number.

    A source is made only of what lies inside its record, texts included.
    """
    head, mask, spots = form.head, form.mask, form.spots
    for record in range(start, addresses.size):
        address, size = addresses[record], sizes[record]
        if size < head.size:
            return record
        for at in range(head.size):
            if mask[at] and load_8(address + at) != head[at]:
                return record
        rows, body, length = load_64(address + spots[ROWS]), address + head.size, size - head.size
        if rows < 0 or rows > length or load_64(address + spots[BODY]) > length:
            return record
        node, buffer = address + spots[NODES], address + spots[BUFFERS]
        for column in range(widths.size):
            width = widths[column]
            nulls, is_right = load_64(node + 8), load_64(node) == rows
            node += 16
            sources[record, column * PARTS + VALID] = sources[record, column * PARTS + DATA] = 0
            if nulls:
                at, room = load_64(buffer), load_64(buffer + 8)
                is_right &= width < 0 and at >= 0 and room >= (rows + 7) // 8 and at <= length - room
                sources[record, column * PARTS + VALID] = body + at
            buffer += 16
            if column == matrix:
                is_right &= load_64(node) == rows * (width // 8) and load_64(node + 8) == 0
                node += 16
                buffer += 16
            at, room = load_64(buffer), load_64(buffer + 8)
            wanted = rows * width if width >= 0 else (rows + 1) * 4
            is_right &= at >= 0 and room >= wanted and room <= length and at <= length - room
            sources[record, column * PARTS + ITEMS] = body + at
            buffer += 16
            if not is_right:
                return record
            if width < 0:
                items, at, room = body + at, load_64(buffer), load_64(buffer + 8)
                if at < 0 or room < 0 or room > length or at > length - room or room > 0x7FFFFFFF:
                    return record
                before = 0
                for row in range(rows + 1):
                    end = load_32(items + 4 * row)
                    if end < before or end > room:
                        return record
                    before = end
                sources[record, column * PARTS + DATA] = body + at
                buffer += 16
        sources[record, widths.size * PARTS] = 0
        counts[record] = rows
    return addresses.size


@bare
def measure_kernel(
    widths: Int64s,
    sources: Int64s,
    ends: Int64s,
    index: Int64s,
    start: int,
    limits: tuple[int, int],
    origins: Int64s,
    sizes: Int64s,
    nulls: Int64s,
) -> int:
    """Find the rows of a table, from `index[start]` on, and what their texts need; gives the index after the last.

    At most `limits`: rows and bytes, but always one row. `origins` is [2, B]: source and row of each.
    """
    most_rows, most_bytes = limits
    total, stop = 0, min(index.size, start + most_rows)
    source = 0
    for at in range(start, stop):
        row = index[at]
        while row >= ends[source]:
            source += 1
        while source and row < ends[source - 1]:
            source -= 1
        row += sources[source, widths.size * PARTS] - (ends[source - 1] if source else 0)
        own = 0
        for column in range(widths.size):
            own += max(0, widths[column])
            if widths[column] < 0:
                items = sources[source, column * PARTS + ITEMS]
                own += 4 + load_32(items + 4 * row + 4) - load_32(items + 4 * row)
        if total + own > most_bytes and at > start:
            return at
        total += own
        for column in range(widths.size):
            if widths[column] < 0:
                items = sources[source, column * PARTS + ITEMS]
                sizes[column] += load_32(items + 4 * row + 4) - load_32(items + 4 * row)
                nulls[column] += _is_null(sources[source, column * PARTS + VALID], row)
        origins[0, at - start] = source
        origins[1, at - start] = row
    return stop


@bare
def fill_kernel(
    widths: Int64s, sources: Int64s, origins: Int64s, rows: int, nulls: Int64s, places: Int64s, address: int
) -> None:
    """Copy the rows found by `measure_kernel` into a block."""
    for column in range(widths.size):
        width, part, to = widths[column], column * PARTS + ITEMS, address + places[column, ITEMS]
        if width == 8:
            for at in range(rows):
                store_64(to + 8 * at, load_64(sources[origins[0, at], part] + 8 * origins[1, at]))
        elif width == 1:
            for at in range(rows):
                store_8(to + at, load_8(sources[origins[0, at], part] + origins[1, at]))
        elif width >= 0:
            for at in range(rows):
                copy_bytes(to + width * at, sources[origins[0, at], part] + width * origins[1, at], width)
        else:
            data, end = address + places[column, DATA], 0
            store_32(to, 0)
            for at in range(rows):
                source, row = origins[0, at], origins[1, at]
                items = sources[source, part]
                begin = load_32(items + 4 * row)
                size = load_32(items + 4 * row + 4) - begin
                copy_bytes(data + end, sources[source, part + 1] + begin, size)
                end += size
                store_32(to + 4 * at + 4, end)
        if nulls[column]:
            bitmap = address + places[column, VALID]
            for at in range((rows + 7) // 8):
                store_8(bitmap + at, 0)
            for at in range(rows):
                if not _is_null(sources[origins[0, at], column * PARTS + VALID], origins[1, at]):
                    _set_bit(bitmap, at)


@bare
def measure_joined_kernel(widths: Int64s, sources: Int64s, counts: Int64s, sizes: Int64s, nulls: Int64s) -> int:
    """Add up what the tables of some sources need together; gives their rows."""
    total = 0
    for source in range(counts.size):
        rows, first = counts[source], sources[source, widths.size * PARTS]
        total += rows
        for column in range(widths.size):
            if widths[column] < 0 and rows:
                items = sources[source, column * PARTS + ITEMS]
                sizes[column] += load_32(items + 4 * (first + rows)) - load_32(items + 4 * first)
                bitmap = sources[source, column * PARTS + VALID]
                if bitmap:
                    for row in range(first, first + rows):
                        nulls[column] += _is_null(bitmap, row)
    return total


@bare
def join_kernel(widths: Int64s, sources: Int64s, counts: Int64s, nulls: Int64s, places: Int64s, address: int) -> None:
    """Copy the tables of some sources behind one another into a block."""
    for column in range(widths.size):
        width, to = widths[column], address + places[column, ITEMS]
        data, end, done = address + places[column, DATA], 0, 0
        bitmap = address + places[column, VALID]
        if width < 0:
            store_32(to, 0)
        if nulls[column]:
            rows = 0
            for source in range(counts.size):
                rows += counts[source]
            for at in range((rows + 7) // 8):
                store_8(bitmap + at, 0)
        for source in range(counts.size):
            rows, first = counts[source], sources[source, widths.size * PARTS]
            items = sources[source, column * PARTS + ITEMS]
            if width >= 0:
                copy_bytes(to + width * done, items + width * first, width * rows)
            elif rows:
                begin, size = load_32(items + 4 * first), load_32(items + 4 * (first + rows))
                size -= begin
                copy_bytes(data + end, sources[source, column * PARTS + DATA] + begin, size)
                for row in range(rows):
                    store_32(to + 4 * (done + row + 1), load_32(items + 4 * (first + row + 1)) - begin + end)
                end += size
            if nulls[column]:
                own = sources[source, column * PARTS + VALID]
                for row in range(rows):
                    if not _is_null(own, first + row):
                        _set_bit(bitmap, done + row)
            done += rows
