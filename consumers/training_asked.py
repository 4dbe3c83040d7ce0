"""What a training is asked for, and the command line that trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from consumers.training_queue import Ongoing
from models.training_job import Job
from models.version import Version
from streams.frames import BEGINNING, Column
from streams.pipeline import Model, Pipeline


def new_job(pipeline: Pipeline, model: Model, columns: tuple[Column, ...], parent: Version | None, **asked: Any) -> Job:
    """Say what a training is asked for; it begins with the weights of `parent`.

    Args:
        pipeline: the pipeline.
        model: the candidate's declaration.
        columns: of the examples.
        parent: an earlier version, None: it begins anew.
        asked: the fields of the job that are this training's own.
    """
    return Job(
        model.name,
        model,
        columns,
        pipeline.task,
        pipeline.state_url or str(pipeline.state.absolute()),
        parent=parent.name if parent is not None else "",
        parent_blob=parent.blob if parent is not None else "",
        seed=int(model.params.get("seed", 0)),
        **asked,
    )


def job_of(
    pipeline: Pipeline, model: Model, columns: tuple[Column, ...], now: Ongoing, parent: Version | None = None
) -> Job:
    """Say what a training that is due is asked for."""
    due, window_us = now.due, model.retrain.window_us if model.retrain is not None else None
    is_bounded = window_us is not None and due.time_us != BEGINNING
    return new_job(
        pipeline,
        model,
        columns,
        parent,
        from_us=due.time_us - (window_us or 0) if is_bounded else None,
        known_us=due.known_us,
        rows=now.rows,
        lineage=now.lineage,
        reason=due.reason,
        created_us=now.begun_us,
    )


def known_by(job: Job, version: Version) -> int:
    """Give the time up to which a training knew labels."""
    if job.known_us is not None:
        return job.known_us
    return version.created_us if version.training is None else version.training.known_us


def training_command(directory: Path, model: Model) -> list[str]:
    """Give the command line that trains in a directory: one process, or several that torchrun starts."""
    several = model.retrain.nproc if model.retrain is not None else 1
    module = ["-m", "models.training", str(directory)]
    if several > 1:
        module = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={several}", *module]
    return [sys.executable, *module]
