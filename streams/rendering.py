"""Numbers and texts as JSON, written by kernels straight into memory.

Bytes are those msgspec writes: a float64 in the fewest digits that read back as the same bits, text escaped only where
JSON demands it, NaN and infinity as null. Every writer takes the address to write at and gives the address behind what
it wrote. It may scribble over up to `SLACK` bytes more, so there must be room for that.

Floats: Raffaello Giulietti, "The Schubfach way to render doubles" (2021), with tables as in Alexander Bolz's
Drachennest. Eight digits at once: Paul Khuong, "How to print integers really fast".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.intrinsics import float_bits, load_8, load_32, load_64, round_to_odd, store_8, store_32, store_64
from streams.intrinsics import trailing_zeros as zero_bits

SLACK = 8  # writers store whole words
FLOAT_SIZE = 25  # bytes of the longest float, -2.2250738585072014e-308, and one
INTEGER_SIZE = 20
ESCAPED_SIZE = 6  # what one byte of text may become: \u001f

_ZEROS = 0x3030303030303030
_NULL = int.from_bytes(b"null", "little")
_ONES = 0x0101010101010101
_TOPS = -0x7F7F7F7F7F7F7F80  # the highest bit of each byte
_QUOTES, _BACKSLASHES, _SPACES = 0x22 * _ONES, 0x5C * _ONES, 0x20 * _ONES
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_SHORT = np.zeros(93, np.uint8)  # the letter behind the backslash, by byte; 0: none, \u00.. is needed
_SHORT[[0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x22, 0x5C]] = np.frombuffer(b'btnfr"\\', np.uint8)

_LEAST_POWER, _MOST_POWER = -292, 324
_FRACTION_BITS, _BIAS = 52, 1075
_HIDDEN, _INFINITE = 1 << _FRACTION_BITS, 0x7FF


def aligned(pieces: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Lay pieces of text behind one another for `write_words`; gives them and [start, size] of each."""
    places, data = [], b""
    for piece in pieces:
        places.append((len(data), len(piece)))
        data += piece + bytes(-len(piece) % SLACK)  # whole words, as they are copied
    return np.frombuffer(data, np.uint8), np.array(places, np.int64)


