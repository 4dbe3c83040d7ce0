"""Sums of floats without rounding: what is taken away again leaves no trace, however large it was.

A sum is one long integer in fixed point, wide enough for every finite float64: digits of 32 bits, each in a word of 64,
so that carries are rare (Kulisch, "Computer Arithmetic and Validity", 2nd ed. 2013, chapter 8). It is the same in
whatever order its values came.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

DIGIT_BITS = 32
DIGIT_MASK = (1 << DIGIT_BITS) - 1
MANTISSA_BITS = 53
POINT = 1_073 + MANTISSA_BITS  # bits behind the point: the last of the smallest float64's mantissa
DIGITS = (POINT + 1_024) // DIGIT_BITS + 3  # three more than a largest float64 needs: room for 2^62 of them
NOT_FINITE = DIGITS  # the place of how many values were infinite or NaN, which no sum can hold
WORDS = DIGITS + 1
FULL = 1 << 62  # a word as large as this passes on what does not fit its digit

Words = npt.NDArray[np.int64]


def empty_sums(count: int) -> Words:
    """Give so many sums of nothing: [count, WORDS]."""
    return np.zeros((count, WORDS), np.int64)


def exact_total(words: Words) -> Fraction | None:
    """Give a sum as the exact fraction it is; None where a value of it is not finite. For a scrape, not for a row."""
    if words[NOT_FINITE]:
        return None
    total = sum(word << (DIGIT_BITS * place) for place, word in enumerate(words[:DIGITS].tolist()))
    return Fraction(total, 1 << POINT)


@inlined
def add_exactly(sums: Words, which: int, value: float, sign: int) -> None:
    """Add a value to one of the sums (`sign` 1), or take it away again (-1): three words change."""
    if not math.isfinite(value):
        sums[which, NOT_FINITE] += sign
        return
    fraction, exponent = math.frexp(abs(value))
    mantissa = int(fraction * 2.0**MANTISSA_BITS)
    if value < 0.0:
        sign = -sign
    at = exponent - MANTISSA_BITS + POINT
    place, shift = at // DIGIT_BITS, at % DIGIT_BITS
    low: int = (mantissa & DIGIT_MASK) << shift
    high: int = (mantissa >> DIGIT_BITS) << shift
    _add_word(sums, which, place, sign * (low & DIGIT_MASK))
    _add_word(sums, which, place + 1, sign * ((low >> DIGIT_BITS) + (high & DIGIT_MASK)))
    _add_word(sums, which, place + 2, sign * (high >> DIGIT_BITS))


@inlined
def _add_word(sums: Words, which: int, place: int, more: int) -> None:
    word = sums[which, place] + more
    if abs(word) >= FULL:
        carry = word >> DIGIT_BITS
        word -= carry << DIGIT_BITS
        sums[which, place + 1] += carry
    sums[which, place] = word


@inlined
def add_square_exactly(sums: Words, which: int, value: float, sign: int) -> None:
    """Add the square of a value, or take it away again: its rounded square and what that lacks (Dekker 1971)."""
    square = value * value
    add_exactly(sums, which, square, sign)
    if not 1e-140 < abs(value) < 1e150:  # what is lacking is no float64, or the square is none
        return
    split = value * 134_217_729.0  # 2^27 + 1
    upper = split - (split - value)
    lower = value - upper
    lacking = ((upper * upper - square) + 2.0 * upper * lower) + lower * lower
    add_exactly(sums, which, lacking, sign)
