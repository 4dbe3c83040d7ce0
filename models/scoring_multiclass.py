"""How good probabilities of several classes were; accuracy, F1 and kappa take the likeliest class as the answer.

Areas are those of each class against the others, on average over the classes that have both. Since the start they are
of 3,072 bins of the odds (tally_odds.py), scores of one bin taken as ties; `macro_auc_error` bounds what that costs.
Over the last 10,000 labels they are exact. The calibration error is that of the answer's probability.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.scoring import bounded_log_loss, f1_scores, kappa
from models.scoring_binary import area_under_curve, average_precision, calibration_error
from models.tally import LABELS, LOSS, SQUARED, Counts, Tally, Vector
from models.tally_classes import CLASS_BITS
from models.tally_odds import bin_centers


class MulticlassQuality(NamedTuple):
    """Figures of a span of labels; NaN where nothing can be said yet."""

    labels: int
    log_loss: float
    brier: float  # mean of the sum over the classes of (probability - 1 or 0) squared: from 0 to 2
    accuracy: float
    macro_auc: float  # mean area under the ROC curve of a class against the others
    macro_auc_error: float  # bounds the error of `macro_auc`
    macro_pr_auc: float  # mean average precision of a class against the others
    macro_f1: float  # mean F1 over the classes that came or were answered
    kappa: float  # Cohen's
    calibration_error: float  # expected calibration error of the answer, over ten bins of its probability

    @property
    def loss(self) -> float:
        """The log loss."""
        return self.log_loss


class _Ordered(NamedTuple):
    """What needs the order of probabilities."""

    area: float
    error: float
    precision: float
    calibration: float


_NOTHING = MulticlassQuality(0, *[math.nan] * 9)


def since_start(tally: Tally) -> MulticlassQuality:
    """Judge all labels so far; costs 6,144 steps for each class."""
    labels = int(tally.totals[LABELS])
    if not labels:
        return _NOTHING
    *of_classes, wrong, right = tally.bins
    found = []
    for others, own in zip(of_classes[::2], of_classes[1::2], strict=True):
        found.append((*area_under_curve(others, own), average_precision(others, own)))
    ordered = _means(found, calibration_error(bin_centers(CLASS_BITS), wrong, right))
    return _quality(float(tally.sums[LOSS]) / labels, float(tally.sums[SQUARED]) / labels, tally.confusion, ordered)


def recent(said_BS: npt.NDArray[np.float64], label_B: Vector) -> MulticlassQuality:
    """Judge some predictions; costs a sort of them for each class."""
    if not label_B.size:
        return _NOTHING
    place, classes = label_B.astype(np.int64), said_BS.shape[1]
    said = said_BS.argmax(axis=1)
    confusion = np.bincount(place * classes + said, minlength=classes**2).reshape(classes, classes)
    of_label = said_BS[np.arange(place.size), place]
    loss = float(bounded_log_loss(of_label).mean())
    brier = float(((said_BS**2).sum(axis=1) - 2.0 * of_label + 1.0).mean())
    found = [_ranked(said_BS[:, c], said_BS[place == c, c]) for c in range(classes)]
    score, is_right = said_BS.max(axis=1), said == place
    calibration = calibration_error(score, (~is_right).astype(np.int64), is_right.astype(np.int64))
    return _quality(loss, brier, confusion, _means(found, calibration))


def _ranked(score_B: Vector, own_N: Vector) -> tuple[float, float, float]:
    """Give a class's area under the ROC curve, its error, and average precision: all its scores, and of its labels.

    Only the scores of its own labels are looked up, so over all classes that is done once for each label.
    """
    others = score_B.size - own_N.size
    if not own_N.size:
        return math.nan, math.nan, math.nan
    all_B, own = np.sort(score_B), np.sort(own_N)
    below, own_below = np.searchsorted(all_B, own), np.searchsorted(own, own)
    up_to, own_up_to = np.searchsorted(all_B, own, "right"), np.searchsorted(own, own, "right")
    precision = float(((own.size - own_below) / (all_B.size - below)).mean())
    if not others:
        return math.nan, math.nan, precision
    area = float(((below - own_below) + 0.5 * ((up_to - below) - (own_up_to - own_below))).sum()) / own.size / others
    return area, 0.0, precision


def _means(found: list[tuple[float, float, float]], calibration: float) -> _Ordered:
    """Give the mean of each figure over the classes that have one, NaN where none has."""
    known = [[value for value in values if not math.isnan(value)] for values in zip(*found, strict=True)]
    area, error, precision = (sum(values) / len(values) if values else math.nan for values in known)
    return _Ordered(area, error, precision, calibration)


def _quality(loss: float, brier: float, counts: Counts, ordered: _Ordered) -> MulticlassQuality:
    confusion_CC = counts.astype(float)
    labels = int(counts.sum())
    return MulticlassQuality(
        labels,
        loss,
        brier,
        float(np.trace(confusion_CC) / labels),
        ordered.area,
        ordered.error,
        ordered.precision,
        float(np.nanmean(f1_scores(confusion_CC))),
        kappa(confusion_CC),
        ordered.calibration,
    )
