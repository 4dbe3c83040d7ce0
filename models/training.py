"""One training, from `job.json` to `result.json`: `python -m models.training DIRECTORY`, or the same under torchrun.

It reads the archive, splits the examples by time, trains on the first part, chooses by the second, and says how good
the model is on the third. Whatever happens, one line says it: in `result.json`, or in `failure.json` and on the
standard error output, and the exit code is that of the error. Killed, it is started again and goes on.

With several processes (processes.py) each reads the examples and trains its share; the first alone writes. On several
machines they share the directory.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import numpy as np

from models.checkpoints import Checkpoints
from models.contained import bare
from models.course import Course, Trained
from models.examples import Examples, Indexes
from models.figures import figures_of
from models.launcher import follow_launcher
from models.learner import Learner, make_learner
from models.processes import Processes, joined
from models.sealed import key_for
from models.soundness import is_sound
from models.time_split import Split, split_by_time
from models.training_data import read_examples
from models.training_job import (
    Failure,
    Figures,
    Job,
    Result,
    Training,
    forget_failure,
    read_failure,
    read_job,
    read_result,
    write_failure,
    write_progress,
    write_result,
)
from models.version_file import MAX_BYTES, digest_of
from models.weights_file import encode
from streams.archive import segments_of
from streams.errors import MillraceError, ModelError, TrainingError
from streams.faults import VARIABLE, arm, fail_point
from streams.state_folder import Place
from streams.state_url import directory_of, is_url

MODEL_FILE = "model.safetensors"
PREDICTED_ROWS = 65_536  # at a time
_LIBRARIES = {"torch": ("torch", "safetensors"), "sklearn": ("scikit-learn", "safetensors")}


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Train; gives the exit code."""
    if len(arguments) != 1:
        print("usage: python -m models.training DIRECTORY", file=sys.stderr)  # noqa: T201  # nobody else says it
        return 2
    directory = Path(arguments[0])
    arm(environment.get(VARIABLE))
    try:
        follow_launcher(environment)
        job = read_job(directory)
        if read_result(directory) is None:
            with _processes(job, environment) as processes:
                train(job, directory, processes)
    except Exception as error:  # noqa: BLE001  # whatever it is, who waits for this training is told
        return _failed(directory, error)
    return 0


def train(job: Job, directory: Path, processes: Processes | None = None) -> None:
    """Train what a job asks for, and write its result.

    Args:
        job: what is asked.
        directory: of the training; it may hold checkpoints of one that was killed.
        processes: those that share it.

    Raises:
        ArchiveError: a segment of the archive is damaged.
        ModelError: the model is not sound.
        TrainingError: there are too few examples, a loss is not finite, or the model is too large.
    """
    processes = processes or Processes()
    began = time.monotonic()
    if processes.rank == 0:
        forget_failure(directory)
    processes.wait()
    place = place_of(job.state)
    scratch = directory / "scratch"
    to_row = processes.agree(job.rows or _rows_now(place))
    examples = read_examples(place, job.columns, job.task, job.from_us, job.to_us, job.known_us, scratch, to_row=to_row)
    split, training_N, validation_N, test_N = split_by_time(examples)
    tell = (lambda progress: write_progress(directory, progress)) if processes.rank == 0 else (lambda _: None)
    if job.model.kind.startswith("sklearn:"):
        trained = _fitted(job, examples, training_N, place)
    else:
        from models.network_training import NetworkTraining  # torch is loaded only where a network is trained

        network = NetworkTraining(job, directory, processes, tell, time.monotonic() - began, to_row)
        trained = network.train(examples, training_N, validation_N, place)
    if processes.rank > 0:
        return
    learner = _learner_of(job, trained, place)
    if job.task.alert is not None:  # its threshold is one of the scores that came last
        last_N = training_N[-PREDICTED_ROWS:]
        learner.learn(np.ascontiguousarray(examples.X_BF[last_N]), examples.y_B[last_N])
    if not is_sound(learner, job.columns, job.task):
        raise ModelError(f"the model that was trained for {job.candidate} is not sound: it or an answer is not finite")
    judged = [_figures(job, learner, examples, rows) for rows in (validation_N, test_N)]
    told = _told(job, examples, split, judged, trained, processes, time.monotonic() - began)
    payload = encode(learner.state(), _metadata(job, trained))
    if len(payload) > MAX_BYTES:
        size = f"{len(payload)} bytes, {MAX_BYTES} allowed"
        raise TrainingError(f"the model that was trained for {job.candidate} is too large: {size}; make it smaller")
    fail_point("before_result")
    write_result(directory, payload, Result(MODEL_FILE, digest_of(payload), told))
    Checkpoints(directory, "").forget()


