"""How good predictions were: what every task's figures have in common (scoring_binary.py and its neighbours).

Everything is kept in arrays and updated by one compiled call per label, in order, so that it is part of a snapshot and
the same in every replay. Each task has one *loss*, which is the evidence for promotions: the log loss of classes,
bounded as evidence needs it, the absolute error of numbers, how wrongly anomaly scores rank, and how far rows lie from
their clusters.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.exact_sums import add_exactly, add_square_exactly, empty_sums
from streams.compiled import bare, inlined
from streams.errors import ModelError
from streams.pipeline import Task

P_MIN, P_MAX = 0.001, 0.999  # bounds the log loss at 6.91 nats, as evidence needs it
ROLLING_LABELS = 10_000
AUC_BINS = 2**14
AUC_LOGIT = 16.0  # a probability of 1e-7
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
ERRORS, SQUARED_ERRORS, ANSWERS, SQUARED_ANSWERS, EXACT_SUMS = 0, 1, 2, 3, 4  # places in `exact`

Vector = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[np.generic]]


class Tally(NamedTuple):
    """Arrays that the kernels update; S numbers a prediction, C classes."""

    code: int  # of the task
    sums: Vector  # [SUMS]; not of regressions
    threshold: float  # of anomaly scores, where a prediction brings none of its own
    totals: Counts  # [labels, right answers, labels ever scored], of anomalies [events, alerts, scored, of each kind]
    bins: Counts  # negatives and positives by the logit of their score [2, AUC_BINS]; events by cluster [1, K]
    ranked: npt.NDArray[np.float64]  # anomaly: [2, RANK_LABELS], a ring of the last scores of either kind
    confusion: Counts  # multiclass: [C, C], labels by what was the likeliest class; anomaly: [2, 2], labels by alert
    exact: Counts  # regression: [EXACT_SUMS, WORDS], of errors and of labels (exact_sums.py)
    recent_said: npt.NDArray[np.float64]  # [ROLLING_LABELS, S], a ring
    recent_y: Vector  # the labels of the same


class Quality(Protocol):
    """What a span of labels says, as a named tuple of figures; NaN where nothing can be said yet."""

    @property
    def labels(self) -> int:
        """How many there were."""
        ...

    @property
    def loss(self) -> float:
        """The task's loss, on average."""
        ...

    def _asdict(self) -> dict[str, float]: ...


class Scores:
    """The scores of one candidate.

    Example:
        >>> scores = Scores()
        >>> for p, label in ((0.2, 0.0), (0.9, 1.0), (0.6, 0.0)):
        ...     _ = add_score(scores.tally, np.array([[p]]), 0, label)
        >>> scores.since_start().accuracy, scores.rolling().auc
        (0.6666666666666666, 1.0)
    """

    def __init__(self, task: Task | None = None) -> None:
        """Begin without labels, for binary ones if nothing else is said."""
        self.task = task or Task()
        code, classes = CODES[self.task.kind], len(self.task.classes)
        is_anomaly = code == ANOMALY
        bins = (1, MOST_CLUSTERS) if code == CLUSTERING else (2, AUC_BINS if self.task.is_yes_or_no else 0)
        sides = 2 if is_anomaly else classes
        self.tally = Tally(
            code,
            np.zeros(SUMS),
            self.task.threshold,
            np.zeros(5 if is_anomaly else 3, np.int64),
            np.zeros(bins, np.int64),
            np.zeros((2, RANK_LABELS if is_anomaly else 0)),
            np.zeros((sides, sides), np.int64),
            empty_sums(EXACT_SUMS if code == REGRESSION else 0),
            np.full((ROLLING_LABELS, 2 if is_anomaly else self.task.outputs), np.nan),
            np.zeros(ROLLING_LABELS),
        )

    def since_start(self) -> Quality:
        """Judge all labels so far; of binary ones this costs 16,384 steps."""
        return _judge(self.task).since_start(self.tally)

    def rolling(self) -> Quality:
        """Judge the last 10,000 labels. Costs a sort of them (about 1 ms): for a scrape, not for a row."""
        labels = min(int(self.tally.totals[SCORED]), ROLLING_LABELS)
        return _judge(self.task).recent(self.tally.recent_said[:labels], self.tally.recent_y[:labels])

    def state(self) -> State:
        """Copy the tally."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            ModelError: when arrays are absent or of another shape.
        """
        for name, ours in self._arrays().items():
            if name not in state or state[name].shape != ours.shape:
                raise ModelError(f"the scores' {name} is not whole in this snapshot; run `millrace rebuild`")
            ours[...] = state[name]

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        return {name: array for name, array in self.tally._asdict().items() if name not in ("code", "threshold")}


