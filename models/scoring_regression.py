"""How good predicted numbers were."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.exact_sums import Words, exact_total
from models.tally import ANSWERS, ERRORS, LABELS, SQUARED_ANSWERS, SQUARED_ERRORS, Tally, Vector


class RegressionQuality(NamedTuple):
    """Figures of a span of labels; NaN where nothing can be said yet."""

    labels: int
    mae: float  # mean absolute error
    rmse: float  # root of the mean squared error
    r2: float  # 1 - squared error / that of the labels' mean; NaN where all labels are the same

    @property
    def loss(self) -> float:
        """The mean absolute error."""
        return self.mae


_NOTHING = RegressionQuality(0, math.nan, math.nan, math.nan)


def since_start(tally: Tally) -> RegressionQuality:
    """Judge all labels so far."""
    labels = int(tally.totals[LABELS])
    if not labels:
        return _NOTHING
    absolute, squared = _rounded(tally.exact[ERRORS]), _rounded(tally.exact[SQUARED_ERRORS])
    return _quality(labels, absolute, squared, _spread(tally, labels))


def recent(said_BS: npt.NDArray[np.float64], label_B: Vector) -> RegressionQuality:
    """Judge some predictions."""
    if not label_B.size:
        return _NOTHING
    error = said_BS[:, 0] - label_B
    spread = float(((label_B - label_B.mean()) ** 2).sum())
    return _quality(label_B.size, float(np.abs(error).sum()), float((error**2).sum()), spread)


def _spread(tally: Tally, labels: int) -> float:
    """Give the squared distance of all labels from their mean, of which only the last step is rounded."""
    answers, squares = exact_total(tally.exact[ANSWERS]), exact_total(tally.exact[SQUARED_ANSWERS])
    return math.nan if answers is None or squares is None else float(squares - answers**2 / labels)


def _rounded(words: Words) -> float:
    total = exact_total(words)
    try:
        return math.inf if total is None else float(total)
    except OverflowError:  # the sum of finite numbers is beyond them
        return math.inf


def _quality(labels: int, absolute: float, squared: float, spread: float) -> RegressionQuality:
    r2 = 1.0 - squared / spread if spread > 0.0 else math.nan
    return RegressionQuality(labels, absolute / labels, math.sqrt(squared / labels), r2)
