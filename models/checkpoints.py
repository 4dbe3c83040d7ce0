"""Checkpoints: a training's weights and course, written so that a process may be killed at any moment.

One is one file of safetensors (no code can be in it), whose name carries its step and the digest of its content. It is
written under another name, synced and renamed, so a name that is there names a whole file; of a disk that lies about
that, the digest knows. The newest two are kept: where the newest is damaged the one before is taken, which only repeats
more.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from models.course import Course
from models.learner import State
from models.weights_file import decode, encode
from streams.errors import ModelError
from streams.state_folder import LocalFolder

KEPT = 2
FOLDER = "checkpoints"
FORMAT = "1"
_DIGEST_BYTES = 16
_NAME = re.compile(r"\d{12}-[0-9a-f]{32}\.safetensors")  # step, digest


class Checkpoint(NamedTuple):
    """Weights and course of one moment."""

    state: State
    course: Course


class Checkpoints:
    """The checkpoints of one training.

    Args:
        directory: of the training.
        of: what they belong to, the digest of examples and settings: with others none of them can be gone on with.

    Attributes:
        refused: a line for each that could not be taken.

    Example:
        >>> import tempfile, numpy as np
        >>> checkpoints = Checkpoints(Path(tempfile.mkdtemp()), "flights")
        >>> checkpoints.write(7, {"network.w": np.ones(2, np.float32)}, Course(epoch=1, step=2))
        >>> found = checkpoints.newest()
        >>> found.course.epoch, found.state["network.w"].tolist()
        (1, [1.0, 1.0])
    """

    def __init__(self, directory: Path, of: str) -> None:
        self._folder = LocalFolder(directory / FOLDER)
        self._of = of
        self.refused: list[str] = []

    def write(self, step: int, state: State, course: Course) -> None:
        """Write one of so many steps, and forget all but the newest two.

        Raises:
            OSError: the directory cannot be written.
        """
        told = {"format": FORMAT, "of": self._of, "course": msgspec.json.encode(course).decode()}
        payload = encode(state, told)
        self._folder.publish(f"{step:012d}-{_digest(payload)}.safetensors", payload)
        for name in self._names()[:-KEPT]:
            self._folder.remove(name)

    def newest(self) -> Checkpoint | None:
        """Read the newest that is whole and belongs to this training; one that is refused is removed."""
        for name in reversed(self._names()):
            try:
                return self._read(name)
            except (ModelError, OSError, msgspec.MsgspecError) as error:
                self.refused.append(f"checkpoint {name} is refused: {error}")
                self._folder.remove(name)  # else it would be kept as the newest, and what is written now forgotten
        return None

    def forget(self) -> None:
        """Remove all of them."""
        for name in self._folder.names():  # those too that were not renamed any more
            self._folder.remove(name)
        with contextlib.suppress(OSError):
            self._folder.local.rmdir()

    def _names(self) -> list[str]:
        return [name for name in self._folder.names() if _NAME.fullmatch(name)]

    def _read(self, name: str) -> Checkpoint:
        payload = self._folder.read(name)
        found, recorded = _digest(payload), name.partition(".")[0].rpartition("-")[2]
        if found != recorded:
            raise ModelError(f"digest {found[:12]} found in {len(payload)} bytes, {recorded[:12]} recorded")
        state, told = decode(payload)
        if told.get("format") != FORMAT:
            raise ModelError(f"format {told.get('format')} found, {FORMAT} needed")
        if told.get("of") != self._of:
            raise ModelError("it is of other examples or settings")
        return Checkpoint(state, msgspec.json.decode(told.get("course", ""), type=Course))


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).hexdigest()
