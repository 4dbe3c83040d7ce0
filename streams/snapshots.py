"""Snapshots: a manifest over immutable, digested parts (PROTOCOL 20-23).

A snapshot is the whole state of one input partition as it was at one position; any valid one is right, as long as
its input is still there, because readers drop what they have seen. Order of writing: parts, fsync, manifest under a
temporary name, fsync, rename, fsync of the directory; in an object store parts, then one PUT of the manifest. The
caller has flushed its outputs before.
A writer never overwrites or deletes a newer manifest; two manifests are kept. What a killed writer left without a
manifest is removed at a start, once nobody can be about to name it.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streams.advice import rebuild_of
from streams.errors import SnapshotError, UnavailableError
from streams.state_folder import Folder, Piece, Place, folder_of

FORMAT = 7  # of the state's layout; another number is refused, naming `millrace rebuild`
KEPT = 2
ALIGNED_BYTES = 64  # arrays begin at multiples of it, so that a mapped part can be used as it is
MAPPED_FROM_BYTES = 64 << 20  # larger parts are not read: content and arrays would be in memory together
ORPHANED_AFTER_S = 3_600.0  # from part to manifest takes seconds; a writer frozen for longer finds its part damaged

State = dict[str, npt.NDArray[Any]]


def part_of(state: State, prefix: str) -> State:
    """Give the arrays of one part of a snapshot by their names in it."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


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
    """What a folder holds: the newest snapshot that verifies, and what is known of all of them."""

    newest_number: int
    manifest: Manifest | None
    state: State | None
    generation: int = 0
    digests: dict[str, str] = {}  # of the manifests that verify, by name


