"""JSON tokens, read at addresses inside kernels.

A kernel here either is certain of what stands there or gives a negative address; it never reads at or behind `end`.
What it is not certain of (escapes, numbers that a double does not hold exactly, anything malformed) is somebody else's
to read. Bytes are compared eight at a time as in https://graphics.stanford.edu/~seander/bithacks.html#ValueInWord.
"""

from __future__ import annotations

import numpy as np

from streams.compiled import inlined
from streams.intrinsics import load_8, load_32, load_64

QUOTE, BACKSLASH, COMMA, COLON, OPEN, CLOSE, MINUS, POINT, ZERO, NINE = b'"\\,:{}-.09'
SPACE, FIRST_CONTINUATION, LAST_CONTINUATION = 0x20, 0x80, 0xBF
TRUE, NULL, FALSE = (int.from_bytes(word, "little") for word in (b"true", b"null", b"alse"))

MAX_EXACT = 2**53  # up to here a double holds every whole number
MAX_DIGITS = 19  # of an unsigned 64-bit number, whatever they are
POWERS = np.array([float(10**exponent) for exponent in range(23)])  # all of them exact

_ONES = 0x0101010101010101
_QUOTES, _BACKSLASHES, _SPACES = _ONES * QUOTE, _ONES * BACKSLASH, _ONES * SPACE
_HIGHS = _ONES * 0x80 - 2**64  # as an int64


@inlined
def skip_space_kernel(at: int, end: int) -> int:
    """Give the address of the first byte that is no white space."""
    while at < end:
        byte = load_8(at)
        if byte > SPACE or byte not in (SPACE, 10, 13, 9):
            break
        at += 1
    return at


@inlined
def is_at_kernel(at: int, end: int, byte: int) -> bool:
    """Whether this byte stands at an address."""
    return at < end and load_8(at) == byte


@inlined
def string_end_kernel(at: int, end: int) -> int:
    """Give the address of the quote that ends a text without escapes, valid UTF-8; -1 if it is none."""
    while at < end:
        if at + 8 <= end:
            word = load_64(at)
            quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
            special = (quotes - _ONES) & ~quotes
            special |= (backslashes - _ONES) & ~backslashes
            special |= ((word - _SPACES) & ~word) | word
            special &= _HIGHS  # the lowest bit is right, what stands above it may be a borrow
            if special == 0:
                at += 8
                continue
            at += (((((special & -special) - 1) & _ONES) * _ONES) >> 56) - 1
        byte = load_8(at)
        if byte == QUOTE:
            return at
        if byte < SPACE or byte == BACKSLASH:
            return -1
        size = 1 if byte < FIRST_CONTINUATION else _utf8_size_kernel(at, end, byte)
        if size == 0:
            return -1
        at += size
    return -1


@inlined
def _utf8_size_kernel(at: int, end: int, first: int) -> int:
    """Size of the UTF-8 sequence of two to four bytes at an address (Unicode 15, table 3-7); 0 if it is none."""
    size = 2 if first < 0xE0 else (3 if first < 0xF0 else 4)
    if first < 0xC2 or first > 0xF4 or at + size > end:
        return 0
    second = load_8(at + 1)
    least = 0xA0 if first == 0xE0 else (0x90 if first == 0xF0 else FIRST_CONTINUATION)
    most = 0x9F if first == 0xED else (0x8F if first == 0xF4 else LAST_CONTINUATION)
    if second < least or second > most:
        return 0
    for place in range(2, size):
        byte = load_8(at + place)
        if byte < FIRST_CONTINUATION or byte > LAST_CONTINUATION:
            return 0
    return size


@inlined
def literal_end_kernel(at: int, end: int, first: int) -> int:
    """Give the address behind `true`, `false` or `null`, whose first byte is `first`; -1 if it is none of these."""
    start = at + (1 if first == 102 else 0)
    word = load_32(start) if start + 4 <= end else 0
    is_found = word == (FALSE if first == 102 else (TRUE if first == 116 else NULL))
    return start + 4 if is_found else -1


@inlined
def number_kernel(at: int, end: int) -> tuple[int, int, int, bool]:
    """Read a number as digits * 10 ** exponent, and whether it is written as a whole one.

    Gives the address behind it first: -1 if it is none, -0, has over 19 digits or an exponent beyond 22 (a double
    keeps powers of ten up to there, so one multiplication or division rounds as it should).
    """
    is_negative = is_at_kernel(at, end, MINUS)
    if is_negative:
        at += 1
    first, digits, exponent, is_whole = at, 0, 0, True
    while at < end:
        digit = load_8(at) - ZERO
        if digit < 0 or digit > 9:
            break
        digits = digits * 10 + digit
        at += 1
    count = at - first
    if count == 0 or (count > 1 and load_8(first) == ZERO):
        return -1, 0, 0, False
    if is_at_kernel(at, end, POINT):
        is_whole = False
        at += 1
        first = at
        while at < end:
            digit = load_8(at) - ZERO
            if digit < 0 or digit > 9:
                break
            digits = digits * 10 + digit
            at += 1
        exponent = first - at
        count -= exponent
        if exponent == 0:
            return -1, 0, 0, False
    if at < end and load_8(at) | 0x20 == 101:  # e or E
        is_whole = False
        at += 1
        sign = load_8(at) if at < end else 0
        if sign in (43, MINUS):
            at += 1
        first, power = at, 0
        while at < end and at < first + 3:
            digit = load_8(at) - ZERO
            if digit < 0 or digit > 9:
                break
            power = power * 10 + digit
            at += 1
        if at == first:
            return -1, 0, 0, False
        exponent += -power if sign == MINUS else power
    if count > MAX_DIGITS or digits < 0 or exponent < -22 or exponent > 22 or (is_negative and digits == 0):
        return -1, 0, 0, False
    return at, (-digits if is_negative else digits), exponent, is_whole


@inlined
def scaled_kernel(digits: int, exponent: int) -> float:
    """Give digits * 10 ** exponent, correctly rounded while `digits` is at most MAX_EXACT (Clinger's fast path)."""
    number: float = digits / POWERS[-exponent] if exponent < 0 else digits * POWERS[exponent]
    return number
