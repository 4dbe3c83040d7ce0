"""Messages as kernels see them: where the columns of a block lie, its head, and finding them in a record (tables.py).

A *source* is a table as kernels take it: for each column the addresses of its bitmap, items and text (0 where there is
none), then its first row. A column's width is the bytes of an item, -1 for text. A matrix is one item a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined, straight
from streams.intrinsics import load_8, load_32, load_64, store_8, store_64
from streams.messages import BODY, BUFFERS, NODES, ROWS, MessageForm

VALID, ITEMS, DATA = 0, 1, 2
PARTS = 3
ALIGNMENT = 8

Int64s = npt.NDArray[np.int64]


@inlined
def _padded(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@inlined
def _closed(body: int, end: int) -> int:
    """Go from the end of a buffer to the begin of the next; what lies between is zero, as everything that travels."""
    for at in range(end, _padded(end)):
        store_8(body + at, 0)
    return _padded(end)


@straight
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


@straight
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


@straight
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


@straight
@bare
def source_kernel(places: Int64s, address: int, start: int, source: Int64s) -> None:
    """Make the source of the rows from `start` on of a block at `address`."""
    for column in range(places.shape[0]):
        for part in range(PARTS):
            at = places[column, part]
            source[column * PARTS + part] = address + at if at >= 0 else 0
    source[places.size] = start
