"""How good predictions were: what every task's figures have in common (scoring_binary.py and its neighbours).

Labels are counted in arrays (tally.py); here they are judged. Each task has one *loss*, which is the evidence for
promotions: the log loss of classes, bounded as evidence needs it, the absolute error of numbers, how wrongly anomaly
scores rank, and how far rows lie from their clusters.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.exact_sums import empty_sums
from models.tally import (
    ANOMALY,
    CODES,
    EXACT_SUMS,
    MOST_CLUSTERS,
    P_MAX,
    P_MIN,
    RANK_LABELS,
    REGRESSION,
    ROLLING_LABELS,
    SCORED,
    SUMS,
    YES_BITS,
    Counts,
    Tally,
    Vector,
)
from models.tally_classes import class_bins
from models.tally_delays import DELAYS, no_delays
from models.tally_odds import odds_bins
from streams.errors import ModelError
from streams.pipeline import Task

State = dict[str, npt.NDArray[np.generic]]


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
        >>> from models.tally import add_score
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
        sides = 2 if is_anomaly else classes
        self.tally = Tally(
            code,
            np.zeros(SUMS),
            self.task.threshold,
            np.zeros(5 if is_anomaly else 3, np.int64),
            _bins(self.task),
            np.zeros((2, RANK_LABELS if is_anomaly else 0)),
            np.zeros((sides, sides), np.int64),
            empty_sums(EXACT_SUMS if code == REGRESSION else 0),
            np.full((ROLLING_LABELS, 2 if is_anomaly else self.task.outputs), np.nan),
            np.zeros(ROLLING_LABELS),
            no_delays(),
        )

    def since_start(self) -> Quality:
        """Judge all labels so far; of binary ones this costs 24,576 steps, of others 6,144 for each class."""
        return _judge(self.task).since_start(self.tally)

    def rolling(self) -> Quality:
        """Judge the last 10,000 labels. Costs a sort of them (about 1 ms), of several classes for each."""
        labels = min(int(self.tally.totals[SCORED]), ROLLING_LABELS)
        return _judge(self.task).recent(self.tally.recent_said[:labels], self.tally.recent_y[:labels])

    def by_delay(self) -> dict[str, tuple[int, float]]:
        """Give how many labels since the start took so long, and their mean loss, NaN of none; see tally_delays.py."""
        pairs = zip(DELAYS, self.tally.delays.T.tolist(), strict=True)
        return {delay: (int(labels), loss / labels if labels else math.nan) for delay, (labels, loss) in pairs}

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
                raise ModelError(f"the scores' {name} is not whole in this snapshot")
            ours[...] = state[name]

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        return {name: array for name, array in self.tally._asdict().items() if name not in ("code", "threshold")}


def _bins(task: Task) -> Counts:
    """Make room for the counts of a task by score, class or cluster."""
    if task.kind == "multiclass":
        return class_bins(len(task.classes))
    shape = (1, MOST_CLUSTERS) if task.kind == "clustering" else (2, odds_bins(YES_BITS) if task.is_yes_or_no else 0)
    return np.zeros(shape, np.int64)


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


def judged(task: Task, said_BS: npt.NDArray[np.float64], label_B: Vector) -> Quality:
    """Judge predictions with their labels, exactly; costs a sort of them. S numbers a prediction as in a tally."""
    return _judge(task).recent(said_BS, label_B)


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
