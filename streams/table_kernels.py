"""Copying rows between blocks: how much room they need, and the copying itself (see tables.py, message_kernels.py)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined, straight
from streams.copying import copy_text
from streams.intrinsics import copy_bytes, load_8, load_32, load_64, store_8, store_32, store_64
from streams.message_kernels import DATA, ITEMS, PARTS, VALID

Int64s = npt.NDArray[np.int64]


@inlined
def _is_null(bitmap: int, row: int) -> bool:
    return bitmap != 0 and (load_8(bitmap + (row >> 3)) >> (row & 7)) & 1 == 0


@inlined
def _set_bit(bitmap: int, row: int) -> None:
    store_8(bitmap + (row >> 3), load_8(bitmap + (row >> 3)) | 1 << (row & 7))


@inlined
def _text_size(items: int, row: int) -> int:
    return load_32(items + 4 * row + 4) - load_32(items + 4 * row)


@straight
@bare
def measure_kernel(
    widths: Int64s,
    texts: Int64s,
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
    fixed = 4 * texts.size
    for column in range(widths.size):
        fixed += max(0, widths[column])
    total, stop = 0, min(index.size, start + most_rows)
    source = 0
    for at in range(start, stop):
        row = index[at]
        while row >= ends[source]:
            source += 1
        while source and row < ends[source - 1]:
            source -= 1
        row += sources[source, widths.size * PARTS] - (ends[source - 1] if source else 0)
        own = fixed
        for column in texts:
            own += _text_size(sources[source, column * PARTS + ITEMS], row)
        if total + own > most_bytes and at > start:
            return at
        total += own
        for column in texts:
            sizes[column] += _text_size(sources[source, column * PARTS + ITEMS], row)
            nulls[column] += _is_null(sources[source, column * PARTS + VALID], row)
        origins[0, at - start] = source
        origins[1, at - start] = row
    return stop


@straight
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
        elif width == 4:
            for at in range(rows):
                store_32(to + 4 * at, load_32(sources[origins[0, at], part] + 4 * origins[1, at]))
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
                copy_text(data + end, sources[source, part + 1] + begin, size)
                end += size
                store_32(to + 4 * at + 4, end)
        if nulls[column]:
            bitmap = address + places[column, VALID]
            for at in range((rows + 7) // 8):
                store_8(bitmap + at, 0)
            for at in range(rows):
                if not _is_null(sources[origins[0, at], column * PARTS + VALID], origins[1, at]):
                    _set_bit(bitmap, at)


@straight
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


@straight
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
