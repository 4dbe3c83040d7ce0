"""Building the models of a pipeline file to see that they can be, which only their libraries know.

For `millrace check`: River's constructors, users' modules and tasks are tried, and each model is taken through two
made-up labels, so that one that cannot do the task is told of before a role starts.
"""

from __future__ import annotations

import numpy as np

from models.contained import bare
from models.learner import Learner, make_learner
from streams.errors import MillraceError, PipelineError
from streams.features import columns
from streams.frames import Column
from streams.model_kinds import KINDS
from streams.pipeline import Model, Pipeline, Task

_KEY = b"\0" * 32  # what is sealed with it is thrown away
_ROWS = 4


def check_models(pipeline: Pipeline) -> None:
    """Build and try every model that is not Millrace's own.

    Raises:
        PipelineError: with a line for each mistake in each model.
    """
    mistakes: list[str] = []
    for model in pipeline.models:
        if model.kind not in KINDS:
            mistakes += _mistakes(model, columns(pipeline), pipeline.task)
    if mistakes:
        raise PipelineError(mistakes)


def _mistakes(model: Model, columns: tuple[Column, ...], task: Task) -> list[str]:
    try:
        learner, other = (make_learner(model, columns, _KEY, task) for _ in range(2))
    except PipelineError as error:
        return error.mistakes
    try:
        _try_out(bare(learner), other, columns, task)
    except MillraceError as error:
        return [f"[models.{model.name}] kind: {error}"]
    return []


def _try_out(learner: Learner, other: Learner, columns: tuple[Column, ...], task: Task) -> None:
    """Learn a row of every class, answer, and hand the state over."""
    X = np.tile(np.arange(_ROWS, dtype=np.float64)[:, None], (1, len(columns)))
    learner.learn(X, np.arange(_ROWS, dtype=np.float64) % max(2, task.outputs))
    learner.predict(X)
    other.restore(learner.state())
