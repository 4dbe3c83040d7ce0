"""What a report tells of versions: their training, and which features a model needs (permutation importance).

A feature's importance is how much worse a model does when the column's values are dealt out anew among the rows
(Breiman 2001; Fisher, Rudin and Dominici 2019): what the model uses, which need not be what causes the label. Columns
that say the same share it. The rows lie behind those a model was trained on where that is known: of a batch candidate
from its test span on. An online candidate has most likely learned from all, and the page says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import Learner
from models.registry import read_version
from models.scoring import bounded_log_loss
from models.scoring_binary import area_under_curve
from models.sealed import model_key
from models.version import Version
from serving.report_data import Events
from streams.pipeline import Pipeline, Task
from streams.state_folder import state_of

ROWS = 2_000  # the loss of a shuffle is known to 2 % of a row's spread
SLOW_ROWS = 400  # of code that is not compiled: River costs up to 1 ms a row
LEAST_ROWS = 100
REPEATS = 3
SEED = 20_13

Floats = npt.NDArray[np.float64]
Judge = Callable[[Floats], float]


class Importance(NamedTuple):
    """How much each of F columns matters to a version.

    `mean_F` is the rise of the loss, `error_F` the standard deviation over the repeats. `is_unseen` says that the model
    was trained on none of the rows. `measure` names what rises.
    """

    version: str
    names: tuple[str, ...]
    mean_F: Floats
    error_F: Floats
    rows: int
    is_unseen: bool
    measure: str


def training_of(version: Version) -> Any | None:
    """Give what a version says of its training in a batch; None of one that learned online."""
    return version.training


def importance_of(pipeline: Pipeline, version: Version, events: Events) -> Importance | None:
    """Judge a version on archived rows; None where too few have a label.

    Raises:
        ModelError: its file is gone or damaged, or it is of a learner that is not declared.
        UnavailableError: an object store does not answer.
    """
    state, task = state_of(pipeline), version.task
    declared = {model.name: model.kind for model in pipeline.models}
    is_compiled = ":" not in version.kind
    has_key = version.kind.startswith(("river:", "sklearn:"))
    learner = read_version(state, version, model_key(state) if has_key else None, kind=declared.get(version.candidate))
    is_fast = is_compiled or version.kind.startswith("torch:")
    place_N, is_unseen = _rows_for(version, events, ROWS if is_fast else SLOW_ROWS)
    if place_N.size < LEAST_ROWS:
        return None
    X_BF = columns_for(version, events, place_N)
    judge, measure = _judge(task, learner, X_BF, events.label_N[place_N])
    mean_F, error_F = permuted(learner, X_BF, judge)
    names = tuple(column.name for column in version.columns)
    return Importance(version.name, names, mean_F, error_F, place_N.size, is_unseen, measure)


def permuted(learner: Learner, X_BF: Floats, judge: Judge, repeats: int = REPEATS) -> tuple[Floats, Floats]:
    """Give how much the judge's number rises when a column is shuffled: mean and deviation over repeats."""
    rng = np.random.default_rng(SEED)
    whole = judge(learner.predict(X_BF))
    rise_RF = np.zeros((repeats, X_BF.shape[1]))
    for column in range(X_BF.shape[1]):
        shuffled_BF = X_BF.copy()
        for repeat in range(repeats):
            shuffled_BF[:, column] = rng.permutation(X_BF[:, column])
            rise_RF[repeat, column] = judge(learner.predict(shuffled_BF)) - whole
    return rise_RF.mean(axis=0), rise_RF.std(axis=0)


def columns_for(version: Version, events: Events, place_N: npt.NDArray[np.int64]) -> Floats:
    """Give rows with the columns that a version was made for; one that is not archived is missing."""
    known = {column.name: at for at, column in enumerate(events.columns)}
    X_BF = np.full((place_N.size, len(version.columns)), np.nan)
    for at, column in enumerate(version.columns):
        if column.name in known:
            X_BF[:, at] = events.X_NF[place_N, known[column.name]]
    return X_BF


def _rows_for(version: Version, events: Events, most: int) -> tuple[npt.NDArray[np.int64], bool]:
    """Choose rows with a label: unseen ones if that is known, else the newest."""
    is_known = np.isfinite(events.label_N) | version.task.is_unsupervised
    training = training_of(version)
    split = training.split if training is not None else None
    if split is not None:
        unseen = np.flatnonzero(is_known & (events.time_us_N >= split.test.from_us))
        if unseen.size >= LEAST_ROWS:
            return _spread(unseen, most), True
    return np.flatnonzero(is_known)[-most:], False


def _spread(place_N: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Take at most so many, evenly over time."""
    if place_N.size <= most:
        return place_N
    return place_N[np.linspace(0, place_N.size - 1, most).astype(np.int64)]


def _judge(task: Task, learner: Learner, X_BF: Floats, label_B: Floats) -> tuple[Judge, str]:
    """Give what tells how bad predictions are: the task's loss, or without labels how much answers change."""
    size = len(label_B)
    if task.kind == "regression":
        return lambda said: float(np.abs(said.reshape(size) - label_B).mean()), "mean absolute error"
    if task.kind == "multiclass":
        place_B = label_B.astype(np.int64)
        return lambda said: float(bounded_log_loss(said[np.arange(size), place_B]).mean()), "log loss"
    is_yes_B = label_B > 0.5
    if task.kind == "binary":
        return lambda said: float(bounded_log_loss(np.where(is_yes_B, said, 1.0 - said)).mean()), "log loss"
    if task.kind == "anomaly" and is_yes_B.any() and (label_B <= 0.5).any():
        return lambda said: _rank_loss(said.reshape(size, -1)[:, 0], label_B), "rank loss (1 - AUC)"
    before_B = learner.predict(X_BF).reshape(size, -1)[:, 0]
    if task.kind == "clustering":
        return lambda said: float((said.reshape(size, -1)[:, 0] != before_B).mean()), "share of rows in another cluster"
    return lambda said: float(np.abs(said.reshape(size, -1)[:, 0] - before_B).mean()), "mean change of the score"


def _rank_loss(score_B: Floats, label_B: Floats) -> float:
    is_yes, is_no = label_B > 0.5, label_B <= 0.5
    scores, place_B = np.unique(score_B, return_inverse=True)
    no, yes = (np.bincount(place_B[side], minlength=scores.size) for side in (is_no, is_yes))
    return 1.0 - area_under_curve(no, yes)[0]
