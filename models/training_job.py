"""The files of one training: what is asked of it, how far it is, and what came of it.

A training is a directory. Whoever wants one writes `job.json` there and runs `python -m models.training DIRECTORY`;
while it runs `progress.json` says how far it is, and in the end there is either `result.json`, written after the model
file that it names, or `failure.json`. Each file is there whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from models.time_split import Split
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.state_folder import LocalFolder

JOB, PROGRESS, RESULT, FAILURE = "job.json", "progress.json", "result.json", "failure.json"
PRIVATE = 0o700  # of the directory: the state's URL in the job may hold a password

Figures = dict[str, float | None]
"""Figures of the task by name; None where nothing is known (JSON has no NaN)."""

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class Job(msgspec.Struct, frozen=True):
    """What one training is asked for.

    Attributes:
        candidate: whose model it makes.
        model: its declaration, with `retrain`.
        columns: of the matrices it will be given.
        task: what it answers.
        state: of the pipeline, a path or a URL.
        from_us, to_us: events from the first, before the second; None: from the first, to the last there is.
        known_us: labels that were known by then; None: all.
        rows: of the archive when it was asked for; later ones are not read. 0: all that there are when it begins.
        lineage: of the version that will be made.
        parent: the name of the version whose weights it begins with, empty: it begins anew.
        parent_blob: that version's file, below the state.
        reason: "every", "examples", "drift" or "command".
        seed: of everything that is drawn.
        created_us: wall clock, for people.
        is_window: whether `from_us` is the window's, which goes by the newest event there was.
    """

    candidate: str
    model: Model
    columns: tuple[Column, ...]
    task: Task
    state: str
    from_us: int | None = None
    to_us: int | None = None
    known_us: int | None = None
    rows: int = 0
    lineage: int = 1
    parent: str = ""
    parent_blob: str = ""
    reason: str = "command"
    seed: int = 0
    created_us: int = 0
    is_window: bool = False


class Progress(msgspec.Struct):
    """How far a training is.

    Attributes:
        epoch: that is under way, from 0.
        step, steps: taken, and to be taken if it is not stopped early.
        loss: of the training examples, on average over the epoch so far; None before the first.
        validation_loss: of the last epoch that ended.
        rows_per_s: of this epoch.
        seconds: since it began, over restarts.
        best_epoch: the one with the least validation loss, None before one has ended.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    rows_per_s: float = 0.0
    seconds: float = 0.0
    best_epoch: int | None = None


class Training(msgspec.Struct, frozen=True):
    """What is known of a training that has ended; a version's record carries it.

    Attributes:
        rows: examples it was given, of all three parts and those that the gaps left out.
        from_us, to_us, known_us: of these examples: the first and the last event, and the last label.
        split: the three parts by time.
        validation, test: the task's figures on these parts.
        seconds: wall clock, over restarts.
        peak_bytes: of memory, the GPU's if it ran there.
        device: what it ran on.
        epochs: how many were trained; the best of them is the model.
        curve: training and validation loss of each.
        reason: why it was started.
        settings: those that the search chose.
        libraries: the releases of what trained it.
        notes: what a person should know, such as that the time was over before it was done.
    """

    rows: int
    from_us: int
    to_us: int
    known_us: int
    split: Split | None = None
    validation: Figures = {}
    test: Figures = {}
    seconds: float = 0.0
    peak_bytes: int = 0
    device: str = "cpu"
    epochs: int = 0
    curve: tuple[tuple[float, float], ...] = ()
    reason: str = "command"
    settings: dict[str, Any] = {}
    libraries: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """A training that made a model: its file, beside the result, with its blake2b digest of 32 bytes in hex."""

    model_file: str
    digest: str
    training: Training


class Failure(msgspec.Struct, frozen=True):
    """A training that made none.

    Attributes:
        reason: one line that says why.
        exit_code: what its process ended with.
        is_certain: whether the same job would fail again.
    """

    reason: str
    exit_code: int
    is_certain: bool = False


def write_job(directory: Path, job: Job) -> None:
    """Make the directory of a training; nothing is started."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(PRIVATE)
    _write(directory, JOB, job)


def read_job(directory: Path) -> Job:
    """Read what is asked.

    Raises:
        ModelError: when there is no job, or none that can be read.
    """
    job = _read(directory, JOB, Job)
    if job is None:
        raise ModelError(f"{directory} is no training: it has no {JOB}; `millrace train` makes one")
    return job


def write_progress(directory: Path, progress: Progress) -> None:
    """Say how far it is. Not synced, for it is written a few times a second and worth nothing after a crash."""
    temporary = directory / f".{PROGRESS}"
    temporary.write_bytes(msgspec.json.encode(progress))
    temporary.replace(directory / PROGRESS)


def read_progress(directory: Path) -> Progress | None:
    """Read how far it is, None: it has not said so yet."""
    return _read(directory, PROGRESS, Progress)


def write_result(directory: Path, payload: bytes, result: Result) -> None:
    """Write the model's file, then the result that names it."""
    LocalFolder(directory).publish(result.model_file, payload)
    _write(directory, RESULT, result)


def read_result(directory: Path) -> Result | None:
    """Read what came of it, None: nothing yet. Raises ModelError when the result cannot be read."""
    return _read(directory, RESULT, Result)


def write_failure(directory: Path, failure: Failure) -> None:
    """Say why there is no model."""
    _write(directory, FAILURE, failure)


def read_failure(directory: Path) -> Failure | None:
    """Read why there is no model, None: it has not failed. Raises ModelError when that cannot be read."""
    return _read(directory, FAILURE, Failure)


def forget_failure(directory: Path) -> None:
    """Take back what an earlier try said; called by one that begins."""
    (directory / FAILURE).unlink(missing_ok=True)


def _write(directory: Path, name: str, value: msgspec.Struct) -> None:
    LocalFolder(directory).publish(name, msgspec.json.format(msgspec.json.encode(value)))


def _read(directory: Path, name: str, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.json.decode((directory / name).read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{directory / name} cannot be read: {error}; start the training anew") from error
