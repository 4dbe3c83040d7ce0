"""The tally of a candidate: arrays that are updated by one compiled call per label, in order.

So it is part of a snapshot, and the same in every replay. `add_score` counts a prediction whose label has come, and
among the newest too; `give_score` and `take_score` count since the start alone, for labels that are amended or
retracted. What the figures mean is told by scoring_binary.py and its neighbours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.exact_sums import add_exactly, add_square_exactly
from models.tally_classes import count_classes
from models.tally_odds import odds_bin
from streams.compiled import bare, inlined

P_MIN, P_MAX = 0.001, 0.999  # bounds the log loss at 6.91 nats, as evidence needs it
ROLLING_LABELS = 10_000
YES_BITS = 9  # a bin of probabilities of yes is less than 0.2 % of the odds wide
MOST_CLUSTERS = 100  # those that are told apart; a cluster with a larger number counts as the last of these
BINARY, MULTICLASS, REGRESSION, ANOMALY, CLUSTERING = 0, 1, 2, 3, 4
CODES = {
    "binary": BINARY,
    "multiclass": MULTICLASS,
    "regression": REGRESSION,
    "anomaly": ANOMALY,
    "clustering": CLUSTERING,
}
LOSS, SQUARED, SUMS = 0, 1, 3  # places in `sums`
SCORE, RANKED = 1, 2  # of anomalies: the sum of scores, and how many have a loss
SILHOUETTE = 1  # of clusterings
RANK_LABELS = 100  # of each kind, whose anomaly scores the next are ranked among
LABELS, RIGHT, ALERTS = 0, 1, 1  # places in `totals`; of anomalies and clusterings labels are all events judged
SCORED, SIDES = 2, 3  # what was scored stays scored, though its label be retracted; normal events and anomalies
UNDER, SQUARED_ERRORS, ANSWERS, SQUARED_ANSWERS, OVER, EXACT_SUMS = 0, 1, 2, 3, 4, 5  # places in `exact`

Vector = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Tally(NamedTuple):
    """Arrays that the kernels update; S numbers a prediction, C classes."""

    code: int  # of the task
    sums: Vector  # [SUMS]; not of regressions
    threshold: float  # of anomaly scores, where a prediction brings none of its own
    totals: Counts  # [labels, right answers, labels ever scored], of anomalies [events, alerts, scored, of each kind]
    bins: Counts  # negatives and positives by their score's odds [2, bins]; by class (tally_classes.py); clusters
    ranked: npt.NDArray[np.float64]  # anomaly: [2, RANK_LABELS], a ring of the last scores of either kind
    confusion: Counts  # multiclass: [C, C], labels by what was the likeliest class; anomaly: [2, 2], labels by alert
    exact: Counts  # regression: [EXACT_SUMS, WORDS], of errors, what was said too little or too much, and of labels
    recent_said: npt.NDArray[np.float64]  # [ROLLING_LABELS, S], a ring
    recent_y: Vector  # the labels of the same
    delays: npt.NDArray[np.float64]  # [2, delays], labels and losses by how long the label took (tally_delays.py)


@bare
def log_loss(p: float, is_positive: bool) -> float:
    """Negative log of what was given to the truth, at least 0.001 and at most 0.999; NaN counts as 0.001."""
    given = p if is_positive else 1.0 - p
    if not given >= P_MIN:
        given = P_MIN
    given = min(given, P_MAX)
    return -math.log(given)


@inlined
def likeliest(said_NS: npt.NDArray[np.float64], row: int) -> int:
    """Give the class with the largest probability, the first of equals."""
    best = 0
    for place in range(1, said_NS.shape[1]):
        if said_NS[row, place] > said_NS[row, best]:
            best = place
    return best


@inlined
def _rank_loss(tally: Tally, score: float, label: float) -> float:
    """Keep an anomaly score among those of its kind; gives its loss (scoring_anomaly.py), NaN without a label."""
    if math.isnan(label):
        return math.nan
    side = 1 if label > 0.5 else 0
    tally.ranked[side, tally.totals[SIDES + side] % RANK_LABELS] = score
    tally.totals[SIDES + side] += 1
    others = min(tally.totals[SIDES + 1 - side], RANK_LABELS)
    if others == 0:
        return math.nan
    wrong = 0.0
    for at in range(others):
        other = tally.ranked[1 - side, at]
        if other == score:
            wrong += 0.5
        elif (other < score) == (side == 0):
            wrong += 1.0
    tally.sums[RANKED] += 1.0
    return float(wrong / others)


@inlined
def _threshold(tally: Tally, said_NS: npt.NDArray[np.float64], row: int) -> float:
    return said_NS[row, 1] if said_NS.shape[1] == 2 else tally.threshold


@inlined
def _add_anomaly(tally: Tally, said_NS: npt.NDArray[np.float64], row: int, label: float) -> float:
    """Judge an event's score; its alert counts whether it has a label or not."""
    score = said_NS[row, 0]
    tally.totals[LABELS] += 1
    tally.totals[ALERTS] += 1 if score >= _threshold(tally, said_NS, row) else 0
    tally.sums[SCORE] += score
    loss = _rank_loss(tally, score, label)
    tally.sums[LOSS] += 0.0 if math.isnan(loss) else loss
    if not math.isnan(label):
        _count_side(tally, said_NS, row, label, 1)
    return loss


