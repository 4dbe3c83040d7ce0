"""Counts of probabilities of several classes by their odds: what areas and calibration since the start are made of.

They take less than the newest 10,000 predictions do: 48 KiB for each class. Letters of shapes: C classes, N rows said.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.tally_odds import odds_bin, odds_bins
from streams.compiled import inlined

CLASS_BITS = 6  # a bin is less than 1.6 % of the odds wide

Counts = npt.NDArray[np.int64]


def class_bins(classes: int) -> Counts:
    """Make room: [2 C + 2, bins].

    Of class c there are the labels of others (row 2 c) and its own (2 c + 1) by the probability it was given; behind
    them the wrong answers and the right ones by that of the answer.
    """
    return np.zeros((2 * classes + 2, odds_bins(CLASS_BITS)), np.int64)


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
        at = odds_bin(p, CLASS_BITS)
        bins[2 * c + is_own, at] += sign
        if c == answer:
            bins[2 * classes + is_own, at] += sign
        brier += (p - is_own) * (p - is_own)
    return brier
