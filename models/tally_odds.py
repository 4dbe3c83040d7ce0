"""Bins of probabilities by their odds p / (1 - p): finer the nearer to 0 and 1, and found without a logarithm.

Between two powers of two lie 2**`bits` of one width, so that a bin's number is what a float64 of the odds begins with.
Half of all bins are below a probability of 0.5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

MANTISSA_BITS, EXPONENT_OF_ONE = 52, 1_023  # of a float64
DOUBLINGS = 24  # to either side of even odds: beyond 6e-8 and 1 - 6e-8 everything is in the outer bins


def odds_bins(bits: int) -> int:
    """Give how many bins there are."""
    return 2 * DOUBLINGS << bits


def bin_centers(bits: int) -> npt.NDArray[np.float64]:
    """Give the probability in the middle of each bin."""
    steps = 1 << bits
    doubling, step = np.divmod(np.arange(odds_bins(bits)), steps)
    odds = np.ldexp(1.0 + (step + 0.5) / steps, doubling - DOUBLINGS)
    centers: npt.NDArray[np.float64] = odds / (1.0 + odds)
    return centers


@inlined
def odds_bin(p: float, bits: int) -> int:
    """Give the place of a probability among the bins; NaN is in the lowest."""
    if not p > 0.0:
        return 0
    most = (2 * DOUBLINGS << bits) - 1
    if not p < 1.0:
        return most
    word = int(np.float64(p / (1.0 - p)).view(np.int64)) >> (MANTISSA_BITS - bits)
    return min(max(word - ((EXPONENT_OF_ONE - DOUBLINGS) << bits), 0), most)