class _Judge(Protocol):
    def since_start(self, tally: Tally) -> Quality: ...

    def recent(self, said_BS: npt.NDArray[np.float64], label_B: Vector) -> Quality: ...


def _judge(task: Task) -> _Judge:
    from models import scoring_anomaly, scoring_binary, scoring_clustering, scoring_multiclass, scoring_regression

    judges: dict[str, _Judge] = {
        "binary": scoring_binary,
        "multiclass": scoring_multiclass,
        "regression": scoring_regression,
        "anomaly": scoring_anomaly,
        "clustering": scoring_clustering,
    }
    return judges[task.kind]


def figure_names(task: Task) -> tuple[str, ...]:
    """Name the figures of a task, its loss first."""
    nothing = _judge(task).recent(np.empty((0, task.outputs)), np.empty(0))
    return tuple(name for name in nothing._asdict() if name != "labels")


def bounded_log_loss(given: Vector) -> Vector:
    """Give the log loss of the probabilities that were given to the truth."""
    loss: Vector = -np.log(np.clip(given, P_MIN, P_MAX))
    return loss


def kappa(confusion_CC: npt.NDArray[np.float64]) -> float:
    """Give Cohen's kappa of a confusion matrix: agreement beyond chance (Cohen 1960); NaN where chance is certain."""
    total = confusion_CC.sum()
    if not total:
        return math.nan
    agreed = np.trace(confusion_CC) / total
    by_chance = float((confusion_CC.sum(axis=0) * confusion_CC.sum(axis=1)).sum() / total**2)
    return float((agreed - by_chance) / (1.0 - by_chance)) if by_chance < 1.0 else math.nan


def f1_scores(confusion_CC: npt.NDArray[np.float64]) -> Vector:
    """Give the F1 of each class: 2 right / (labels + answers); 0 for a class that was answered or came, never right."""
    both = confusion_CC.sum(axis=0) + confusion_CC.sum(axis=1)
    with np.errstate(invalid="ignore"):
        scores: Vector = 2.0 * np.diag(confusion_CC) / both
    return scores


@bare
def log_loss(p: float, is_positive: bool) -> float:
    """Negative log of what was given to the truth, at least 0.001 and at most 0.999; NaN counts as 0.001."""
    given = p if is_positive else 1.0 - p
    if not given >= P_MIN:
        given = P_MIN
    given = min(given, P_MAX)
    return -math.log(given)


@inlined
def auc_bin(p: float) -> int:
    """Give the place of a probability among equal bins of its logit."""
    if not p > 0.0:
        return 0
    if not p < 1.0:
        return AUC_BINS - 1
    logit = math.log(p) - math.log1p(-p)
    place = int((logit + AUC_LOGIT) * (AUC_BINS / (2.0 * AUC_LOGIT)))
    return min(max(place, 0), AUC_BINS - 1)


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
    tally.bins[side, auc_bin(score)] += sign
    tally.confusion[side, 1 if score >= _threshold(tally, said_NS, row) else 0] += sign


@inlined
def _add_cluster(tally: Tally, said_NS: npt.NDArray[np.float64], row: int) -> float:
    own, other = math.sqrt(said_NS[row, 1]), math.sqrt(said_NS[row, 2])
    most = max(own, other)
    tally.totals[LABELS] += 1
    tally.sums[SILHOUETTE] += (other - own) / most if most > 0.0 else 0.0
    tally.bins[0, min(int(said_NS[row, 0]), MOST_CLUSTERS - 1)] += 1
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
        add_exactly(tally.exact, ERRORS, abs(error), sign)
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
        tally.bins[side, auc_bin(p)] += sign
    else:
        place, said = int(label), likeliest(said_NS, row)
        loss = log_loss(said_NS[row, place], True)
        tally.totals[RIGHT] += sign * (said == place)
        tally.confusion[place, said] += sign
    tally.sums[LOSS] += sign * loss
    return loss
