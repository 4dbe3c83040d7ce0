"""Versions: a candidate's model as an immutable, digested file, and the record on P.control that names it.

A version's order is (lineage, examples seen); readers take only larger ones. The blob is durable before its record
may be published, so a record always names a whole file; its name carries the digest, so no version ever overwrites
another. A reader checks digest, shapes and finiteness before it serves.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import PurePosixPath

import msgspec
import numpy as np

from models.learner import Learner, State, make_learner
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.state_folder import Folder, Place, folder_of

FORMAT = 2
KEPT_VERSIONS = 10  # blobs per candidate; a reader that is further behind takes the newest instead
MAX_BYTES = 256 * 2**20  # as the default of `max_model_mib`
_ARRAY = "state."
_BLOB_NAME = re.compile(r"(\d{6})-(\d{12})-[0-9a-f]{12}\.npz")


class Version(msgspec.Struct, frozen=True):
    """The record of a version, published as JSON under the key `version/<candidate>`.

    `blob` is the file's path below the state; `columns` are those of the matrices the model was made for.
    """

    candidate: str
    lineage: int
    examples: int
    kind: str
    params: dict[str, bool | int | float | str]
    columns: tuple[Column, ...]
    blob: str
    digest: str
    created_us: int
    format: int = FORMAT
    task: Task = Task()

    @property
    def order(self) -> tuple[int, int]:
        """Give what decides which of two versions is newer: the larger."""
        return self.lineage, self.examples


def write_version(
    state: Place,
    model: Model,
    columns: tuple[Column, ...],
    learner: Learner,
    order: tuple[int, int],
    created_us: int,
    max_bytes: int = MAX_BYTES,
    task: Task | None = None,
) -> Version | None:
    """Write a model's state as a version; the caller publishes the record it gets.

    Args:
        state: of the pipeline.
        model: the candidate's declaration.
        columns: of the matrices the learner was made for.
        learner: as it is now.
        order: (lineage, examples seen).
        created_us: wall clock, for people and for the age of a version.
        max_bytes: a larger blob is not written.
        task: what it answers.

    Returns:
        None when the model must not be published: not finite, an answer that is no probability, or over its cap.

    Raises:
        UnavailableError: an object store does not take it.
    """
    task = task or Task()
    if not is_sound(learner, columns, task):
        return None
    payload = _encode(learner.state())
    if len(payload) > max_bytes:
        return None
    digest = hashlib.blake2b(payload, digest_size=32).hexdigest()
    folder = folder_of(state) / "models" / model.name
    name = f"{order[0]:06d}-{order[1]:012d}-{digest[:12]}.npz"
    folder.publish(name, payload)
    _forget_old(folder, name)
    blob = f"models/{model.name}/{name}"
    return Version(model.name, *order, model.kind, model.params, columns, blob, digest, created_us, task=task)


def read_version(state: Place, version: Version, key: bytes | None = None, max_bytes: int = MAX_BYTES) -> Learner:
    """Read a version into a learner that is ready to predict.

    Args:
        state: of the pipeline.
        version: its record.
        key: opens River models.
        max_bytes: a larger blob is refused unread.

    Raises:
        ModelError: when the blob is absent, too large, not the one recorded, or not a sound model.
        UnavailableError: an object store does not answer; the next try may have it.
    """
    if version.format != FORMAT:
        needed = f"format {version.format} found, {FORMAT} needed"
        raise ModelError(f"version {_name(version)} was written by another release: {needed}; run `millrace rebuild`")
    payload = _read_blob(folder_of(state), version, max_bytes)
    learner = make_learner(Model(version.candidate, version.kind, version.params), version.columns, key, version.task)
    learner.restore(_decode(payload, version))
    if not is_sound(learner, version.columns, version.task):
        raise ModelError(f"version {_name(version)} is not a sound model: a weight or an answer is not finite")
    return learner


def encode_record(version: Version) -> bytes:
    """Give a record as P.control carries it."""
    return msgspec.json.encode(version)


def decode_record(value: bytes) -> Version:
    """Read a record from P.control.

    Raises:
        ModelError: when it is not one.
    """
    try:
        return msgspec.json.decode(value, type=Version)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"a version record cannot be read: {error}; {len(value)} bytes found") from error


def is_sound(learner: Learner, columns: tuple[Column, ...], task: Task) -> bool:
    """Say whether a model is finite, and answers two canaries (all missing, all zero) as its task wants it."""
    if not learner.is_finite():
        return False
    canaries = np.vstack([np.full(len(columns), np.nan), np.zeros(len(columns))])
    score_BS = learner.predict(canaries).reshape(len(canaries), task.outputs)
    if task.kind in ("regression", "clustering"):
        is_number = task.kind == "regression" or (score_BS >= 0.0).all()
        return bool(np.isfinite(score_BS).all() and is_number)
    score_BS = score_BS[:, :1] if task.kind == "anomaly" else score_BS  # a threshold may lie beyond
    is_whole = task.is_yes_or_no or np.allclose(score_BS.sum(axis=1), 1.0, rtol=0, atol=1e-6)
    return bool(is_whole and ((score_BS >= 0.0) & (score_BS <= 1.0)).all())


def _name(version: Version) -> str:
    return f"{version.candidate} {version.lineage}-{version.examples}"


def _encode(state: State) -> bytes:
    buffer = io.BytesIO()
    arrays = {_ARRAY + name: array for name, array in state.items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _decode(payload: bytes, version: Version) -> State:
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as found:
            return {name.removeprefix(_ARRAY): found[name] for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"version {_name(version)} cannot be read: {error}") from error


def _read_blob(state: Folder, version: Version, max_bytes: int) -> bytes:
    name = PurePosixPath(version.blob).name
    if version.blob != f"models/{version.candidate}/{name}" or not _BLOB_NAME.fullmatch(name):
        raise ModelError(f"version {_name(version)} names a file that is no version: {version.blob!r} found")
    folder = state / "models" / version.candidate
    try:
        payload = folder.read(name, max_bytes)
    except OverflowError as size:
        found = f"{size} bytes found, {max_bytes} allowed"
        raise ModelError(f"version {_name(version)} is too large: {found}") from None
    except OSError as error:
        raise ModelError(f"version {_name(version)} cannot be opened: {error}; check that hosts share it") from error
    digest = hashlib.blake2b(payload, digest_size=32).hexdigest()
    if digest != version.digest:
        found = f"digest {digest[:12]} found, {version.digest[:12]} recorded"
        raise ModelError(f"version {_name(version)} is not the file that was published: {found}; {folder}/{name}")
    return payload


def _forget_old(folder: Folder, newest: str) -> None:
    """Keep the ten newest up to the one just written; larger ones are another writer's and stay."""
    names = [name for name in folder.names() if _BLOB_NAME.fullmatch(name)]
    for name in [name for name in names if name <= newest][:-KEPT_VERSIONS]:
        folder.remove(name)
