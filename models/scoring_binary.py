"""How good probabilities of yes were.

The figures since the start that need an order (areas, calibration) count scores in 24,576 bins of the odds
(tally_odds.py), and scores of one bin as ties; `auc_error` bounds what that costs. Over the last 10,000 labels they are
exact.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.scoring import bounded_log_loss, f1_scores, kappa
from models.tally import LOSS, SQUARED, YES_BITS, Counts, Tally, Vector
from models.tally_odds import bin_centers

CALIBRATION_BINS = 10


class BinaryQuality(NamedTuple):
    """Figures of a span of labels; NaN where nothing can be said yet."""

    labels: int
    log_loss: float
    brier: float  # mean square of probability - label
    accuracy: float
    auc: float  # area under the ROC curve
    auc_error: float  # bounds the error of `auc`
    pr_auc: float  # average precision
    f1: float  # of yes at 0.5
    kappa: float  # Cohen's
    calibration_error: float  # expected calibration error over ten bins of probability

    @property
    def loss(self) -> float:
        """The log loss."""
        return self.log_loss


_NOTHING = BinaryQuality(0, *[math.nan] * 9)


def since_start(tally: Tally) -> BinaryQuality:
    """Judge all labels so far."""
    labels, right, _ = tally.totals.tolist()
    if not labels:
        return _NOTHING
    negatives, positives = tally.bins
    area, error = area_under_curve(negatives, positives)
    mean_loss, brier = float(tally.sums[LOSS]) / labels, float(tally.sums[SQUARED]) / labels
    half = negatives.size // 2
    confusion = np.array([[side[:half].sum(), side[half:].sum()] for side in (negatives, positives)], float)
    return BinaryQuality(
        labels,
        mean_loss,
        brier,
        right / labels,
        area,
        error,
        average_precision(negatives, positives),
        float(f1_scores(confusion)[1]),
        kappa(confusion),
        calibration_error(bin_centers(YES_BITS), negatives, positives),
    )


def recent(said_BS: npt.NDArray[np.float64], label_B: Vector) -> BinaryQuality:
    """Judge some predictions."""
    labels, p, y = len(label_B), said_BS[:, 0], label_B > 0.5
    if not labels:
        return _NOTHING
    scores, place = np.unique(p, return_inverse=True)
    negatives, positives = (np.bincount(place[side], minlength=scores.size) for side in (~y, y))
    said = p >= 0.5
    confusion = np.array([[(~said & ~y).sum(), (said & ~y).sum()], [(~said & y).sum(), (said & y).sum()]], float)
    return BinaryQuality(
        labels,
        float(bounded_log_loss(np.where(y, p, 1.0 - p)).mean()),
        float(((p - y) ** 2).mean()),
        float((said == y).mean()),
        area_under_curve(negatives, positives)[0],
        0.0,
        average_precision(negatives, positives),
        float(f1_scores(confusion)[1]),
        kappa(confusion),
        calibration_error(scores, negatives, positives),
    )


def area_under_curve(negatives: Counts, positives: Counts) -> tuple[float, float]:
    """Give the area under the ROC curve from counts by rising score, ties counted half, and its largest error.

    The error is that of not knowing the order within a bin: half of the pairs that share one. NaN with one class only.
    """
    pairs = float(negatives.sum()) * float(positives.sum())
    if not pairs:
        return math.nan, math.nan
    tied = 0.5 * float((negatives * positives).sum())
    below = np.cumsum(negatives) - negatives
    return (float((below * positives).sum()) + tied) / pairs, tied / pairs


def average_precision(negatives: Counts, positives: Counts) -> float:
    """Give the mean precision over the recall steps, from counts by rising score (scikit-learn's definition)."""
    found, wrong = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    if not found.size or not found[-1]:
        return math.nan
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(found / (found + wrong))
    return float((precision * positives[::-1]).sum() / found[-1])


def calibration_error(score: Vector, negatives: Counts, positives: Counts) -> float:
    """Give the expected calibration error over ten equal bins of probability (Guo et al. 2017)."""
    count, place = negatives + positives, np.minimum((score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    said = np.bincount(place, score * count, CALIBRATION_BINS)
    came = np.bincount(place, positives, CALIBRATION_BINS)
    return float(np.abs(said - came).sum() / count.sum())
