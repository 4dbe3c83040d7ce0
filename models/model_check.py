"""Building the models of a pipeline file to see that they can be.

For `millrace check`: constructors of every kind are called with the pipeline's columns and task. River's models and
users' own are taken through two made-up labels, too, so that one that cannot do the task is told of before a role
starts. In a file with other mistakes only River's are built: what they take hangs on nothing else but the task.
"""

from __future__ import annotations

from collections.abc import Sequence

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
FOREIGN = ("river:", "sklearn:")  # their constructors know what they take


def check_models(pipeline: Pipeline) -> None:
    """Build every model, and try those that are not Millrace's own.

    Raises:
        PipelineError: with a line for each mistake in each model.
    """
    if mistakes := find_mistakes(pipeline, ()):
        raise PipelineError(mistakes)


def find_mistakes(pipeline: Pipeline, known: Sequence[str]) -> list[str]:
    """Give a line for each mistake in each model, but for those that `known` mistakes of the file may have caused."""
    if not known:
        return [line for model in pipeline.models for line in _mistakes(model, columns(pipeline), pipeline.task)]
    if pipeline.task.is_unsupervised or any(line.startswith("[task]") for line in known):
        return []  # a detector may name a column
    sound = [one for one in pipeline.models if not any(line.startswith(f"[models.{one.name}]") for line in known)]
    return [line for model in sound if model.kind.startswith(FOREIGN) for line in _unbuilt(model, pipeline.task)]


def _unbuilt(model: Model, task: Task) -> list[str]:
    """Say what keeps a model from being built, whatever its columns are."""
    try:
        make_learner(model, (), _KEY, task)
    except PipelineError as error:
        return error.mistakes
    return []


def _mistakes(model: Model, columns: tuple[Column, ...], task: Task) -> list[str]:
    try:
        learner = make_learner(model, columns, _KEY, task)
        if model.kind in KINDS:
            return []
        other = make_learner(model, columns, _KEY, task)
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
