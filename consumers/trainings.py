"""Trainings: the processes that train, one at a time. Nobody waits for one: `tend` looks, does what is due, returns.

A training is a process of its own in a directory of its own, and dies with us. Killed together, both go on where they
were: the process from its checkpoint, we from what the queue remembers and the directory holds.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import msgspec

from consumers.supervisor import Running, ending, last_line
from consumers.training_asked import job_of, known_by, training_command
from consumers.training_place import TrainingPlace, read_trained
from consumers.training_queue import TrainingQueue
from models.registry import versions_of
from models.sealed import key_for
from models.training_job import RESULT, Job, read_failure, read_progress
from models.version import Version
from models.warm_start import parent_of
from streams.children import Child
from streams.errors import MillraceError, ModelError, UnavailableError
from streams.frames import Column
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.state_folder import Place

LOG = logging.getLogger("consumers.trainings")
GRACE_S = 5.0  # torchrun passes SIGTERM on to its workers, which end at once; then it is killed
POLL_S = 0.02
LOOK_EVERY_US = 1_000_000  # at the progress
NICENESS = 5  # of the process that trains: while the stream is at work it gets a quarter of a core beside it
OVERRUN = 2.0  # times its budget, and
OVERRUN_S = 600.0  # so long besides for reading the examples: then a training hangs and is ended

Spawn = Callable[[str, Sequence[str], Path, Sequence[int]], Running]
Finisher = Callable[[Callable[[], Version]], Future[Version]]  # runs it, maybe in another thread


def spawn_training(name: str, command: Sequence[str], log_path: Path, kept_fds: Sequence[int]) -> Running:
    """Start a process of low priority that dies with us; its output is appended to the log."""
    child = Child(name, ["nice", "-n", str(NICENESS), *command], log_path=log_path, kept_fds=kept_fds)
    child.start()
    return child


def finish_at_once(finish: Callable[[], Version]) -> Future[Version]:
    """Read and write a version in this thread."""
    done: Future[Version] = Future()
    try:
        done.set_result(finish())
    except MillraceError as error:
        done.set_exception(error)
    return done


class Made(NamedTuple):
    """A training that made a version; it is written, and not announced yet."""

    version: Version
    known_us: int
    directory: Path


class FailedTraining(msgspec.Struct, frozen=True, tag="training failed", tag_field="decision"):
    """A record of P.decisions: a training made no version, and the candidate keeps the one it has.

    `reason` is why it was started, `rows` how many of the archive it was for, `failures` how often in a row. What is
    certain to fail again is not tried from the same rows, so `retry_in_s` is then when others may be.
    """

    candidate: str
    lineage: int
    reason: str
    rows: int
    error: str
    failures: int
    retry_in_s: float
    time_us: int


class Trainings:
    """Starts what the queue gives, watches it, and reads what came of it.

    Args:
        pipeline: the pipeline.
        columns: of the examples.
        state: of the pipeline, where versions go.
        metrics: told how trainings go.
        spawn: starts a process.
        finisher: where a result is read and written: that takes a second, and over a network longer.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        columns: tuple[Column, ...],
        state: Place,
        metrics: RoleMetrics,
        spawn: Spawn = spawn_training,
        finisher: Finisher = finish_at_once,
    ) -> None:
        self._pipeline, self._columns, self._state, self._metrics = pipeline, columns, state, metrics
        self._spawn, self._finisher = spawn, finisher
        self._models = {model.name: model for model in pipeline.models if model.retrain is not None}
        self._place = TrainingPlace(pipeline.state)
        self._running: _Run | None = None
        self._lock: int | None = None
        self._is_lock_missed = False

    def tend(self, queue: TrainingQueue, archived: int, now_us: int) -> Made | FailedTraining | None:
        """Look after the training under way, or begin the next one. Called about every 50 ms.

        Raises:
            UnavailableError: an object store does not answer; called again, it tries again.
        """
        if queue.is_overtaken:
            self.stop()
            queue.finish()
        try:
            if self._running is not None:
                return self._look(self._running, queue, now_us)
            self._begin(queue, archived, now_us)
        except (ModelError, OSError) as error:
            return self._failed(queue, str(error), now_us)
        return None

    def announced(self, made: Made, queue: TrainingQueue) -> None:
        """Note that a version is known to everyone."""
        training = made.version.training
        metrics = self._metrics.of(made.version.candidate)
        metrics.trained("made", 0.0 if training is None else training.seconds)
        LOG.info("%s: a version was trained and announced", made.version.name)
        self._place.announced(made.directory)
        queue.finish()
        self._let_go()

    def stop(self) -> None:
        """End the process that trains, if there is one; it may be started again where it was."""
        if self._running is not None and self._running.process.exit_code() is None:
            _end(self._running.process)
        self._let_go()

    def _begin(self, queue: TrainingQueue, archived: int, now_us: int) -> None:
        """Start what is next, or what was under way when we were ended."""
        before, chosen = queue.ongoing, queue.next(now_us, archived)
        if (before is None and chosen is None) or not self._has_lock():
            return
        if before is None and chosen is not None:
            candidate, due = chosen
            lineage = 1 + max([queue.lineage(candidate), *(v.lineage for v in versions_of(self._state, candidate))])
            before = queue.begin(candidate, due, archived, lineage, now_us)
        if before is None:
            return
        model = self._models[before.candidate]
        parent = parent_of(self._state, model, before.lineage)
        directory, job = self._place.prepare(job_of(self._pipeline, model, self._columns, before, parent))
        queue.ongoing = msgspec.structs.replace(before, lineage=job.lineage)
        self._running = self._start(directory, job)
        LOG.info("%s: training lineage %d (%s) from %d rows", job.candidate, job.lineage, job.reason, job.rows)

    def _start(self, directory: Path, job: Job) -> _Run:
        log = self._pipeline.state / "run" / f"train.{job.candidate}.log"
        command = training_command(directory, job.model)
        held = () if self._lock is None else (self._lock,)
        process = self._spawn(f"training of {job.candidate}", command, log, held)
        self._metrics.of(job.candidate).training(is_running=True)
        return _Run(job, directory, process, log, time.monotonic())

    def _look(self, run: _Run, queue: TrainingQueue, now_us: int) -> Made | FailedTraining | None:
        if run.result is not None:
            return self._taken(run, run.result, queue, now_us)
        code = run.process.exit_code()
        if code is None:
            self._watch(run, now_us)
        elif code == 0:
            key, kept = key_for(run.job.model.kind, self._state), self._pipeline.run.keep_versions
            run.result = self._finisher(lambda: read_trained(run.directory, run.job, self._state, key, kept))
        else:
            failure = read_failure(run.directory)
            told = failure.reason if failure is not None else f"it {ending(code)}: {last_line(run.log) or 'no message'}"
            is_certain = failure is not None and failure.is_certain and not run.hung
            return self._failed(queue, run.hung or told, now_us, is_certain=is_certain)
        return None

    def _taken(
        self, run: _Run, result: Future[Version], queue: TrainingQueue, now_us: int
    ) -> Made | FailedTraining | None:
        if not result.done():
            return None
        try:
            return Made(result.result(), known_by(run.job, result.result()), run.directory)
        except UnavailableError as error:  # says nothing of the result: it is read again
            return self._failed(queue, str(error), now_us, is_kept=True)

    def _watch(self, run: _Run, now_us: int) -> None:
        """Tell how far it is, and end one that hangs."""
        if now_us < run.next_look_us:
            return
        run.next_look_us = now_us + LOOK_EVERY_US
        progress = read_progress(run.directory)
        if progress is not None:
            self._metrics.of(run.job.candidate).training_loss(progress.loss, progress.validation_loss)
        budget_s = run.job.model.retrain.budget_s if run.job.model.retrain is not None else 0.0
        if time.monotonic() - run.began_s > OVERRUN * budget_s + OVERRUN_S:
            run.hung = f"it was ended, for it took longer than {OVERRUN:g} times its budget of {budget_s:g} s"
            _end(run.process)

    def _failed(
        self, queue: TrainingQueue, error: str, now_us: int, *, is_kept: bool = False, is_certain: bool = False
    ) -> FailedTraining | None:
        """Note why there is no version. A result that nobody can use is removed, or the next try would find it."""
        run, now = self._running, queue.ongoing
        self.stop()  # what cannot be watched any more would keep the lock, and train beside the next one
        if now is None:
            return None
        if run is not None and not is_kept and (run.directory / RESULT).exists():
            shutil.rmtree(run.directory, ignore_errors=True)
        retry_s, line = queue.fail(now_us, is_certain=is_certain), " ".join(error.split())
        failures = queue.trials[now.candidate].failures
        self._metrics.of(now.candidate).trained("failed", 0.0)
        again = "once there are other examples" if is_certain else f"in {retry_s:.0f} s"
        LOG.error("%s: a training failed and is tried again %s: %s", now.candidate, again, line)
        return FailedTraining(now.candidate, now.lineage, now.due.reason, now.rows, line, failures, retry_s, now_us)

    def _has_lock(self) -> bool:
        if self._lock is None:
            self._lock = self._place.lock()
            if self._lock is None and not self._is_lock_missed:
                LOG.warning("a training waits for another one on this machine")
            self._is_lock_missed = self._lock is None
        return self._lock is not None

    def _let_go(self) -> None:
        if self._running is not None:
            self._metrics.of(self._running.job.candidate).training(is_running=False)
        if self._lock is not None:
            os.close(self._lock)
        self._running = self._lock = None


def _end(process: Running) -> None:
    """End a process, politely first: it may have others to end, that are not in its group."""
    process.terminate()
    deadline = time.monotonic() + GRACE_S
    while process.exit_code() is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
    process.kill()


class _Run:
    """A training under way."""

    def __init__(self, job: Job, directory: Path, process: Running, log: Path, began_s: float) -> None:
        self.job, self.directory, self.process, self.log, self.began_s = job, directory, process, log, began_s
        self.result: Future[Version] | None = None  # its process has ended, and this is read
        self.next_look_us = 0
        self.hung = ""  # why it was ended by us
