"""Quantiles of any finite numbers: a sketch in a fixed number of words, for windows that are added up of buckets.

A sketch counts its values in *bins* whose edges are powers of gamma, 2**(1/64) at *level* 0; with each level two bins
become one and gamma its square. What is given for the values of a bin differs from each of them by a share of at most
(gamma - 1) / (gamma + 1), the error of the level:

    level      0       1      2      3      4      5    6    7    8
    error   0.54 %  1.1 %  2.2 %  4.3 %  8.6 %  17 %  33 %  60 %  88 %

The invariant: the level is the lowest at which all values lie in as many bins as there is room for, and the words are
the filled bins, sorted. So the words say how often which bin was met and nothing else: in any order, in any tree of
folds. With 64 bins the error is 0.54 % while they suffice, which is about a factor of 2 between the smallest and the
largest value if all bins between are filled; 2.2 % for a factor of 16, 8.6 % for one of 65,000. Values below zero need
bins of their own. No count of values brings the error up, only new bins.

Words: header (filled bins and level) | per filled bin, ascending, its key and its count | zeros. A key is 0 for zero,
1 and more for the bins above it in the order of their values, and the same with a minus for the bins below. All words 0
is the sketch of no value.

Bins of powers: Masson, Rim, Lee, "DDSketch" (2019). Levels: Epicoco, Melle, Cafaro, Pulimeno, Morleo, "UDDSketch"
(2020). A bin is found by comparing with edges in integers, not by a logarithm: it is the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.intrinsics import bits_float, float_bits

BINS = 64  # by default; each doubling takes half of the error
LEAST_BINS = 3  # below zero, zero and above zero never become one
COUNT_BITS = 40  # of a bin's word, under its key
LEVEL_BITS = 5  # of the header, under the number of filled bins
MOST_LEVEL = 18  # where all numbers above zero lie in one bin

_COUNT_MASK, _LEVEL_MASK = (1 << COUNT_BITS) - 1, (1 << LEVEL_BITS) - 1
_NO_KEY = 1 << 20  # above all keys
_PART_BITS = 6  # of an octave, from a power of two to the next, there are 2**6 bins at level 0
_PARTS = 1 << _PART_BITS
_CELL_BITS = 7  # an octave's cells of equal width, narrow enough for one edge at most
_FRACTION_BITS, _BIAS = 52, 1023
_HIDDEN, _MAGNITUDE = 1 << _FRACTION_BITS, (1 << 63) - 1
_ORIGIN = 1 + (
    1 << (MOST_LEVEL - 1)
)  # key of the bin from 1.0 on at level 0; one more than a multiple of all bins' widths
_LEAST_KEY = _ORIGIN - 1074 * _PARTS  # of the smallest float64 above zero
_LEAST_NORMAL = -1022  # octave of the smallest float64 whose fraction has all its bits
_LIFT = 64  # octaves by which smaller ones are lifted


def _edges() -> npt.NDArray[np.int64]:
    """The fraction of each bin's smallest float64 in an octave, and the octave's end: roots of integers, exact."""
    edges = []
    for part in range(_PARTS):
        root = 1 << (_FRACTION_BITS * _PARTS + part)
        for _ in range(_PART_BITS):
            root = math.isqrt(root)
        edges.append(root + (part > 0) - _HIDDEN)
    return np.array([*edges, _HIDDEN])


def _errors() -> npt.NDArray[np.float64]:
    """The relative error of each level."""
    inverse, errors = 0.5, []
    for _ in range(_PART_BITS):
        inverse = math.sqrt(inverse)
    for _ in range(MOST_LEVEL + 1):
        errors.append((1 - inverse) / (1 + inverse))
        inverse *= inverse
    return np.array(errors)


_EDGES = _edges()
_FIRST_PARTS = np.searchsorted(_EDGES, np.arange(1 << _CELL_BITS) << (_FRACTION_BITS - _CELL_BITS), "right") - 1
_ERRORS = _errors()


@inlined
def quantile_words(bins: int = BINS) -> int:
    """How many words a sketch with room for so many bins (3 or more) has."""
    return 1 + bins


@inlined
def add_quantile_kernel(words: npt.NDArray[np.int64], place: int, bins: int, value: float) -> None:
    """Add a finite value to the sketch at `place`, which takes up to 2**40 - 1 values.

    With 64 bins in the cache about 35 ns; 90 ns for the first hundred of a sketch, which brings it up most levels.
    """
    first, header = place + 1, words[place]
    level, held = header & _LEVEL_MASK, header >> LEVEL_BITS
    key = _coarser(_finest_key(value), level)
    at = _find(words, first, held, key)
    while at == first + held or words[at] >> COUNT_BITS != key:
        if held < bins:
            for word in range(first + held, at, -1):
                words[word] = words[word - 1]
            words[at] = key << COUNT_BITS
            words[place] += 1 << LEVEL_BITS
            break
        _collapse(words, place, 1)
        held, key = words[place] >> LEVEL_BITS, _coarser(key, 1)
        at = _find(words, first, held, key)
    words[at] += 1


@inlined
def fold_quantile_kernel(
    to_words: npt.NDArray[np.int64], to: int, from_words: npt.NDArray[np.int64], start: int, bins: int
) -> None:
    """Add the values of the sketch at `start` to the one at `to`. The two do not overlap, and have as much room.

    About 0.5 us for two of 64 filled bins.
    """
    if from_words[start] == 0:
        return
    own = to_words[to] & _LEVEL_MASK
    level = max(own, from_words[start] & _LEVEL_MASK)
    united = _united(to_words, to, from_words, start, level)
    while united > bins:
        level += 1
        united = _united(to_words, to, from_words, start, level)
    if level > own:
        _collapse(to_words, to, level - own)
    _merge(to_words, to, from_words, start, united)


@inlined
def quantile_kernel(words: npt.NDArray[np.int64], place: int, q: float) -> float:
    """Give the quantile q (0 to 1) of the values in the sketch at `place`; NaN if there are none.

    Of n values it is the one that floor(q * (n - 1)) others precede when they are sorted, numpy's method "lower", as
    near as `quantile_error_kernel` says; a subnormal is rounded besides. About 1 ns for each filled bin.
    """
    held, values = words[place] >> LEVEL_BITS, 0
    for at in range(place + 1, place + 1 + held):
        values += words[at] & _COUNT_MASK
    if values == 0:
        return math.nan
    rank, at = math.floor(q * (values - 1)), place + 1
    upto = words[at] & _COUNT_MASK
    while upto <= rank:
        at += 1
        upto += words[at] & _COUNT_MASK
    return _value(words[at] >> COUNT_BITS, words[place] & _LEVEL_MASK)


@inlined
def quantile_error_kernel(words: npt.NDArray[np.int64], place: int) -> float:
    """How far quantiles of the sketch at `place` may be from the values they stand for, as a share of them."""
    error: float = _ERRORS[words[place] & _LEVEL_MASK]
    return error


@inlined
def _finest_key(value: float) -> int:
    """The key of a value's bin at level 0."""
    if value == 0.0:
        return 0
    bits, octave = float_bits(value) & _MAGNITUDE, -_BIAS
    if bits < _HIDDEN:
        bits, octave = float_bits(value * 2.0**_LIFT) & _MAGNITUDE, -_BIAS - _LIFT
    octave += bits >> _FRACTION_BITS
    fraction = bits & (_HIDDEN - 1)
    part = _FIRST_PARTS[fraction >> (_FRACTION_BITS - _CELL_BITS)]
    if fraction >= _EDGES[part + 1]:
        part += 1
    key: int = _ORIGIN + octave * _PARTS + part
    return key if value > 0.0 else -key


