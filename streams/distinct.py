"""How many distinct values there were: a HyperLogLog sketch in a few words, for windows that are added up of buckets.

A sketch of precision p is m = 2**p registers of one byte, eight to a word; all words 0 is the sketch of no value. A
value's hash chooses a register and brings it to the *rank* of its other bits, how many zeros they end in plus one, if
that is higher. So the words say which values there were and nothing else: in any order, any number of times, in any
tree of folds. The count is read from the ranks alone, with a standard error of 1.04 / sqrt(m): 13 % at p = 6, 6.5 % at
p = 8, 1.6 % at p = 12, and less for counts below m. Counts well above m are high by 1.1 / m on average, which shows
only where there are few registers: 7 % at p = 4, where the error is 30 % with it, and 1.7 % at p = 6.

Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog" (2007); the count by the improved raw estimator of O. Ertl, "New
cardinality estimation algorithms for HyperLogLog sketches" (2017), which needs no table of corrections. The hash is
splitmix64's (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.intrinsics import float_bits, trailing_zeros

LEAST_PRECISION, MOST_PRECISION = 4, 12

_HASH_BITS = 64
_REGISTER_BITS = 3  # a word has 2**3 registers
_BYTE_BITS = 3  # and a register 2**3 bits
_BYTE, _IN_WORD = 0xFF, 7
_ONES = 0x0101010101010101
_TOPS = -0x7F7F7F7F7F7F7F80  # the highest bit of each byte, which no rank reaches
# splitmix64's constants as int64: numba turns a sum of int64 and uint64 into a float.
_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
_COARSE, _FINE = 30, 60  # powers of two that ranks up to 30, and above, are whole multiples of the inverse of
_ALPHA = 1 / (2 * math.log(2))


@inlined
def distinct_words(precision: int) -> int:
    """How many words a sketch of this precision (4 to 12) has; twice as many with each step, for 0.7 of the error."""
    return 1 << (precision - _REGISTER_BITS)


def distinct_error(precision: int) -> float:
    """Standard error of a sketch's count as a share of the true count, for precisions of 6 and more."""
    return 1.04 / math.sqrt(1 << precision)


@inlined
def hash_value_kernel(value: float) -> int:
    """Hash a float64 to 64 bits, -0.0 like 0.0: splitmix64 of its bits. It must never change: sketches are kept."""
    z = float_bits(value + 0.0) + _STEP
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MIX_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


@inlined
def add_distinct_kernel(words: npt.NDArray[np.int64], place: int, precision: int, value: float) -> None:
    """Add a value, any but NaN, to the sketch at `place`. About 3 ns where its words are in the cache."""
    h = hash_value_kernel(value)
    register = h & ((1 << precision) - 1)
    rest = (h >> precision) | (1 << (_HASH_BITS - precision))  # zeros end there also where all other bits are 0
    rank = trailing_zeros(rest) + 1
    word, shift = place + (register >> _REGISTER_BITS), (register & _IN_WORD) << _BYTE_BITS
    if rank > (words[word] >> shift) & _BYTE:
        words[word] = (words[word] & ~(_BYTE << shift)) | (rank << shift)


@inlined
def fold_distinct_kernel(
    to_words: npt.NDArray[np.int64], to: int, from_words: npt.NDArray[np.int64], start: int, precision: int
) -> None:
    """Add the values of the sketch at `start` to the one at `to`: each register's larger rank. About 1.5 ns a word."""
    for word in range(distinct_words(precision)):
        ours, theirs = to_words[to + word], from_words[start + word]
        is_ours = ((((ours | _TOPS) - theirs) >> _IN_WORD) & _ONES) * _BYTE  # a byte of ones where ours is not less
        to_words[to + word] = (ours & is_ours) | (theirs & ~is_ours)


@inlined
def count_distinct_kernel(words: npt.NDArray[np.int64], place: int, precision: int) -> float:
    """Estimate how many distinct values the sketch at `place` has seen; 0.0 if none. About 1.5 ns for each register."""
    most = _HASH_BITS - precision + 1
    empty, full, coarse, fine = 0, 0, 0, 0
    for register in range(1 << precision):
        rank = (words[place + (register >> _REGISTER_BITS)] >> ((register & _IN_WORD) << _BYTE_BITS)) & _BYTE
        if rank == 0:
            empty += 1
        elif rank == most:
            full += 1
        elif rank <= _COARSE:
            coarse += 1 << (_COARSE - rank)
        else:
            fine += 1 << (_FINE - rank)
    m = 1 << precision
    if empty == m:
        return 0.0
    total = coarse * 2.0**-_COARSE + fine * 2.0**-_FINE  # exactly the sum of 2**-rank, in integers of 64 bits
    total += m * _sigma(empty / m) + m * _tau(1.0 - full / m) * 2.0 ** (1 - most)
    return _ALPHA * m * m / total


@inlined
def _sigma(x: float) -> float:
    """Ertl's sigma: x + sum of x**(2**k) * 2**(k-1) over k = 1, 2, …; for the share of empty registers, below 1."""
    total, before, power = x, -1.0, 1.0
    while total != before:
        x *= x
        before = total
        total += x * power
        power += power
    return total


@inlined
def _tau(x: float) -> float:
    """Ertl's tau: (1 - x - sum of (1 - x**(2**-k))**2 * 2**-k over k = 1, 2, …) / 3; for the share not yet full."""
    total, before, power = 1.0 - x, -1.0, 1.0
    while total != before:
        x = math.sqrt(x)
        before = total
        power *= 0.5
        total -= (1.0 - x) * (1.0 - x) * power
    return total / 3.0
