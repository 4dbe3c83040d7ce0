"""Scores of made-up predictions, label by label, as the tests of figures judge them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy.typing as npt

from models.scoring import Scores
from models.tally import add_score
from streams.pipeline import Task

Quality = TypeVar("Quality")


def scored(task: Task, said_NS: npt.NDArray[Any], label_N: npt.NDArray[Any]) -> Scores:
    """Score predictions, [N] or [N, S], in the order of their labels, [N]."""
    scores, said_NS = Scores(task), said_NS.reshape(len(label_N), -1)
    for row, label in enumerate(label_N):
        add_score(scores.tally, said_NS, row, float(label))
    return scores


def judged(scores: Scores, kind: type[Quality]) -> tuple[Quality, Quality]:
    """Give the figures since the start and the rolling ones, which are of a task's kind."""
    start, rolling = scores.since_start(), scores.rolling()
    assert isinstance(start, kind)
    assert isinstance(rolling, kind)
    return start, rolling