class SnapshotStore:
    """The snapshots of one role's input partition in one folder.

    Args:
        place: where they lie.
        clock: seconds since 1970, to tell how old files are.
    """

    def __init__(self, place: Place, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder_of(place), clock
        self._number = 0
        self._mine: list[str] = []

    def find(self) -> Found:
        """Read the newest snapshot that verifies (manifest, part digest, format).

        Raises:
            SnapshotError: when the state was written by another format.
            UnavailableError: an object store does not answer, so that nobody knows what is there.
        """
        names = _manifests(self.folder.names())
        valid: list[tuple[tuple[int, int, int], Manifest]] = []
        digests: dict[str, str] = {}
        for name in names:
            manifest = _read_manifest(self.folder, name)
            if manifest is not None:
                valid.append(((manifest.generation, manifest.position, manifest.number), manifest))
                digests[name] = _digest(msgspec.json.encode(manifest))
        newest = max((_number(name) for name in names), default=0)
        self._number = max(self._number, newest)
        generation = max((manifest.generation for _, manifest in valid), default=0)
        for _, manifest in sorted(valid, key=lambda pair: pair[0], reverse=True):
            if manifest.format != FORMAT:
                text = f"snapshots in {self.folder} have format {manifest.format}, this release reads {FORMAT}"
                raise SnapshotError(f"{text}; run `{rebuild_of()}`")
            state = _read_part(self.folder, manifest)
            if state is not None:
                return Found(newest, manifest, state, generation, digests)
        return Found(newest, None, None, generation, digests)

    def save(self, manifest: Manifest, state: State) -> Witness:
        """Write a snapshot; `number`, `part`, `digest` and `arrays` of `manifest` are filled in here.

        Raises:
            UnavailableError: the folder cannot be written.
        """
        try:
            return self._save(manifest, state)
        except OSError as error:
            raise UnavailableError(f"cannot write a snapshot to {self.folder}: {error.strerror or error}") from None

    def _save(self, manifest: Manifest, state: State) -> Witness:
        self._number += 1
        stem = f"{self._number:012d}-{uuid.uuid4().hex[:12]}"
        part, name = f"part-{stem}.bin", f"manifest-{stem}.json"
        digest, arrays = _write_part(self.folder, part, state)
        whole = msgspec.structs.replace(manifest, number=self._number, part=part, digest=digest, arrays=arrays)
        whole = msgspec.structs.replace(whole, check=_check(whole))
        payload = msgspec.json.encode(whole)
        self.folder.publish(name, payload)
        self._mine.append(name)
        self._forget_old()
        return Witness(name, _digest(payload), self._number, whole.generation)

    def _forget_old(self) -> None:
        """Delete own older manifests, then the parts that only they named."""
        while len(self._mine) > KEPT:
            name = self._mine.pop(0)
            self.folder.remove(name)
            self.folder.remove(name.replace("manifest-", "part-").replace(".json", ".bin"))

    def count_from(self, number: int) -> None:
        """Number the next snapshot above `number`: what a lost folder held must not look newer than what follows."""
        self._number = max(self._number, number)

    def adopt(self, found: Found) -> None:
        """Count the manifests found at start among those to be forgotten later, oldest first."""
        names = self.folder.names()
        manifests = _manifests(names)
        self._mine = [name for name in manifests if _number(name) <= found.newest_number]
        self._remove_orphans(names, manifests)

    def _remove_orphans(self, names: list[str], manifests: list[str]) -> None:
        """Delete parts that a kill left without a manifest.

        Only those below all manifests present, named by none, and an hour old. Should their writer still live and name
        one, its manifest is found damaged, and a newer one was there before.
        """
        oldest, named = min(map(_number, manifests), default=0), {_stem(name) for name in manifests}
        for name in names:
            if name.startswith("part-") and _number(name) < oldest and _stem(name) not in named:
                with contextlib.suppress(OSError):  # somebody else removes it, too
                    if self._clock() - self.folder.written_s(name) > ORPHANED_AFTER_S:
                        self.folder.remove(name)


def _manifests(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("manifest-") and name.endswith(".json")]


def _number(name: str) -> int:
    return int(name.split("-")[1])


def _stem(name: str) -> str:
    return name.partition(".")[0].split("-", 1)[1]


def _read_manifest(folder: Folder, name: str) -> Manifest | None:
    try:
        payload = folder.read(name)
        manifest = msgspec.json.decode(payload, type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_whole = manifest.check == _check(manifest) and payload == msgspec.json.encode(manifest)
    return manifest if is_whole else None


def _check(manifest: Manifest) -> str:
    return _digest(msgspec.json.encode(msgspec.structs.replace(manifest, check="")))


_hash = hashlib.sha256  # with the processor's own instructions, three times as fast as blake2b here


def _digest(payload: bytes | mmap.mmap) -> str:
    return _hash(payload).hexdigest()


def _write_part(folder: Folder, part: str, state: State) -> tuple[str, tuple[Array, ...]]:
    digest = _hash()
    arrays: list[Array] = []

    def pieces() -> Iterator[Piece]:
        offset = 0
        for name, array in state.items():
            array = np.asarray(array)  # noqa: PLW2901 - a 0-d or list value is fine for callers
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            gap = bytes(-offset % ALIGNED_BYTES)
            arrays.append(Array(name, array.dtype.str, array.shape, offset + len(gap)))
            digest.update(gap)
            digest.update(raw.data)
            offset += len(gap) + raw.nbytes
            yield gap
            yield raw.data

    folder.write(part, pieces())
    return digest.hexdigest(), tuple(arrays)


def _read_part(folder: Folder, manifest: Manifest) -> State | None:
    try:
        payload = _content(folder, manifest.part)
    except OSError:
        return None
    if _digest(payload) != manifest.digest:
        return None
    is_mapped = isinstance(payload, mmap.mmap)
    state: State = {}
    for array in manifest.arrays:
        dtype = np.dtype(array.dtype)
        count = int(np.prod(array.shape, dtype=np.int64))
        found = np.frombuffer(payload, dtype, count, array.offset).reshape(array.shape)
        state[array.name] = found if is_mapped and found.flags.aligned else found.copy()
    return state


def _content(folder: Folder, part: str) -> bytes | mmap.mmap:
    """Give a part's bytes; those of a large file stay in it, and what is written to them stays out of it."""
    path = None if folder.local is None else folder.local / part
    if path is None or path.stat().st_size < MAPPED_FROM_BYTES:
        return folder.read(part)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
