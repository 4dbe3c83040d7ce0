"""Versions: a candidate's model as an immutable, digested file, and the record on P.control that names it.

A version's order is (lineage, examples seen); readers take only larger ones. The blob is durable before its record
may be published, so a record always names a whole file; its name carries the digest, so no version ever overwrites
another. A reader checks digest, shapes and finiteness before it serves. What was trained in a batch is a version like
any; its file is the training's own, safetensors of a network.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from pathlib import PurePosixPath

import msgspec

from models.learner import Learner, State, make_learner
from models.soundness import is_sound
from models.training_job import Job, Result
from models.version import FORMAT, About, Version, decode_record, encode_record
from models.version_file import MAX_BYTES, decode_weights, digest_of, encode_weights
from streams.advice import rebuild_of
from streams.errors import ModelError
from streams.frames import Column
from streams.model_kinds import is_own
from streams.pipeline import Model, Task
from streams.state_folder import Folder, Place, folder_of

KEPT_VERSIONS = 10  # blobs per candidate; a reader that is further behind takes the newest instead
_BLOB_NAME = re.compile(r"(\d{6})-(\d{12})-[0-9a-f]{12}(\.npz|\.safetensors)")
_RECORD = ".json"  # after a blob's name: the record of its version
_KEPT = ".kept"  # after a blob's name: it is never removed


def write_version(
    state: Place,
    model: Model,
    columns: tuple[Column, ...],
    learner: Learner,
    order: tuple[int, int],
    created_us: int,
    max_bytes: int = MAX_BYTES,
    task: Task | None = None,
    about: About | None = None,
    kept: int = KEPT_VERSIONS,
) -> Version | None:
    """Write a model's state as a version, and its record beside it; the caller publishes the record it gets.

    Args:
        state: of the pipeline.
        model: the candidate's declaration.
        columns: of the matrices the learner was made for.
        learner: as it is now.
        order: (lineage, examples seen).
        created_us: wall clock, for people and for the age of a version.
        max_bytes: a larger blob is not written.
        task: what it answers.
        about: what the candidate says of itself.
        kept: how many versions to keep, this one among them; older ones are removed.

    Returns:
        None when the model must not be published: not finite, an answer that is no probability, or over its cap.

    Raises:
        UnavailableError: an object store does not take it.
    """
    task = task or Task()
    if not is_sound(learner, columns, task):
        return None
    payload = encode_weights(learner.state())
    if len(payload) > max_bytes:
        return None
    digest, told = digest_of(payload), about or About()
    version = Version(
        model.name,
        *order,
        model.kind,
        model.params,
        columns,
        f"models/{model.name}/{_blob_name(order, digest, '.npz')}",
        digest,
        created_us,
        task=task,
        parent=told.parent,
        figures=told.figures,
        rolling=told.rolling,
        costs=told.costs,
        libraries=_libraries(model.kind),
    )
    _publish(state, version, payload, kept)
    return version


def write_trained(
    state: Place,
    job: Job,
    result: Result,
    payload: bytes,
    key: bytes | None = None,
    max_bytes: int = MAX_BYTES,
    kept: int = KEPT_VERSIONS,
) -> Version:
    """Write what a training has made as a version, once it is read as everyone will read it; the caller announces it.

    The same result gives the same file and the same record, so that it may be written again after a crash.

    Args:
        state: of the pipeline.
        job: what was asked for.
        result: what came of it.
        payload: the content of the model's file.
        key: opens models that are sealed.
        max_bytes: a larger file is refused.
        kept: how many trained versions to keep, this one among them.

    Raises:
        ModelError: the file is not the one of the result, too large, or not a sound model.
        UnavailableError: an object store does not take it.
    """
    digest, order = digest_of(payload), (job.lineage, result.training.rows)
    name = f"{job.candidate}@{order[0]}.{order[1]}"
    if digest != result.digest:
        found = f"digest {digest[:12]} found, {result.digest[:12]} recorded, {len(payload)} bytes"
        raise ModelError(f"the model that was trained for {name} is not the file of its result: {found}")
    if len(payload) > max_bytes:
        raise ModelError(
            f"the model that was trained for {name} is too large: {len(payload)} bytes, {max_bytes} allowed"
        )
    before = [one.number for one in versions_of(state, job.candidate) if one.order < order]
    blob = _blob_name(order, digest, PurePosixPath(result.model_file).suffix)
    version = Version(
        job.candidate,
        *order,
        job.model.kind,
        {**job.model.params, **result.training.settings},
        job.columns,
        f"models/{job.candidate}/{blob}",
        digest,
        job.created_us + round(result.training.seconds * 1e6),
        task=job.task,
        parent=before[-1] if before else "",
        libraries=result.training.libraries or _libraries(job.model.kind),
        training=result.training,
    )
    _learner_of(version, payload, key)
    _publish(state, version, payload, kept)
    return version


def tell_again(state: Place, version: Version, about: About) -> Version:
    """Let a version's record say what its candidate says of itself now; its file stays as it is.

    Raises:
        UnavailableError: an object store does not take it.
    """
    told = msgspec.structs.replace(version, figures=about.figures, rolling=about.rolling, costs=about.costs)
    folder = folder_of(state) / "models" / version.candidate
    folder.publish(PurePosixPath(version.blob).name + _RECORD, encode_record(told))
    return told


def keep_for_good(state: Place, candidate: str, reigns_since_us: int) -> Version | None:
    """Let the version with which a candidate began to reign stay, whatever comes after it.

    Args:
        state: of the pipeline.
        candidate: whom it is of.
        reigns_since_us: wall clock of the decision; it is the newest version of before, else the first one after it.

    Returns:
        The version; None if there is none yet.

    Raises:
        UnavailableError: an object store does not answer.
    """
    versions = versions_of(state, candidate)
    before = [version for version in versions if version.created_us <= reigns_since_us]
    if not versions:
        return None
    version = before[-1] if before else versions[0]
    (folder_of(state) / "models" / candidate).publish(PurePosixPath(version.blob).name + _KEPT, b"")
    return version


def versions_of(state: Place, candidate: str) -> list[Version]:
    """Give the versions of a candidate that are kept, the oldest first; what cannot be read is left out.

    Raises:
        UnavailableError: an object store does not answer.
    """
    folder, found = folder_of(state) / "models" / candidate, []
    for name in folder.names():
        if name.endswith(_RECORD) and _BLOB_NAME.fullmatch(name.removesuffix(_RECORD)):
            try:
                found.append(decode_record(folder.read(name)))
            except (ModelError, OSError):  # another release's, or removed just now
                continue
    return sorted(found, key=lambda version: version.order)


def read_blob(state: Place, version: Version, max_bytes: int = MAX_BYTES) -> bytes:
    """Read the file of a version, as it was written. Raises as `read_version`."""
    return _read_blob(folder_of(state), version, max_bytes)


def read_weights(state: Place, version: Version, max_bytes: int = MAX_BYTES) -> State:
    """Read the arrays of a version without making a learner of them. Raises as `read_version`."""
    return decode_weights(read_blob(state, version, max_bytes), version)


def read_version(
    state: Place, version: Version, key: bytes | None = None, max_bytes: int = MAX_BYTES, kind: str | None = None
) -> Learner:
    """Read a version into a learner that is ready to predict.

    Args:
        state: of the pipeline.
        version: its record.
        key: opens River models.
        max_bytes: a larger blob is refused unread.
        kind: that the pipeline file declares. A record comes from Kafka and may name any module, so that a learner of
            a user's own is imported only if the file names it too.

    Raises:
        ModelError: when the blob is absent, too large, not the one recorded, or not a sound model.
        UnavailableError: an object store does not answer; the next try may have it.
    """
    if version.format != FORMAT:
        needed = f"format {version.format} found, {FORMAT} needed"
        command = rebuild_of(f"learn.{version.candidate}")
        raise ModelError(f"version {version.name} was written by another release: {needed}; run `{command}`")
    if is_own(version.kind) and version.kind != kind:
        found = f"kind {version.kind!r} found, the pipeline file has {kind!r}"
        raise ModelError(f"version {version.name} is of a learner that is not declared: {found}")
    return _learner_of(version, _read_blob(folder_of(state), version, max_bytes), key)


def _learner_of(version: Version, payload: bytes, key: bytes | None) -> Learner:
    learner = make_learner(Model(version.candidate, version.kind, version.params), version.columns, key, version.task)
    learner.restore(decode_weights(payload, version))
    if not is_sound(learner, version.columns, version.task):
        raise ModelError(f"version {version.name} is not a sound model: a weight or an answer is not finite")
    return learner


def _blob_name(order: tuple[int, int], digest: str, suffix: str) -> str:
    name = f"{order[0]:06d}-{order[1]:012d}-{digest[:12]}{suffix}"
    if not _BLOB_NAME.fullmatch(name):
        raise ModelError(f"{name!r} is no name of a version's file; .npz and .safetensors are")
    return name


def _publish(state: Place, version: Version, payload: bytes, kept: int) -> None:
    """Write the file, then its record."""
    folder, name = folder_of(state) / "models" / version.candidate, PurePosixPath(version.blob).name
    folder.publish(name, payload)
    folder.publish(name + _RECORD, encode_record(version))
    _forget_old(folder, name, kept)


def _read_blob(state: Folder, version: Version, max_bytes: int) -> bytes:
    name = PurePosixPath(version.blob).name
    if version.blob != f"models/{version.candidate}/{name}" or not _BLOB_NAME.fullmatch(name):
        raise ModelError(f"version {version.name} names a file that is no version: {version.blob!r} found")
    folder = state / "models" / version.candidate
    try:
        payload = folder.read(name, max_bytes)
    except OverflowError as size:
        found = f"{size} bytes found, {max_bytes} allowed"
        raise ModelError(f"version {version.name} is too large: {found}") from None
    except OSError as error:
        raise ModelError(f"version {version.name} cannot be opened: {error}; check that hosts share it") from error
    digest = digest_of(payload)
    if digest != version.digest:
        found = f"digest {digest[:12]} found, {version.digest[:12]} recorded"
        raise ModelError(f"version {version.name} is not the file that was published: {found}; {folder}/{name}")
    return payload


@functools.cache
def _libraries(kind: str) -> dict[str, str]:
    """Give the releases of what makes a model of this kind."""
    prefix = kind.partition(":")[0]
    names = ("millrace", "numpy", {"river": "river", "torch": "torch", "sklearn": "scikit-learn"}.get(prefix, "numba"))
    return {name: importlib.metadata.version(name) for name in names}


def _forget_old(folder: Folder, newest: str, kept: int) -> None:
    """Keep the newest up to the one just written; larger ones are another writer's and stay.

    A network's own file is counted apart from what is published each second, for examples' rows name it.
    """
    suffix = PurePosixPath(newest).suffix
    present = folder.names()
    names = [name for name in present if _BLOB_NAME.fullmatch(name) and name.endswith(suffix)]
    for name in [name for name in names if name <= newest and name + _KEPT not in present][:-kept]:
        folder.remove(name)
        folder.remove(name + _RECORD)
