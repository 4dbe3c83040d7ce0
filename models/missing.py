"""What is missing though it is not NaN: values that would break a model, turned to NaN at its door."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.learner import MAX_CODE, MAX_MAGNITUDE, Matrix


def guarded(X_BF: Matrix, is_category_F: npt.NDArray[np.bool_]) -> Matrix:
    """Copy rows, with NaN for numbers that are infinite or beyond 1e30 and for categories that are no exact code."""
    values = X_BF.astype(np.float64, copy=True)
    with np.errstate(invalid="ignore"):
        codes = values[:, is_category_F]
        codes[~((codes >= 0) & (codes < MAX_CODE) & (codes == np.floor(codes)))] = np.nan
        values[:, is_category_F] = codes
        values[~(np.abs(values) <= MAX_MAGNITUDE)] = np.nan
    return values
