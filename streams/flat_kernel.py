"""Flat JSON records to columns: the compiled pass. `streams.flat_records` says what it is for.

Shapes: B records, of which the plain ones fill the first rows of `common` [COMMON, B], `floats` [columns, B] and
`spans` [2 * columns, B], where lines 2c and 2c + 1 hold address and size (-1 for null) of text column c.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.copying import copy_text
from streams.intrinsics import load_8, load_64
from streams.json_kernel import (
    CLOSE,
    COLON,
    COMMA,
    MAX_EXACT,
    MINUS,
    NINE,
    OPEN,
    QUOTE,
    ZERO,
    is_at_kernel,
    literal_end_kernel,
    number_kernel,
    scaled_kernel,
    skip_space_kernel,
    string_end_kernel,
)
from streams.pipeline import LARGEST_LABEL
from streams.timestamps import INVALID, epoch_time_kernel, parse_time_kernel

TEXT, CATEGORY, NUMBER, BOOLEAN, LABEL, VALUE, EPOCH, DATE_TIME, _UNKNOWN = range(9)

# What is known of each wanted name, one row per name: its kind, its column among those of its sort, address and length
# of the name and the quote behind it, their first eight bytes with a mask, and the last record it was seen in.
KIND, COLUMN, NAME, LENGTH, WORD, MASK, SEEN, FACTS = range(8)
# What every row has, one line each:
SEQUENCE, STAMP, TIME, COMMON = range(4)

_F, _N, _T = b"fnt"

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@bare
def read_kernel(
    addresses: Int64s,
    sizes: Int64s,
    offsets: Int64s,
    stamps: Int64s,
    plan: Int64s,
    guesses: Int64s,
    serial: int,
    record_bytes: int,
    text_bytes: int,
    skew_us: int,
    unit_us: float,
    common: Int64s,
    floats: Floats,
    spans: Int64s,
    totals: Int64s,
    rest: Int64s,
) -> int:
    """Read every record into the next free row; a row that turns out to be no good is written over by the next one."""
    row = 0
    for i in range(addresses.size):
        common[TIME, row] = stamps[i]
        end = addresses[i] + sizes[i]
        is_good = 0 < sizes[i] <= record_bytes and _read_one(
            addresses[i], end, plan, guesses, serial + i, text_bytes, unit_us, common, floats, spans, row
        )
        if not is_good or common[TIME, row] == INVALID or common[TIME, row] > stamps[i] + skew_us:
            rest[i - row] = i
            continue
        for column in range(totals.shape[1]):
            size = spans[2 * column + 1, row]
            totals[0, column] += max(size, 0)
            totals[1, column] += size < 0
        common[SEQUENCE, row] = offsets[i]
        common[STAMP, row] = stamps[i]
        row += 1
    return row


@inlined
def _read_one(
    at: int,
    end: int,
    plan: Int64s,
    guesses: Int64s,
    serial: int,
    text_bytes: int,
    unit_us: float,
    common: Int64s,
    floats: Floats,
    spans: Int64s,
    row: int,
) -> bool:
    """Read one record; whether it is plain and good, but for what its time says."""
    at = skip_space_kernel(at, end)
    if not is_at_kernel(at, end, OPEN):
        return False
    at = skip_space_kernel(at + 1, end)
    left = plan.shape[0]
    place = 0
    while True:
        if not is_at_kernel(at, end, QUOTE):
            return False
        slot = guesses[place]
        if slot >= 0 and _is_name(at + 1, end, plan, slot):
            at += 1 + plan[slot, LENGTH]
        else:
            slot, at = _find_name(at + 1, end, plan)
            if at < 0:
                return False
            guesses[place] = slot
        if slot >= 0:
            if plan[slot, SEEN] == serial:
                return False  # which of the two counts is not ours to say
            plan[slot, SEEN] = serial
            left -= 1
        at = skip_space_kernel(at, end)
        if not is_at_kernel(at, end, COLON):
            return False
        at = skip_space_kernel(at + 1, end)
        if at >= end:
            return False
        at = _read_value(at, end, plan, slot, text_bytes, unit_us, common, floats, spans, row)
        if at < 0:
            return False
        at = skip_space_kernel(at, end)
        if not is_at_kernel(at, end, COMMA):
            break
        at = skip_space_kernel(at + 1, end)
        place = min(place + 1, guesses.size - 1)
    if not is_at_kernel(at, end, CLOSE) or skip_space_kernel(at + 1, end) != end:
        return False
    return left == 0 or _fill_absent(plan, serial, floats, spans, row)


@inlined
def _is_name(at: int, end: int, plan: Int64s, slot: int) -> bool:
    """Whether a wanted name and the quote behind it stand at an address."""
    length: int = plan[slot, LENGTH]
    if at + length > end:
        return False
    known = 0
    if at + 8 <= end:
        if (load_64(at) & plan[slot, MASK]) != plan[slot, WORD]:
            return False
        known = 8
    name = plan[slot, NAME]
    while known < length and load_8(at + known) == load_8(name + known):
        known += 1
    return known >= length


@inlined
def _find_name(at: int, end: int, plan: Int64s) -> tuple[int, int]:
    """Give which wanted name stands at an address, -1 for another one, and the address behind its quote."""
    for slot in range(plan.shape[0]):
        if _is_name(at, end, plan, slot):
            return slot, at + plan[slot, LENGTH]
    at = string_end_kernel(at, end)
    return -1, (at + 1 if at >= 0 else -1)


@inlined
def _read_value(
    at: int,
    end: int,
    plan: Int64s,
    slot: int,
    text_bytes: int,
    unit_us: float,
    common: Int64s,
    floats: Floats,
    spans: Int64s,
    row: int,
) -> int:
    """Read a value into its column, if it is wanted; gives the address behind it, -1 if it is not plain and good."""
    kind = plan[slot, KIND] if slot >= 0 else _UNKNOWN
    column = plan[slot, COLUMN] if slot >= 0 else 0
    byte = load_8(at)
    if byte == QUOTE:
        start = at + 1
        at = string_end_kernel(start, end)
        if at < 0:
            return -1
        if kind <= CATEGORY:
            if at - start > text_bytes or (kind == TEXT and at == start):
                return -1
            spans[2 * column, row] = start
            spans[2 * column + 1, row] = at - start
        elif kind == DATE_TIME:
            common[TIME, row] = parse_time_kernel(start, at)
        elif kind != _UNKNOWN:
            return -1
        return at + 1
    if byte == MINUS or ZERO <= byte <= NINE:
        at, digits, exponent, is_whole = number_kernel(at, end)
        is_exact = -MAX_EXACT <= digits <= MAX_EXACT
        if at < 0 or not (is_exact or (kind == EPOCH and is_whole)):
            return -1
        number = scaled_kernel(digits, exponent)
        if kind == EPOCH:
            common[TIME, row] = epoch_time_kernel(digits, number, is_whole, unit_us)
        elif (
            kind == NUMBER
            or (kind == VALUE and abs(number) <= LARGEST_LABEL)
            or (kind == LABEL and number in (0.0, 1.0))
        ):
            floats[column, row] = number
        elif kind != _UNKNOWN:
            return -1
        return at
    if byte in (_F, _N, _T):
        at = literal_end_kernel(at, end, byte)
        if byte == _N:
            if kind == CATEGORY:
                spans[2 * column + 1, row] = -1
            elif kind in (NUMBER, BOOLEAN, LABEL, VALUE):
                floats[column, row] = np.nan
            elif kind != _UNKNOWN:
                return -1
        elif kind in (BOOLEAN, LABEL):
            floats[column, row] = 1.0 if byte == _T else 0.0
        elif kind != _UNKNOWN:
            return -1
        return at
    return -1


@inlined
def _fill_absent(plan: Int64s, serial: int, floats: Floats, spans: Int64s, row: int) -> bool:
    """Write missing values for the names that a record does not have; whether it may do without them."""
    for slot in range(plan.shape[0]):
        if plan[slot, SEEN] != serial:
            column = plan[slot, COLUMN]
            if plan[slot, KIND] == CATEGORY:
                spans[2 * column + 1, row] = -1
            elif plan[slot, KIND] in (NUMBER, BOOLEAN):
                floats[column, row] = np.nan
            else:
                return False
    return True


@bare
def copy_kernel(
    rows: int,
    spans: Int64s,
    totals: Int64s,
    offsets: npt.NDArray[np.int32],
    data: npt.NDArray[np.uint8],
    valid: npt.NDArray[np.uint8],
) -> None:
    """Copy every column's texts, one column behind the other."""
    to = int(np.int64(data.ctypes.data))
    for column in range(offsets.shape[0]):
        base = to
        for row in range(rows):
            offsets[column, row] = to - base
            source, size = spans[2 * column, row], spans[2 * column + 1, row]
            copy_text(to, source, size)
            to += max(size, 0)
        offsets[column, rows] = to - base
        if totals[1, column]:
            for row in range(rows):
                if spans[2 * column + 1, row] >= 0:
                    valid[column, row >> 3] |= np.uint8(1 << (row & 7))