@inlined
def _count_side(tally: Tally, said_NS: npt.NDArray[np.float64], row: int, label: float, sign: int) -> None:
    """Count a score among those of its label. The rank loss stays what it was among the labels of its time."""
    score, side = said_NS[row, 0], 1 if label > 0.5 else 0
    tally.bins[side, odds_bin(score, YES_BITS)] += sign
    tally.confusion[side, 1 if score >= _threshold(tally, said_NS, row) else 0] += sign


@inlined
def cluster_place(number: float) -> int:
    """Give the place of a cluster among those that are told apart; whatever is none of them is the last."""
    return int(number) if 0.0 <= number < MOST_CLUSTERS else MOST_CLUSTERS - 1


@inlined
def _add_cluster(tally: Tally, said_NS: npt.NDArray[np.float64], row: int) -> float:
    own, other = math.sqrt(said_NS[row, 1]), math.sqrt(said_NS[row, 2])
    most = max(own, other)
    tally.totals[LABELS] += 1
    tally.sums[SILHOUETTE] += (other - own) / most if most > 0.0 else 0.0
    tally.bins[0, cluster_place(said_NS[row, 0])] += 1
    tally.sums[LOSS] += said_NS[row, 1]
    return float(said_NS[row, 1])


@inlined
def add_score(tally: Tally, said_NS: npt.NDArray[np.float64], row: int, label: float) -> float:
    """Count the prediction in a row whose label has come, or is not needed, also among the newest; gives its loss."""
    at = tally.totals[SCORED] % ROLLING_LABELS
    tally.totals[SCORED] += 1
    for place in range(said_NS.shape[1]):
        tally.recent_said[at, place] = said_NS[row, place]
    tally.recent_y[at] = label
    if tally.code == ANOMALY:
        tally.recent_said[at, 1] = _threshold(tally, said_NS, row)
        return _add_anomaly(tally, said_NS, row, label)
    if tally.code == CLUSTERING:
        return _add_cluster(tally, said_NS, row)
    return give_score(tally, said_NS, row, label)


@inlined
def give_score(tally: Tally, said_NS: npt.NDArray[np.float64], row: int, label: float) -> float:
    """Count a prediction with a label in the figures since the start; gives its loss."""
    return _count_score(tally, said_NS, row, label, 1)


@inlined
def take_score(tally: Tally, said_NS: npt.NDArray[np.float64], row: int, label: float) -> float:
    """Take away again what `give_score` has counted; gives its loss.

    Counts are as if it had never been, and so are the sums of a regression. The sums of the others, of numbers below
    7, are but for the rounding of one addition more.
    """
    return _count_score(tally, said_NS, row, label, -1)


@inlined
def _count_score(tally: Tally, said_NS: npt.NDArray[np.float64], row: int, label: float, sign: int) -> float:
    """Count a prediction with its label so many times, 1 or -1."""
    if tally.code == ANOMALY:
        _count_side(tally, said_NS, row, label, sign)
        return math.nan
    tally.totals[LABELS] += sign
    if tally.code == REGRESSION:
        error: float = said_NS[row, 0] - label
        tally.totals[RIGHT] += sign if error >= 0.0 else 0
        add_exactly(tally.exact, OVER if error > 0.0 else UNDER, abs(error), sign)
        add_exactly(tally.exact, SQUARED_ERRORS, error * error, sign)
        add_exactly(tally.exact, ANSWERS, label, sign)
        add_square_exactly(tally.exact, SQUARED_ANSWERS, label, sign)
        return abs(error)
    if tally.code == BINARY:
        p, is_positive = said_NS[row, 0], label > 0.5
        loss = log_loss(p, is_positive)
        tally.totals[RIGHT] += sign * ((p >= 0.5) == is_positive)
        side = 1 if is_positive else 0
        tally.sums[SQUARED] += sign * ((p - side) * (p - side))
        tally.bins[side, odds_bin(p, YES_BITS)] += sign
    else:
        place, said = int(label), likeliest(said_NS, row)
        loss = log_loss(said_NS[row, place], True)
        tally.totals[RIGHT] += sign * (said == place)
        tally.sums[SQUARED] += sign * count_classes(tally.bins, said_NS, row, place, said, sign)
        tally.confusion[place, said] += sign
    tally.sums[LOSS] += sign * loss
    return loss
