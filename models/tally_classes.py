"""Counts of probabilities of several classes by their odds: what areas and calibration since the start are made of.

They take less than the newest 10,000 predictions do: 48 KiB for each class. Letters of shapes: C classes, N rows said.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

MOST_DOUBLINGS = 24  # odds of 2^24 are a probability of 1 - 6e-8
ODDS_BINS = 2 * MOST_DOUBLINGS * 64  # 64 of one width between two powers of 2: less than 1.6 % of the odds

Counts = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]


def class_bins(classes: int) -> Counts:
    """Make room: [2 C + 2, ODDS_BINS].

    Of class c there are the labels of others (row 2 c) and its own (2 c + 1) by the probability it was given; behind
    them the wrong answers and the right ones by that of the answer.
    """
    return np.zeros((2 * classes + 2, ODDS_BINS), np.int64)


def bin_centers() -> Vector:
    """Give the probability in the middle of each bin."""
    doublings, step = np.divmod(np.arange(ODDS_BINS), 64)
    odds = np.ldexp(1.0 + (step + 0.5) / 64.0, doublings - MOST_DOUBLINGS)
    centers: Vector = odds / (1.0 + odds)
    return centers


@inlined
def odds_bin(p: float) -> int:
    """Give the place of a probability among the bins of its odds, which takes no logarithm; NaN is the lowest."""
    if not p > 0.0:
        return 0
    if not p < 1.0:
        return ODDS_BINS - 1
    fraction, exponent = math.frexp(p / (1.0 - p))  # in [0.5, 1)
    place = (exponent - 1 + MOST_DOUBLINGS) * 64 + int((fraction - 0.5) * 128.0)
    return min(max(place, 0), ODDS_BINS - 1)


@inlined
def count_classes(
    bins: Counts, said_NS: npt.NDArray[np.float64], row: int, place: int, answer: int, sign: int
) -> float:
    """Count a prediction of classes whose label is `place` so many times, 1 or -1; gives its Brier score.

    That is the sum over the classes of (probability - 1 or 0) squared (Brier 1950): from 0 to 2.
    """
    classes, brier = said_NS.shape[1], 0.0
    for c in range(classes):
        p, is_own = said_NS[row, c], 1 if c == place else 0
        at = odds_bin(p)
        bins[2 * c + is_own, at] += sign
        if c == answer:
            bins[2 * classes + is_own, at] += sign
        brier += (p - is_own) * (p - is_own)
    return brier
