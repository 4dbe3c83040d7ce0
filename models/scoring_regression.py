"""How good predicted numbers were.

The quantile loss (pinball loss, Koenker and Bassett 1978) of one label is q for each unit that was said too little, and
1 - q for each that was said too much: least, on average, where the q-quantile is said. Its mean is that of what was
too little and what was too much, weighted, and so a straight line over q: those of 0.1 and 0.9 give that of any other,
and add up to `mae`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.exact_sums import exact_total
from models.tally import ANSWERS, LABELS, OVER, RIGHT, SQUARED_ANSWERS, SQUARED_ERRORS, UNDER, Tally, Vector

LOW, HIGH = Fraction(1, 10), Fraction(9, 10)  # the quantiles that have a figure


class RegressionQuality(NamedTuple):
    """Figures of a span of labels; NaN where nothing can be said yet."""

    labels: int
    mae: float  # mean absolute error
    rmse: float  # root of the mean squared error
    r2: float  # 1 - squared error / that of the labels' mean; NaN where all labels are the same
    pinball_10: float  # quantile loss of the 0.1 quantile
    pinball_90: float  # of the 0.9 quantile
    coverage: float  # share of labels at or below what was said: q of a right q-quantile

    @property
    def loss(self) -> float:
        """The mean absolute error."""
        return self.mae


class Missed(NamedTuple):
    """By how much labels were missed in all: where too little was said, and where too much."""

    under: Fraction | float
    over: Fraction | float

    def pinball(self, q: Fraction) -> float:
        """Give the quantile loss of all, rounded once."""
        return _rounded(q * self.under + (1 - q) * self.over)


NOT_FINITE = Missed(math.inf, math.inf)
_NOTHING = RegressionQuality(0, *[math.nan] * 6)


def since_start(tally: Tally) -> RegressionQuality:
    """Judge all labels so far."""
    labels = int(tally.totals[LABELS])
    if not labels:
        return _NOTHING
    under, over, squared = (exact_total(tally.exact[at]) for at in (UNDER, OVER, SQUARED_ERRORS))
    missed = NOT_FINITE if under is None or over is None else Missed(under, over)
    square = math.inf if squared is None else _rounded(squared)
    return _quality(labels, missed, square, _spread(tally, labels), int(tally.totals[RIGHT]))


def recent(said_BS: npt.NDArray[np.float64], label_B: Vector) -> RegressionQuality:
    """Judge some predictions."""
    if not label_B.size:
        return _NOTHING
    error = said_BS[:, 0] - label_B
    spread = float(((label_B - label_B.mean()) ** 2).sum())
    missed = Missed(float(-error[~(error > 0.0)].sum()), float(error[error > 0.0].sum()))
    return _quality(label_B.size, missed, float((error**2).sum()), spread, int((error >= 0.0).sum()))


def _spread(tally: Tally, labels: int) -> float:
    """Give the squared distance of all labels from their mean, of which only the last step is rounded."""
    answers, squares = exact_total(tally.exact[ANSWERS]), exact_total(tally.exact[SQUARED_ANSWERS])
    return math.nan if answers is None or squares is None else float(squares - answers**2 / labels)


def _rounded(total: Fraction | float) -> float:
    try:
        return float(total)
    except OverflowError:  # the sum of finite numbers is beyond them
        return math.inf


def _quality(labels: int, missed: Missed, squared: float, spread: float, covered: int) -> RegressionQuality:
    return RegressionQuality(
        labels,
        _rounded(missed.under + missed.over) / labels,
        math.sqrt(squared / labels),
        1.0 - squared / spread if spread > 0.0 else math.nan,
        missed.pinball(LOW) / labels,
        missed.pinball(HIGH) / labels,
        covered / labels,
    )
