"""Training in the foreground: what `millrace train` does. The process that trains is the one that the role starts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from consumers.process import KafkaControlLog
from consumers.supervisor import ending
from consumers.training_asked import known_by, new_job, training_command
from consumers.training_place import TrainingPlace, read_trained
from consumers.version_rows import announce
from models.registry import versions_of
from models.sealed import key_for
from models.training_job import Job, read_failure, read_progress
from models.training_job import Progress as Reached
from models.version import Version
from models.warm_start import parent_of
from serving.brokers import ensure_topics
from serving.table import console, duration, number
from serving.training_report import show_training
from streams import features, frames
from streams.advice import NOTHING_ARCHIVED
from streams.archive import segments_of
from streams.children import Child
from streams.control import Control
from streams.errors import MillraceError, ModelError, PipelineError, UnavailableError
from streams.kafka import KafkaOutbox
from streams.pipeline import Model, Pipeline
from streams.state_folder import state_of
from streams.toml_table import mistake_line

LOOK_EVERY_S = 0.2


class Wanted(NamedTuple):
    """What the command line asks for; None is as the file has it, or all."""

    candidate: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    nproc: int | None = None
    minutes: float | None = None


def run_trainings(pipeline: Pipeline, wanted: Wanted) -> None:
    """Train candidates one after the other, and announce each version.

    Raises:
        PipelineError: there is no such candidate, or none is trained in batches.
        UnavailableError: the archive is empty, another training runs on this machine, or Kafka is away.
        MillraceError: the training failed; it has the exit code of the reason.
    """
    models = chosen_models(pipeline, wanted)
    if not segments_of(state_of(pipeline)):
        raise UnavailableError(NOTHING_ARCHIVED)
    out, place = console(), TrainingPlace(pipeline.state)
    with _locked(place, pipeline.state) as lock:
        for model in models:
            directory, job = _begun(pipeline, model, wanted, place, out)
            _train(pipeline, job, directory, lock, out)
            version = _read(pipeline, job, directory, place)
            show_training(version, out)
            _announce(pipeline, version, job)
            place.announced(directory)
            out.print(Text(f"{version.name} is announced; a running pipeline takes it up", style="bold"))


def _begun(pipeline: Pipeline, model: Model, wanted: Wanted, place: TrainingPlace, out: Console) -> tuple[Path, Job]:
    """Give the directory and the job of the training to make: one that was broken off, or else a new one."""
    versions = versions_of(state_of(pipeline), model.name)
    newest = versions[-1] if versions else None
    asked = _job(pipeline, model, wanted, newest)
    found = place.broken_off(asked, newest)
    directory, job = found or (place.begin(asked), asked)
    doing = "training" if found is None else "going on with"
    out.print(Text(f"{model.name}: {doing} version {job.lineage} from {number(job.rows)} archived rows"))
    return directory, job


def _read(pipeline: Pipeline, job: Job, directory: Path, place: TrainingPlace) -> Version:
    """Read what came of a training; what nobody can use is removed."""
    state = state_of(pipeline)
    try:
        return read_trained(directory, job, state, key_for(job.model.kind, state), pipeline.run.keep_versions)
    except ModelError:
        place.forget(directory)
        raise


def chosen_models(pipeline: Pipeline, wanted: Wanted) -> list[Model]:
    """Give the candidates to train, with the command line's settings.

    Raises:
        PipelineError: there is none.
    """
    batch = [model for model in pipeline.models if model.retrain is not None]
    names = [model.name for model in batch]
    if not batch:
        line = "no candidate is trained in batches; those of kind torch:… and sklearn:… are, others learn by themselves"
        raise PipelineError([f"{pipeline.name}: {line}"])
    if wanted.candidate is not None and wanted.candidate not in names:
        text = f"--candidate {wanted.candidate}"
        raise PipelineError(
            [mistake_line(text, "is not trained in batches", ", ".join(names), wanted.candidate, names)]
        )
    return [_adjusted(model, wanted) for model in batch if wanted.candidate in (None, model.name)]


def _adjusted(model: Model, wanted: Wanted) -> Model:
    """Give a candidate with the processes and the budget that the command line names."""
    asked = {"nproc": wanted.nproc, "budget_s": None if wanted.minutes is None else 60.0 * wanted.minutes}
    changes = {name: value for name, value in asked.items() if value is not None}
    if "nproc" in changes and not model.kind.startswith("torch:"):
        raise PipelineError([f"--nproc {wanted.nproc}: {model.name} is of kind {model.kind}; allowed: torch:… kinds"])
    assert model.retrain is not None  # noqa: S101 - as it is chosen
    return msgspec.structs.replace(model, retrain=msgspec.structs.replace(model.retrain, **changes))


def _job(pipeline: Pipeline, model: Model, wanted: Wanted, newest: Version | None) -> Job:
    """Say what is asked for, of all that is archived now."""
    state = state_of(pipeline)
    lineage = 1 + (newest.lineage if newest is not None else 0)
    parent = parent_of(state, model, lineage)
    window_us = model.retrain.window_us if model.retrain is not None else None
    segments = segments_of(state)
    newest_us = max(segment.to_us for segment in segments)
    is_window = wanted.from_us is None and window_us is not None
    return new_job(
        pipeline,
        model,
        features.columns(pipeline),
        parent,
        from_us=newest_us - (window_us or 0) if is_window else wanted.from_us,
        to_us=wanted.to_us,
        rows=max(segment.last for segment in segments),
        lineage=lineage,
        reason="command",
        created_us=int(time.time() * 1e6),
        is_window=is_window,
    )


@contextmanager
def _locked(place: TrainingPlace, state: Path) -> Iterator[int]:
    held = place.lock()
    if held is None:
        raise UnavailableError(f"another training runs on this machine, see {state}/train; wait until it has ended")
    try:
        yield held
    finally:
        os.close(held)


def _train(pipeline: Pipeline, job: Job, directory: Path, lock: int, out: Console) -> None:
    """Run the process that trains and show how far it is; Ctrl-C ends it, and the next call goes on where it was."""
    log = pipeline.state / "run" / f"train.{job.candidate}.log"
    child = Child(
        f"the training of {job.candidate}", training_command(directory, job.model), log_path=log, kept_fds=[lock]
    )
    child.start()
    try:
        with _bar(out) as bar:
            task = bar.add_task(job.candidate, total=None)
            while child.wait(LOOK_EVERY_S) is None:
                _show(bar, task, job, read_progress(directory))
    finally:
        child.stop()
    code = child.exit_code() or 0
    if code:
        failure = read_failure(directory)
        told = failure.reason if failure is not None else f"it {ending(code)}; {log} ends: {child.tail()}"
        error = MillraceError(f"{job.candidate} could not be trained: {told}")
        error.exit_code = code if code > 0 else 1
        raise error


def _bar(out: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    return Progress(*columns, TimeRemainingColumn(), console=out, transient=True, disable=not out.is_terminal)


def _show(bar: Progress, task: TaskID, job: Job, reached: Reached | None) -> None:
    if reached is None or not reached.steps:
        return
    losses = [
        f"{name} {loss:.4f}"
        for name, loss in (("loss", reached.loss), ("validation", reached.validation_loss))
        if loss is not None
    ]
    told = ", ".join(
        [f"epoch {reached.epoch}", *losses, f"{number(reached.rows_per_s)} rows/s", duration(reached.seconds)]
    )
    bar.update(task, description=f"{job.candidate}: {told}", total=reached.steps, completed=reached.step)


def _announce(pipeline: Pipeline, version: Version, job: Job) -> None:
    """Write the version's row; the schema of its frame is known before."""
    schema = frames.examples_schema(features.columns(pipeline))
    try:
        ensure_topics(pipeline)
        log, outbox = KafkaControlLog(pipeline), KafkaOutbox(pipeline.kafka)
        try:
            Control(log).announce(schema)
            announce(outbox, pipeline.name, schema, version, known_by(job, version))
        finally:
            outbox.close()
            log.close()
    except UnavailableError as error:
        line = "it is written but not announced; once Kafka is there the same command announces it without training"
        raise UnavailableError(f"{version.name}: {line}: {error}") from None
