"""Examples in memory: what models are trained from, a row for each event whose label is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.int64]


class Examples(NamedTuple):
    """B examples with F features, in the order in which their labels were settled.

    A category is an exact code and a missing value NaN, as learners get them. Where `X_BF` is large it lies in a file:
    read slices of it, or rows by their indexes, and no more than what fits into memory at a time.
    """

    X_BF: Matrix
    y_B: Vector  # the task's label, NaN: none
    time_B: Times  # of the events, us
    known_B: Times  # when the label was known, us
