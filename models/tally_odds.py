"""Bins of probabilities by their odds p / (1 - p): finer the nearer to 0 and 1, and found without a logarithm.

Between two powers of two lie so many `steps` of one width. Half of all bins are below a probability of 0.5.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

DOUBLINGS = 24  # to either side of even odds: beyond 6e-8 and 1 - 6e-8 everything is in the outer bins


def odds_bins(steps: int) -> int:
    """Give how many bins there are."""
    return 2 * DOUBLINGS * steps


def bin_centers(steps: int) -> npt.NDArray[np.float64]:
    """Give the probability in the middle of each bin."""
    doubling, step = np.divmod(np.arange(odds_bins(steps)), steps)
    odds = np.ldexp(1.0 + (step + 0.5) / steps, doubling - DOUBLINGS)
    centers: npt.NDArray[np.float64] = odds / (1.0 + odds)
    return centers


@inlined
def odds_bin(p: float, steps: int) -> int:
    """Give the place of a probability among the bins; NaN is in the lowest."""
    if not p > 0.0:
        return 0
    most = 2 * DOUBLINGS * steps - 1
    if not p < 1.0:
        return most
    fraction, exponent = math.frexp(p / (1.0 - p))  # in [0.5, 1)
    place = (exponent - 1 + DOUBLINGS) * steps + int((fraction - 0.5) * (2.0 * steps))
    return min(max(place, 0), most)
