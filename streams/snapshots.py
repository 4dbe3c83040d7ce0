"""Snapshots: a manifest over immutable, digested parts (PROTOCOL 20-23).

A snapshot is the whole state of one input partition as it was at one position; any valid one is right, as long as
its input is still there, because readers drop what they have seen. Order of writing: parts, fsync, manifest under a
temporary name, fsync, rename, fsync of the directory. The caller has flushed its outputs before.
A writer never overwrites or deletes a newer manifest; two manifests are kept.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streams.errors import SnapshotError, UnavailableError

FORMAT = 6  # of the state's layout; another number is refused, naming `millrace rebuild`
KEPT = 2

State = dict[str, npt.NDArray[Any]]


class Array(msgspec.Struct, frozen=True):
    """Where one array lies in a part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is of. `position` is the first message not wholly taken."""

    number: int
    topic: str
    topic_id: str
    partition: int
    partitions: dict[str, int]
    position: int
    generation: int
    schema: str
    part: str
    digest: str
    arrays: tuple[Array, ...]
    outputs: dict[str, int]
    format: int = FORMAT
    check: str = ""  # digest of all the rest, so that a flipped digit in `position` cannot lose rows


class Witness(msgspec.Struct, frozen=True):
    """What the group commit says beside the offset: which manifest it belongs to."""

    manifest: str
    digest: str
    number: int
    generation: int


class Found(msgspec.Struct, frozen=True):
    """What a directory holds: the newest snapshot that verifies, and what is known of all of them."""

    newest_number: int
    manifest: Manifest | None
    state: State | None
    generation: int = 0
    digests: dict[str, str] = {}  # of the manifests that verify, by name


class SnapshotStore:
    """The snapshots of one role's input partition in one local directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._number = 0
        self._mine: list[Path] = []

    def find(self) -> Found:
        """Read the newest snapshot that verifies (manifest, part digest, format).

        Raises:
            SnapshotError: when the state was written by another format.
        """
        names = sorted(self.directory.glob("manifest-*.json"), reverse=True)
        valid: list[tuple[tuple[int, int, int], Manifest]] = []
        digests: dict[str, str] = {}
        for path in names:
            manifest = _read_manifest(path)
            if manifest is not None:
                valid.append(((manifest.generation, manifest.position, manifest.number), manifest))
                digests[path.name] = _digest(msgspec.json.encode(manifest))
        newest = max((_number(path) for path in names), default=0)
        self._number = max(self._number, newest)
        generation = max((manifest.generation for _, manifest in valid), default=0)
        for _, manifest in sorted(valid, key=lambda pair: pair[0], reverse=True):
            if manifest.format != FORMAT:
                text = f"snapshots in {self.directory} have format {manifest.format}, this release reads {FORMAT}"
                raise SnapshotError(f"{text}; use `millrace rebuild`")
            state = _read_part(self.directory / manifest.part, manifest)
            if state is not None:
                return Found(newest, manifest, state, generation, digests)
        return Found(newest, None, None, generation, digests)

    def save(self, manifest: Manifest, state: State) -> Witness:
        """Write a snapshot; `number`, `part`, `digest` and `arrays` of `manifest` are filled in here.

        Raises:
            UnavailableError: the directory cannot be written.
        """
        try:
            return self._save(manifest, state)
        except OSError as error:
            raise UnavailableError(f"cannot write a snapshot to {self.directory}: {error.strerror or error}") from None

    def _save(self, manifest: Manifest, state: State) -> Witness:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._number += 1
        stem = f"{self._number:012d}-{uuid.uuid4().hex[:12]}"
        part = self.directory / f"part-{stem}.bin"
        digest, arrays = _write_part(part, state)
        whole = msgspec.structs.replace(manifest, number=self._number, part=part.name, digest=digest, arrays=arrays)
        whole = msgspec.structs.replace(whole, check=_check(whole))
        path = self.directory / f"manifest-{stem}.json"
        payload = msgspec.json.encode(whole)
        _write_durably(path, payload)
        self._mine.append(path)
        self._forget_old()
        return Witness(path.name, _digest(payload), self._number, whole.generation)

    def _forget_old(self) -> None:
        """Delete own older manifests, then the parts that only they named."""
        while len(self._mine) > KEPT:
            path = self._mine.pop(0)
            path.unlink(missing_ok=True)
            (self.directory / path.name.replace("manifest-", "part-").replace(".json", ".bin")).unlink(missing_ok=True)

    def count_from(self, number: int) -> None:
        """Number the next snapshot above `number`: what a lost directory held must not look newer than what follows."""
        self._number = max(self._number, number)

    def adopt(self, found: Found) -> None:
        """Count the manifests found at start among those to be forgotten later, oldest first."""
        newest = found.newest_number
        self._mine = [path for path in sorted(self.directory.glob("manifest-*.json")) if _number(path) <= newest]


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])


def _read_manifest(path: Path) -> Manifest | None:
    try:
        payload = path.read_bytes()
        manifest = msgspec.json.decode(payload, type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_whole = manifest.check == _check(manifest) and payload == msgspec.json.encode(manifest)
    return manifest if is_whole else None


def _check(manifest: Manifest) -> str:
    return _digest(msgspec.json.encode(msgspec.structs.replace(manifest, check="")))


_hash = hashlib.sha256  # with the processor's own instructions, three times as fast as blake2b here


def _digest(payload: bytes) -> str:
    return _hash(payload).hexdigest()


def _write_part(path: Path, state: State) -> tuple[str, tuple[Array, ...]]:
    digest = _hash()
    arrays = []
    offset = 0
    with path.open("wb") as file:
        for name, array in state.items():
            array = np.asarray(array)  # noqa: PLW2901 - a 0-d or list value is fine for callers
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            arrays.append(Array(name, array.dtype.str, array.shape, offset))
            file.write(raw.data)
            digest.update(raw.data)
            offset += raw.nbytes
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), tuple(arrays)


def _read_part(path: Path, manifest: Manifest) -> State | None:
    try:
        payload = path.read_bytes()
    except OSError:
        return None
    if _digest(payload) != manifest.digest:
        return None
    state: State = {}
    for array in manifest.arrays:
        dtype = np.dtype(array.dtype)
        count = int(np.prod(array.shape, dtype=np.int64))
        state[array.name] = np.frombuffer(payload, dtype, count, array.offset).reshape(array.shape).copy()
    return state


def _write_durably(path: Path, payload: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
