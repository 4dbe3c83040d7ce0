"""A pyramid of means: how far the mean of a series that remembers is off, from means over longer and longer stretches.

Level l holds the means of 2^l consecutive values. Of each level only sums are kept, from which its variance and lag-1
correlation follow; a value travels up as soon as it has a partner. The variance of the mean of t values is estimated by
V / t, with the long-run variance

    V = max over levels with enough values of  2^l s_l^2 (1 + 2 max(0, r_l))

(s_l^2 the sample variance of level l, r_l its lag-1 correlation). For independent values every level estimates the same
number; where values remember, means of stretches longer than the memory are independent again, and r_l corrects what
is left. Taking the largest is on the safe side.

All sums are of deviations from the first value, so that nothing is lost where values hardly vary about a large mean. A
pyramid may hold any number of series side by side that grow together: simulations use the same code as the selector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVELS = 15
SQUARES, PRODUCTS, FIRST, LAST = range(4)  # rows of a level
SUMS = 4

Floats = npt.NDArray[np.float64]


class Spread(NamedTuple):
    """What a pyramid says of the spread of a mean; `level` is the coarsest that has enough values.

    Attributes:
        level: l, of which `values` are known.
        values: n_l.
        correlation: r_l, of each series.
        long_run_variance: V, of each series.
    """

    level: int
    values: int
    correlation: Floats
    long_run_variance: Floats


class Pyramid:
    """The sums of one series, or of several side by side; `count` values of each. S is the shape of a value.

    Example:
        >>> pyramid = Pyramid()
        >>> for value in (1.0, 2.0, 3.0, 2.0):
        ...     pyramid.add(value)
        >>> float(pyramid.mean()), pyramid.spread(4).long_run_variance.round(3).tolist()
        (2.0, 0.667)
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0
        self._shift_S: Floats = np.zeros(shape)
        self._total_S: Floats = np.zeros(shape)
        self._levels_L4S: Floats = np.zeros((LEVELS, SUMS, *shape))

    def add(self, value_S: Floats | float) -> None:
        """Take the next value; two steps on average, at most one for each level."""
        if self.count == 0:
            self._shift_S = np.asarray(value_S, np.float64) + 0.0  # a copy
        value: Floats = value_S - self._shift_S
        self._total_S = self._total_S + value
        for level, sums_4S in enumerate(self._levels_L4S):
            before = self.count >> level
            half = sums_4S[LAST].copy()
            if before == 0:
                sums_4S[FIRST] = value
            else:
                sums_4S[PRODUCTS] += half * value
            sums_4S[SQUARES] += value * value
            sums_4S[LAST] = value
            if before % 2 == 0:
                break
            value = 0.5 * (half + value)
        self.count += 1

    def mean(self) -> Floats:
        """Give the mean of all values; of none 0."""
        mean_S: Floats = self._shift_S + self._total_S / max(self.count, 1)
        return mean_S

    def spread(self, least: int) -> Spread | None:
        """Give the long-run variance from levels with at least so many values (two or more), None without any."""
        found = None
        total_S, largest_S = self._total_S, np.zeros_like(self._total_S)
        for level, sums_4S in enumerate(self._levels_L4S):
            values = self.count >> level
            if values < least:
                break
            variance_S, correlation_S = _moments(values, total_S, sums_4S)
            long_run_S = variance_S * (1 << level) * (1.0 + 2.0 * np.maximum(correlation_S, 0.0))
            largest_S = np.maximum(largest_S, long_run_S)
            found = Spread(level, values, correlation_S, largest_S)
            # An odd value out waits for its partner: it is in no mean of the next level.
            total_S = 0.5 * (total_S - sums_4S[LAST] if values % 2 else total_S)
        return found

    def packed(self) -> bytes:
        """Give the sums as little-endian float64, up to the highest level with a value."""
        used = min(self.count.bit_length(), LEVELS)
        head = np.array([self._shift_S, self._total_S])
        return np.concatenate([head, self._levels_L4S[:used].ravel()]).astype("<f8").tobytes()


def unpacked(packed: bytes, count: int) -> Pyramid:
    """Make a pyramid of one series again from what `packed` gave, and its count; b"" is one without values."""
    pyramid = Pyramid()
    if count:
        values = np.frombuffer(packed, "<f8").astype(np.float64)
        pyramid.count = count
        pyramid._shift_S, pyramid._total_S = values[0], values[1]  # noqa: SLF001  # the other half of `packed`
        levels = values[2:].reshape(-1, SUMS)
        pyramid._levels_L4S[: len(levels)] = levels  # noqa: SLF001  # see above
    return pyramid


def _moments(values: int, total_S: Floats, sums_4S: Floats) -> tuple[Floats, Floats]:
    """Give sample variance and lag-1 correlation of a level; 0 and 0 where nothing varies."""
    mean = total_S / values
    squares = np.maximum(sums_4S[SQUARES] - values * mean * mean, 0.0)
    ends = sums_4S[FIRST] + sums_4S[LAST]
    products = sums_4S[PRODUCTS] - mean * (2.0 * total_S - ends) + (values - 1) * mean * mean
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.where(squares > 0.0, products / squares, 0.0)
    return squares / (values - 1), correlation
