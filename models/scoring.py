"""How good predictions were: log loss, accuracy and ROC AUC, since the start and over the last 10,000 labels.

Everything is kept in arrays and updated by one compiled call per label, in order, so that it is part of a snapshot and
the same in every replay. The area under the curve since the start counts scores in 16,384 equal bins of the logit
between -16 and 16 (beyond: the outer bins), and scores of one bin as ties; `auc_error` bounds what that costs. Over the
last 10,000 labels it is exact.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.errors import ModelError

P_MIN, P_MAX = 0.001, 0.999  # bounds the log loss at 6.91 nats, as evidence needs it
ROLLING_LABELS = 10_000
AUC_BINS = 2**14
AUC_LOGIT = 16.0  # a probability of 1e-7

Vector = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[np.generic]]


class Quality(NamedTuple):
    """What a span of labels says; NaN where nothing can be said yet. `auc_error` bounds the error of `auc`."""

    labels: int
    log_loss: float
    accuracy: float
    auc: float
    auc_error: float


class Tally(NamedTuple):
    """Arrays that the kernels update."""

    loss: Vector  # [sum]
    totals: Counts  # [labels, right answers]
    bins: Counts  # [2, AUC_BINS]: negatives and positives by the logit of their score
    recent_p: Vector  # ring of ROLLING_LABELS
    recent_y: npt.NDArray[np.int8]


class Scores:
    """The scores of one candidate.

    Example:
        >>> scores = Scores()
        >>> for p, is_positive in ((0.2, False), (0.9, True), (0.6, False)):
        ...     _ = add_score(scores.tally, p, is_positive)
        >>> scores.since_start().accuracy, scores.rolling().auc
        (0.6666666666666666, 1.0)
    """

    def __init__(self) -> None:
        ring = np.full(ROLLING_LABELS, np.nan), np.zeros(ROLLING_LABELS, np.int8)
        self.tally = Tally(np.zeros(1), np.zeros(2, np.int64), np.zeros((2, AUC_BINS), np.int64), *ring)

    def since_start(self) -> Quality:
        """Judge all labels so far. Costs 16,384 steps."""
        labels, right = self.tally.totals.tolist()
        if not labels:
            return Quality(0, math.nan, math.nan, math.nan, math.nan)
        area, error = area_under_curve(*self.tally.bins)
        return Quality(labels, float(self.tally.loss[0]) / labels, right / labels, area, error)

    def rolling(self) -> Quality:
        """Judge the last 10,000 labels. Costs a sort of them (about 1 ms): for a scrape, not for a row."""
        labels = min(int(self.tally.totals[0]), ROLLING_LABELS)
        if not labels:
            return Quality(0, math.nan, math.nan, math.nan, math.nan)
        p, y = self.tally.recent_p[:labels], self.tally.recent_y[:labels] > 0
        loss = -np.log(np.clip(np.where(y, p, 1.0 - p), P_MIN, P_MAX))
        _, place = np.unique(p, return_inverse=True)
        area, _ = area_under_curve(np.bincount(place[~y], minlength=labels), np.bincount(place[y], minlength=labels))
        return Quality(labels, float(loss.mean()), float(((p >= 0.5) == y).mean()), area, 0.0)

    def state(self) -> State:
        """Copy the tally."""
        return {name: array.copy() for name, array in self.tally._asdict().items()}

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            ModelError: when arrays are absent or of another shape.
        """
        for name, ours in self.tally._asdict().items():
            if name not in state or state[name].shape != ours.shape:
                raise ModelError(f"the scores' {name} is not whole in this snapshot; run `millrace rebuild`")
            ours[...] = state[name]


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


@bare
def log_loss(p: float, is_positive: bool) -> float:
    """Negative log of what was given to the truth, at least 0.001 and at most 0.999; NaN counts as 0.001."""
    given = p if is_positive else 1.0 - p
    if not given >= P_MIN:
        given = P_MIN
    given = min(given, P_MAX)
    return -math.log(given)


@inlined
def _auc_bin(p: float) -> int:
    if not p > 0.0:
        return 0
    if not p < 1.0:
        return AUC_BINS - 1
    logit = math.log(p) - math.log1p(-p)
    place = int((logit + AUC_LOGIT) * (AUC_BINS / (2.0 * AUC_LOGIT)))
    return min(max(place, 0), AUC_BINS - 1)


@inlined
def add_score(tally: Tally, p: float, is_positive: bool) -> float:
    """Count one prediction whose label has come; gives its log loss. About 50 ns."""
    loss = log_loss(p, is_positive)
    at = tally.totals[0] % ROLLING_LABELS
    tally.loss[0] += loss
    tally.totals[0] += 1
    if (p >= 0.5) == is_positive:
        tally.totals[1] += 1
    side = 1 if is_positive else 0
    tally.bins[side, _auc_bin(p)] += 1
    tally.recent_p[at] = p
    tally.recent_y[at] = side
    return loss