def _powers_of_ten() -> npt.NDArray[np.int64]:
    """The upper 128 bits of each power of ten, rounded up, as two words (about 0.4 ms)."""
    words = []
    for power in range(_LEAST_POWER, _MOST_POWER + 1):
        shift = 127 - ((power * 1741647) >> 19)  # 127 - floor(log2(10**power))
        above, below = 10 ** max(power, 0) << max(shift, 0), 10 ** max(-power, 0) << max(-shift, 0)
        top = -(-above // below)
        words.append((top >> 64, top & (2**64 - 1)))
    return np.array(words, np.uint64).view(np.int64)


_POWERS = _powers_of_ten()


@inlined
def shortest_kernel(bits: int) -> tuple[int, int]:
    """Give (digits, exponent) of the shortest decimal that reads back as a float64 above 0; digits may end in zeros."""
    fraction, exponent = bits & (_HIDDEN - 1), (bits >> _FRACTION_BITS) & _INFINITE
    c, q = fraction, 1 - _BIAS
    if exponent != 0:
        c, q = fraction | _HIDDEN, exponent - _BIAS
        if 0 <= -q <= _FRACTION_BITS and c & ((1 << -q) - 1) == 0:
            return c >> -q, 0  # a small whole number
    is_odd = c & 1
    is_closer = 1 if fraction == 0 and exponent > 1 else 0  # below a power of two floats lie twice as dense
    k = (q * 1262611 - 524031 * is_closer) >> 22
    h = q + ((-k * 1741647) >> 19) + 1
    high, low = _POWERS[-k - _LEAST_POWER, 0], _POWERS[-k - _LEAST_POWER, 1]
    lower = round_to_odd(high, low, (4 * c - 2 + is_closer) << h) + is_odd
    middle = round_to_odd(high, low, (4 * c) << h)
    upper = round_to_odd(high, low, (4 * c + 2) << h) - is_odd
    s = middle >> 2
    if s >= 10:
        tenth = s // 10
        is_below, is_above = lower <= 40 * tenth, 40 * tenth + 40 <= upper
        if is_below != is_above:
            return (tenth + 1 if is_above else tenth), k + 1
    is_below, is_above = lower <= 4 * s, 4 * s + 4 <= upper
    if is_below != is_above:
        return (s + 1 if is_above else s), k
    half = 4 * s + 2
    return (s + 1 if middle > half or (middle == half and s & 1 == 1) else s), k


@inlined
def _eight(n: int) -> int:
    """The digits of a number below 10**8, one a byte, the first in the lowest."""
    v = (n // 10_000) | ((n % 10_000) << 32)
    q = ((v * 10486) >> 20) & 0x7F0000007F
    v = q | ((v - q * 100) << 16)
    q = ((v * 103) >> 10) & 0x000F000F000F000F
    return q | ((v - q * 10) << 8)


@inlined
def _write_head(at: int, n: int) -> int:
    word = _eight(n)
    skipped = min(zero_bits(word) >> 3, 7)
    store_64(at, (word | _ZEROS) >> (skipped << 3))
    return at + 8 - skipped


@inlined
def write_digits(at: int, n: int) -> int:
    """Write a whole number that is not negative."""
    if n < 100_000_000:
        return _write_head(at, n)
    high = n // 100_000_000
    if high < 100_000_000:
        at = _write_head(at, high)
    else:
        top = high // 100_000_000
        at = _write_head(at, top)
        store_64(at, _eight(high - top * 100_000_000) | _ZEROS)
        at += 8
    store_64(at, _eight(n - high * 100_000_000) | _ZEROS)
    return at + 8


@inlined
def write_integer(at: int, n: int) -> int:
    """Write a whole number, any but -2**63."""
    if n < 0:
        store_8(at, 45)
        return write_digits(at + 1, -n)
    return write_digits(at, n)


@inlined
def write_thousandths(at: int, n: int) -> int:
    """Write n / 1000 as a float with at most three decimals and at least one."""
    if n < 0:
        store_8(at, 45)
        at, n = at + 1, -n
    whole = n // 1000
    rest = n - whole * 1000
    at = write_digits(at, whole)
    hundreds, tens, ones = rest // 100, rest // 10 % 10, rest % 10
    store_32(at, 0x3030302E | (hundreds << 8) | (tens << 16) | (ones << 24))
    if ones != 0:
        return at + 4
    return at + 3 if tens != 0 else at + 2


@inlined
def write_float(at: int, x: float) -> int:
    """Write a float64 in the fewest digits that read back as the same; null if it is not finite."""
    bits = float_bits(x)
    if (bits >> _FRACTION_BITS) & _INFINITE == _INFINITE:
        store_32(at, _NULL)
        return at + 4
    if bits < 0:
        store_8(at, 45)
        at += 1
        bits &= 0x7FFFFFFFFFFFFFFF
    if bits == 0:
        store_32(at, 0x00302E30)  # 0.0
        return at + 3
    digits, exponent = shortest_kernel(bits)
    while digits % 10 == 0:
        digits, exponent = digits // 10, exponent + 1
    count, least = 17, 10_000_000_000_000_000
    while digits < least:
        count, least = count - 1, least // 10
    point = count + exponent
    if -5 < point <= 0:
        store_64(at, 0x3030303030302E30)  # 0.000000
        return write_digits(at + 2 - point, digits)
    return _write_far(at, digits, count, point)


@inlined
def _write_far(at: int, digits: int, count: int, point: int) -> int:
    """Write a number of at least 1 or below 0.00001, of `count` digits, `point` of them before the dot."""
    if count <= point <= 16:
        write_digits(at, digits)
        for i in range(count, point):
            store_8(at + i, 48)
        store_8(at + point, 46)
        store_8(at + point + 1, 48)
        return at + point + 2
    end = write_digits(at + 1, digits)
    before = point if 0 < point <= 16 else 1
    for i in range(before):
        store_8(at + i, load_8(at + i + 1))
    if before < count:
        store_8(at + before, 46)
    else:
        end = at + count
    if before == point:
        return end
    store_8(end, 101)
    return write_integer(end + 1, point - 1)


@inlined
def _needs_escape(word: int) -> int:
    """Not 0 if one of eight bytes is a control character, a quote or a backslash."""
    quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
    return ((word - _SPACES) & ~word | (quote - _ONES) & ~quote | (backslash - _ONES) & ~backslash) & _TOPS


@inlined
def load_few(source: int, size: int) -> int:
    """Read 0 to 7 bytes, and none beside them, into the lower end of a word; the rest is 0."""
    if size >= 4:
        return load_32(source) | (load_32(source + size - 4) << ((size - 4) << 3))
    if size == 0:
        return 0
    half = size >> 1
    return load_8(source) | (load_8(source + half) << (half << 3)) | (load_8(source + size - 1) << ((size - 1) << 3))


@inlined
def write_bytes(at: int, source: int, size: int) -> int:
    """Copy bytes as they are."""
    done = 0
    while done + 8 <= size:
        store_64(at + done, load_64(source + done))
        done += 8
    store_64(at + done, load_few(source + done, size - done))
    return at + size


@inlined
def write_words(at: int, source: int, size: int) -> int:
    """Copy bytes in whole words; up to 7 bytes behind them are read, so they must be there."""
    for done in range(0, size, 8):
        store_64(at + done, load_64(source + done))
    return at + size


@inlined
def write_text(at: int, source: int, size: int) -> int:
    """Write UTF-8 text as a JSON string with its quotes."""
    store_8(at, 34)
    at += 1
    found, done = 0, 0
    while done + 8 <= size:
        word = load_64(source + done)
        store_64(at + done, word)
        found |= _needs_escape(word)
        done += 8
    word = load_few(source + done, size - done)
    store_64(at + done, word)
    found |= _needs_escape(word | (-1 << ((size - done) << 3)))
    at = at + size if found == 0 else _write_escaped(at, source, size)
    store_8(at, 34)
    return at + 1


@inlined
def _write_escaped(at: int, source: int, size: int) -> int:
    for i in range(size):
        byte = load_8(source + i)
        if byte >= 0x20 and (byte >= _SHORT.size or _SHORT[byte] == 0):
            store_8(at, byte)
            at += 1
            continue
        store_8(at, 0x5C)
        if _SHORT[byte] != 0:
            store_8(at + 1, _SHORT[byte])
            at += 2
        else:
            store_32(at + 1, 0x30303075)  # u000
            store_8(at + 4, _HEX[byte >> 4])
            store_8(at + 5, _HEX[byte & 15])
            at += 6
    return at