def _rows_now(place: Place) -> int:
    """Give the number behind that of the archive's last row, for a job that names none."""
    return max((segment.last for segment in segments_of(place)), default=0)


def _processes(job: Job, environment: Mapping[str, str]) -> AbstractContextManager[Processes]:
    return joined(environment) if job.model.kind.startswith("torch:") else contextlib.nullcontext(Processes())


def place_of(state: str) -> Place:
    """Give the folder that a job names by a path or a URL.

    Raises:
        UnavailableError: the object store cannot be reached.
    """
    if not is_url(state):
        return Path(state)
    directory = directory_of(state)
    if directory is not None:
        return directory
    from streams.object_folder import open_object_folder  # only those who need a store's client load it

    return open_object_folder(state)


def _fitted(job: Job, examples: Examples, training_N: Indexes, place: Place) -> Trained:
    """Fit an estimator of scikit-learn; it has no epochs, and nothing to go on with after a crash."""
    from models.sklearn_learner import SklearnLearner

    learner = SklearnLearner(job.model, job.columns, key_for(job.model.kind, place), job.task)
    learner.fit(np.ascontiguousarray(examples.X_BF[training_N]), examples.y_B[training_N])
    return Trained(learner.state(), Course(), {}, ())


def _learner_of(job: Job, trained: Trained, place: Place) -> Learner:
    """Give the trained model as it will be asked, but that it raises what it raises: then it is no version."""
    model = msgspec.structs.replace(job.model, params={**job.model.params, **trained.settings})
    key = key_for(job.model.kind, place)
    learner = bare(make_learner(model, job.columns, key, job.task))
    inner: Learner = getattr(learner, "inner", learner)  # what stands around it is not trained
    inner.restore(trained.state)
    return learner


def _figures(job: Job, learner: Learner, examples: Examples, rows_N: Indexes) -> Figures:
    """Judge a model's answers for some examples, asked for as they will be in the stream."""
    parts = (rows_N[start : start + PREDICTED_ROWS] for start in range(0, len(rows_N), PREDICTED_ROWS))
    scores = [learner.predict(np.ascontiguousarray(examples.X_BF[part])) for part in parts]
    return figures_of(job.task, examples.y_B[rows_N], np.concatenate(scores))


def _told(
    job: Job,
    examples: Examples,
    split: Split,
    judged: list[Figures],
    trained: Trained,
    processes: Processes,
    seconds: float,
) -> Training:
    course, (validation, test) = trained.course, judged
    return Training(
        rows=len(examples.y_B),
        from_us=int(examples.time_B.min()),
        to_us=int(examples.time_B.max()),
        known_us=int(examples.known_B.max()),
        split=split,
        validation=validation,
        test=test,
        seconds=max(seconds, course.seconds),
        peak_bytes=processes.peak_bytes(),
        device=processes.device_name(),
        epochs=len(course.curve),
        curve=tuple(course.curve),
        reason=job.reason,
        settings=trained.settings,
        libraries=_libraries(job.model.kind),
        notes=trained.notes,
    )


def _metadata(job: Job, trained: Trained) -> dict[str, str]:
    """Say what a model's file is of, to those who have nothing but the file; a later training checks its columns."""
    settings = {**job.model.params, **trained.settings}
    return {
        "candidate": job.candidate,
        "kind": job.model.kind,
        "lineage": str(job.lineage),
        "parent": job.parent,
        "params": msgspec.json.encode(settings).decode(),
        "columns": msgspec.json.encode(job.columns).decode(),
        "task": msgspec.json.encode(job.task).decode(),
    }


def _libraries(kind: str) -> dict[str, str]:
    names = ("millrace", "numpy", *_LIBRARIES[kind.partition(":")[0]])
    return {name: importlib.metadata.version(name) for name in names}


def _failed(directory: Path, error: Exception) -> int:
    """Say in one line what went wrong; what nobody has foreseen is told in full above it."""
    code = error.exit_code if isinstance(error, MillraceError) else 1
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, MillraceError):
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text}"
    with contextlib.suppress(MillraceError, OSError):
        if read_failure(directory) is None:  # else another process has said what went wrong first
            write_failure(directory, Failure(text, code, isinstance(error, TrainingError)))
    print(f"the training failed: {text}", file=sys.stderr)  # noqa: T201  # into the log of who started it
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
