"""Bins: where a column's values fall, by what a reference of it holds.

Bins of a number end at quantiles of the reference; a value that several quantiles fall on has a bin of its own. Bins of
a category are its most frequent codes in the reference, and one for all others. One more bin holds what is missing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import MAX_CODE, MAX_MAGNITUDE, Matrix
from streams.compiled import inlined


class Bins(NamedTuple):
    """Where a value falls: F columns with E ends or codes each, ascending, and E + 2 bins, the last for missing."""

    is_category_F: npt.NDArray[np.bool_]
    ends_EF: Matrix  # infinite where a column has fewer; a row of all columns' ends, so that they are compared at once


def make_bins(reference_NF: Matrix, is_category_F: npt.NDArray[np.bool_], bins: int) -> Bins:
    """Give the bins of a reference of N rows; `bins` for each column, and one for missing values."""
    columns = [
        _codes(column, bins) if is_category else _ends(column, bins)
        for column, is_category in zip(reference_NF.T, is_category_F.tolist(), strict=True)
    ]
    ends_EF = np.full((bins - 1, len(columns)), np.inf)
    for column, found in enumerate(columns):
        ends_EF[: found.size, column] = found
    return Bins(is_category_F, ends_EF)


def _ends(column: Matrix, bins: int) -> Matrix:
    """Give where bins of a number end, each end belonging to the bin below it."""
    known = column[np.abs(column) <= MAX_MAGNITUDE]
    if not known.size:
        return np.empty(0)
    quantiles = np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf")
    ends, times = np.unique(quantiles, return_counts=True)
    found: Matrix = np.unique(np.concatenate([ends, np.nextafter(ends[times > 1], -np.inf)]))
    return found


def _codes(column: Matrix, bins: int) -> Matrix:
    """Give the most frequent codes, of equally frequent ones the smaller."""
    known = column[(column >= 0.0) & (column < MAX_CODE) & (column == np.floor(column))]
    codes, times = np.unique(known, return_counts=True)
    found: Matrix = np.sort(codes[np.lexsort((codes, -times))][: bins - 1])
    return found


@inlined
def bin_of(bins: Bins, column: int, x: float, below: int) -> int:
    """Name a value's bin, by how many ends or codes are below it; the last but one is for other codes."""
    missing = bins.ends_EF.shape[0] + 1
    if not bins.is_category_F[column]:
        return below if abs(x) <= MAX_MAGNITUDE else int(missing)
    if not (x >= 0.0 and x < MAX_CODE and x == math.floor(x)):
        return int(missing)
    return below if below < missing - 1 and bins.ends_EF[below, column] == x else int(missing - 1)