@inlined
def _coarser(key: int, levels: int) -> int:
    """The key of the bin that a bin becomes part of some levels up: 1 and 2 become 1, 3 and 4 become 2."""
    return -(-key >> levels) if key > 0 else key >> levels


@inlined
def _value(key: int, level: int) -> float:
    """What is given for a bin's values: as far above its lower edge as below its upper one, as shares of the two."""
    if key == 0:
        return 0.0
    lowest = max(((abs(key) - 1) << level) + 1, _LEAST_KEY) - _ORIGIN
    octave, unit = lowest >> _PART_BITS, 1.0
    if octave < _LEAST_NORMAL:
        octave, unit = octave + _LIFT, 2.0**-_LIFT
    edge = bits_float(((octave + _BIAS) << _FRACTION_BITS) | _EDGES[lowest & (_PARTS - 1)])
    value: float = edge * (1.0 + _ERRORS[level]) * unit
    return value if key > 0 else -value


@inlined
def _find(words: npt.NDArray[np.int64], first: int, held: int, key: int) -> int:
    """Where a key's bin is among the filled ones, or where it belongs."""
    low, high, least = first, first + held, key << COUNT_BITS
    while low < high:
        middle = (low + high) >> 1
        if words[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _collapse(words: npt.NDArray[np.int64], place: int, levels: int) -> None:
    """Bring a sketch some levels up."""
    header, last = words[place], place
    end = place + 1 + (header >> LEVEL_BITS)
    for at in range(place + 1, end):
        key, count = _coarser(words[at] >> COUNT_BITS, levels), words[at] & _COUNT_MASK
        if last > place and words[last] >> COUNT_BITS == key:
            words[last] += count
        else:
            last += 1
            words[last] = (key << COUNT_BITS) | count
    for at in range(last + 1, end):
        words[at] = 0
    words[place] = ((last - place) << LEVEL_BITS) | ((header & _LEVEL_MASK) + levels)


@inlined
def _united(one_words: npt.NDArray[np.int64], one: int, two_words: npt.NDArray[np.int64], two: int, level: int) -> int:
    """How many bins two sketches fill together at a level that is not below theirs."""
    up_1, end_1 = level - (one_words[one] & _LEVEL_MASK), one + (one_words[one] >> LEVEL_BITS)
    up_2, end_2 = level - (two_words[two] & _LEVEL_MASK), two + (two_words[two] >> LEVEL_BITS)
    at_1, at_2, united, last = one + 1, two + 1, 0, _NO_KEY
    while at_1 <= end_1 or at_2 <= end_2:
        key_1 = _coarser(one_words[at_1] >> COUNT_BITS, up_1) if at_1 <= end_1 else _NO_KEY
        key_2 = _coarser(two_words[at_2] >> COUNT_BITS, up_2) if at_2 <= end_2 else _NO_KEY
        key = min(key_1, key_2)
        at_1 += 1 if key_1 == key else 0
        at_2 += 1 if key_2 == key else 0
        united += 1 if key != last else 0
        last = key
    return united


@inlined
def _merge(
    to_words: npt.NDArray[np.int64], to: int, from_words: npt.NDArray[np.int64], start: int, united: int
) -> None:
    """Add the bins of a sketch to one that is not below its level, so that `united` are filled.

    From the last one on: what is written never reaches what is still to be read.
    """
    level = to_words[to] & _LEVEL_MASK
    up = level - (from_words[start] & _LEVEL_MASK)
    ours, theirs, at = to + (to_words[to] >> LEVEL_BITS), start + (from_words[start] >> LEVEL_BITS), to + united
    while theirs > start:
        key = _coarser(from_words[theirs] >> COUNT_BITS, up)
        word = key << COUNT_BITS
        if ours > to and to_words[ours] >= word:
            word = to_words[ours]
            ours -= 1
        if word >> COUNT_BITS == key:
            while theirs > start and _coarser(from_words[theirs] >> COUNT_BITS, up) == key:
                word += from_words[theirs] & _COUNT_MASK
                theirs -= 1
        to_words[at] = word
        at -= 1
    to_words[to] = (united << LEVEL_BITS) | level
