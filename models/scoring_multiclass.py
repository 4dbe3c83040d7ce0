"""How good probabilities of several classes were; accuracy, F1 and kappa take the likeliest class as the answer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.scoring import bounded_log_loss, f1_scores, kappa
from models.tally import LABELS, LOSS, Tally, Vector


class MulticlassQuality(NamedTuple):
    """Figures of a span of labels; NaN where nothing can be said yet."""

    labels: int
    log_loss: float
    accuracy: float
    macro_f1: float  # mean F1 over the classes that came or were answered
    kappa: float  # Cohen's

    @property
    def loss(self) -> float:
        """The log loss."""
        return self.log_loss


_NOTHING = MulticlassQuality(0, *[math.nan] * 4)


def since_start(tally: Tally) -> MulticlassQuality:
    """Judge all labels so far."""
    labels = int(tally.totals[LABELS])
    return _quality(float(tally.sums[LOSS]) / labels, tally.confusion.astype(float)) if labels else _NOTHING


def recent(said_BS: npt.NDArray[np.float64], label_B: Vector) -> MulticlassQuality:
    """Judge some predictions."""
    if not label_B.size:
        return _NOTHING
    place, classes = label_B.astype(np.int64), said_BS.shape[1]
    said = said_BS.argmax(axis=1)
    confusion = np.bincount(place * classes + said, minlength=classes**2).reshape(classes, classes)
    loss = bounded_log_loss(said_BS[np.arange(place.size), place]).mean()
    return _quality(float(loss), confusion.astype(float))


def _quality(loss: float, confusion_CC: npt.NDArray[np.float64]) -> MulticlassQuality:
    labels = int(confusion_CC.sum())
    accuracy = float(np.trace(confusion_CC) / labels)
    return MulticlassQuality(labels, loss, accuracy, float(np.nanmean(f1_scores(confusion_CC))), kappa(confusion_CC))
