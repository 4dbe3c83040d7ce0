"""Where trainings lie: `<local state>/train/<candidate>/<lineage>`, and the lock that lets one run at a time.

A training that was begun and not announced is found again by what it was asked for, so that whoever died in between
goes on where it was instead of beginning anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path, PurePath

import msgspec

from models.registry import KEPT_VERSIONS, write_trained
from models.training_job import Job, read_failure, read_job, read_result, write_job
from models.version import Version
from streams.errors import ModelError, UnavailableError
from streams.faults import fail_point
from streams.state_folder import Place

FOLDER, LOCK = "train", "lock"
ANNOUNCED = "announced"  # a file in the directory of a training whose version everyone knows
KEPT = 2  # directories of a candidate: the newest, and the one before for comparing


class TrainingPlace:
    """The trainings of a pipeline on this machine.

    Args:
        local: the directory of the pipeline's state on this machine.

    Example:
        >>> import tempfile
        >>> place = TrainingPlace(Path(tempfile.mkdtemp()))
        >>> held = place.lock()
        >>> held is not None, place.lock() is None
        (True, True)
    """

    def __init__(self, local: Path) -> None:
        self._directory = local / FOLDER

    def lock(self) -> int | None:
        """Take the lock; gives the open file that holds it until it is closed here and in children; None: taken.

        Raises:
            UnavailableError: the directory cannot be written.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            held = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UnavailableError(f"cannot write {self._directory}: {error.strerror or error}") from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return None
        return held

    def broken_off(self, job: Job, newest: Version | None) -> tuple[Path, Job] | None:
        """Find the training that a person has begun by asking for the same when the archive had less; with its own job.

        It has not ended, or its version is not announced. One that has failed is tried again from the same rows only,
        for others may let it succeed; one that a later version has overtaken is not gone on with.

        Args:
            job: what is asked for now.
            newest: version of the candidate, its own if it is written; None: there is none.
        """
        for directory in self._directories(job.candidate)[-1:]:
            found = _job_in(directory)
            if found is None or (directory / ANNOUNCED).exists() or not _is_open(directory, found, newest):
                continue
            if found.rows != job.rows and _has_failed(directory):
                continue
            from_us = found.from_us if found.is_window and job.is_window else job.from_us
            if _is_same(found, msgspec.structs.replace(job, rows=found.rows, from_us=from_us)):
                return directory, found
        return None

    def prepare(self, job: Job) -> tuple[Path, Job]:
        """Find the directory of the same training that was begun before, or make one; gives it with its own job.

        Raises:
            OSError: the directory cannot be written.
        """
        for directory in reversed(self._directories(job.candidate)):
            found = _job_in(directory)
            is_open = found is not None and (not (directory / ANNOUNCED).exists() or found.lineage == job.lineage)
            if found is not None and is_open and _is_same(found, job):
                return directory, found  # announced, but whoever asks does not know it: it is announced once more
        return self.begin(job), job

    def begin(self, job: Job) -> Path:
        """Make the directory of a training that begins anew.

        Raises:
            OSError: it cannot be written.
        """
        directory = self._directory / job.candidate / f"{job.lineage:06d}"
        shutil.rmtree(directory, ignore_errors=True)
        write_job(directory, job)
        return directory

    def forget(self, directory: Path) -> None:
        """Remove a training that came to nothing of use, or the next try would find it."""
        shutil.rmtree(directory, ignore_errors=True)

    def announced(self, directory: Path) -> None:
        """Note that everyone knows the version; older trainings of the candidate but one are removed."""
        (directory / ANNOUNCED).touch()
        for old in self._directories(directory.parent.name)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _directories(self, candidate: str) -> list[Path]:
        """Give the directories of a candidate's trainings by lineage."""
        folder = self._directory / candidate
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(path for path in found if path.name.isdecimal())


def read_trained(directory: Path, job: Job, state: Place, key: bytes | None, kept: int = KEPT_VERSIONS) -> Version:
    """Write what a training has made as a version, once it is known to be sound.

    Raises:
        ModelError: there is no result, or it is not whole, or no sound model.
        UnavailableError: an object store does not take it.
    """
    result = read_result(directory)
    if result is None:
        raise ModelError(f"{directory} has no result, though its training has ended; start it anew")
    if PurePath(result.model_file).name != result.model_file:
        raise ModelError(f"{directory}: the result names a file elsewhere: {result.model_file!r} found")
    try:
        payload = (directory / result.model_file).read_bytes()
    except OSError as error:
        raise ModelError(f"{directory / result.model_file} cannot be read: {error.strerror or error}") from None
    version = write_trained(state, job, result, payload, key, kept=kept)
    fail_point("after_trained_file")
    return version


def _job_in(directory: Path) -> Job | None:
    try:
        return read_job(directory)
    except ModelError:
        return None


def _is_open(directory: Path, job: Job, newest: Version | None) -> bool:
    """Whether a training may still make the newest version; that may be its own already."""
    if newest is None or newest.lineage < job.lineage:
        return True
    try:
        result = read_result(directory)
    except ModelError:
        return False
    return result is not None and newest.digest == result.digest


def _has_failed(directory: Path) -> bool:
    try:
        return read_failure(directory) is not None
    except ModelError:
        return True


def _is_same(found: Job, job: Job) -> bool:
    """Whether two jobs ask for the same but for the lineage, the clock, and what it begins with.

    That is said once: when the training is found again, there may be newer versions, even its own.
    """
    alike = msgspec.structs.replace(
        job,
        lineage=found.lineage,
        created_us=found.created_us,
        parent=found.parent,
        parent_blob=found.parent_blob,
    )
    return msgspec.json.encode(alike) == msgspec.json.encode(found)
