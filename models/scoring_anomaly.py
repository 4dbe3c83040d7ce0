"""How good anomaly scores were: how many alerts they raised and, where labels are known, how they ranked.

Scores of anomalies are no probabilities: most models say 0.8 of what is quite usual to them. So what counts is the
order. The loss of an event is the share of the last 100 labels of the other kind that its score is on the wrong side
of, ties counted half: of an anomaly the normal events with larger scores, of a normal event the anomalies with smaller
ones. They are late ones because what a model calls unusual changes with what it has learned. The loss is one minus the
event's placement value, whose mean is the area under the ROC curve (DeLong, DeLong and Clarke-Pearson 1988). It lies in
[0, 1], is 0.5 for a constant score, and there is none before a label of the other kind.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.scoring_binary import area_under_curve, average_precision
from models.tally import ALERTS, LABELS, LOSS, RANKED, SCORE, Counts, Tally, Vector


class AnomalyQuality(NamedTuple):
    """Figures of a span of events; NaN where nothing can be said yet, or without labels."""

    labels: int  # events, with a label or without
    rank_loss: float  # the mean of all losses; of the last 10,000 events it is 1 - auc
    auc: float  # area under the ROC curve
    auc_error: float  # bounds the error of `auc`
    pr_auc: float  # average precision
    precision: float  # share of anomalies among alerts whose label is known
    recall: float  # share of alerts among anomalies
    alert_rate: float  # share of alerts among all events
    mean_score: float

    @property
    def loss(self) -> float:
        """The rank loss."""
        return self.rank_loss


_NOTHING = AnomalyQuality(0, *[math.nan] * 8)


def since_start(tally: Tally) -> AnomalyQuality:
    """Judge all events so far; areas are of 24,576 bins of the score's odds, as in scoring_binary.py."""
    events = int(tally.totals[LABELS])
    if not events:
        return _NOTHING
    negatives, positives = tally.bins
    area, error = area_under_curve(negatives, positives)
    return AnomalyQuality(
        events,
        _share(float(tally.sums[LOSS]), float(tally.sums[RANKED])),
        area,
        error,
        average_precision(negatives, positives),
        *_precision_and_recall(tally.confusion),
        int(tally.totals[ALERTS]) / events,
        float(tally.sums[SCORE]) / events,
    )


def recent(said_B2: npt.NDArray[np.float64], label_B: Vector) -> AnomalyQuality:
    """Judge some events: scores with their thresholds, labels where they are known."""
    if not label_B.size:
        return _NOTHING
    score, is_alert = said_B2[:, 0], said_B2[:, 0] >= said_B2[:, 1]
    is_yes, is_no = label_B > 0.5, label_B <= 0.5
    scores, place = np.unique(score, return_inverse=True)
    negatives, positives = (np.bincount(place[side], minlength=scores.size) for side in (is_no, is_yes))
    area = area_under_curve(negatives, positives)[0]
    confusion = np.array([[(side & ~is_alert).sum(), (side & is_alert).sum()] for side in (is_no, is_yes)])
    return AnomalyQuality(
        label_B.size,
        1.0 - area,
        area,
        math.nan if math.isnan(area) else 0.0,
        average_precision(negatives, positives),
        *_precision_and_recall(confusion),
        float(is_alert.mean()),
        float(score.mean()),
    )


def _precision_and_recall(confusion: Counts) -> tuple[float, float]:
    right = float(confusion[1, 1])
    return _share(right, float(confusion[:, 1].sum())), _share(right, float(confusion[1].sum()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
