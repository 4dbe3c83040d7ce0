"""Folders of state: what snapshots and models are written to, in a local directory or in an object store.

Locally a file is synced before it has its name, and its directory after (PROTOCOL 21). An object store has no such
steps: an object is there whole, or not at all, once its PUT is answered (streams/object_folder.py).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from streams.pipeline import Pipeline

Piece = bytes | memoryview


class Folder(Protocol):
    """Files under one name. Any process of the pipeline may write into it at the same time; names tell them apart.

    Every method raises UnavailableError where a store does not answer, or refuses: that says nothing of the file.
    As text it is where people look for it, without secrets.
    """

    @property
    def local(self) -> Path | None:
        """The directory that it is; None in an object store, which is reached over a network."""

    def __truediv__(self, name: str) -> Folder:
        """Give the folder of this name in it. Made when the first file is written."""

    def names(self) -> list[str]:
        """Give the names of its files, in order; none if there is no such folder."""

    def folders(self) -> list[str]:
        """Give the names of the folders in it, in order."""

    def read(self, name: str, most_bytes: int | None = None) -> bytes:
        """Give a file's content.

        Raises:
            OSError: it is not there, or damaged in a way that the disk knows of.
            OverflowError: it has more than `most_bytes`; its size is the error's argument.
        """

    def write(self, name: str, pieces: Iterable[Piece]) -> None:
        """Write a part. When this returns it is durable; before, nothing may name it.

        Raises:
            OSError: the directory cannot be written.
        """

    def publish(self, name: str, content: bytes) -> None:
        """Write a file that others find by its name: there it is whole and durable, or it is not there.

        Raises:
            OSError: the directory cannot be written.
        """

    def written_s(self, name: str) -> float:
        """Give when a file was written, in seconds since 1970.

        Raises:
            OSError: it is not there.
        """

    def move(self, name: str, to: Folder) -> None:
        """Let a file lie in another folder of the same kind, under its name.

        Raises:
            OSError: the other folder cannot be written.
        """

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""


Place = Path | Folder  # a path stands for the local directory


def folder_of(place: Place) -> Folder:
    """Give the folder that a path stands for; a folder as it is."""
    return LocalFolder(place) if isinstance(place, Path) else place


def state_of(pipeline: Pipeline) -> Folder:
    """Give the folder of a pipeline's snapshots and models.

    Raises:
        PipelineError: pyarrow cannot read the URL.
        UnavailableError: the object store cannot be asked for the bucket's region, which the URL leaves out.
    """
    if pipeline.state_url is None:
        return LocalFolder(pipeline.state)
    from streams.object_folder import open_object_folder  # 18 MiB with the S3 client: only those who need it pay

    return open_object_folder(pipeline.state_url)


class LocalFolder:
    """A directory of this machine, or one that is mounted.

    >>> import tempfile
    >>> folder = LocalFolder(Path(tempfile.mkdtemp())) / "models"
    >>> folder.publish("a", b"weights")
    >>> folder.names(), folder.read("a")
    (['a'], b'weights')
    """

    def __init__(self, directory: Path) -> None:
        self.local = directory

    def __str__(self) -> str:
        return str(self.local)

    def __truediv__(self, name: str) -> LocalFolder:
        return LocalFolder(self.local / name)

    def names(self) -> list[str]:
        """Give the names of its files, in order; none if it cannot be listed."""
        try:
            return sorted(path.name for path in self.local.iterdir())
        except OSError:
            return []

    def folders(self) -> list[str]:
        """Give the names of the folders in it, in order; none if it cannot be listed."""
        try:
            return sorted(path.name for path in self.local.iterdir() if path.is_dir())
        except OSError:
            return []

    def read(self, name: str, most_bytes: int | None = None) -> bytes:
        """Give a file's content."""
        path = self.local / name
        size = path.stat().st_size if most_bytes is not None else 0
        if most_bytes is not None and size > most_bytes:
            raise OverflowError(size)
        return path.read_bytes()

    def write(self, name: str, pieces: Iterable[Piece]) -> None:
        """Write and sync a part; the sync of the directory comes with the file that names it."""
        _make_synced(self.local)
        _write_synced(self.local / name, pieces)

    def publish(self, name: str, content: bytes) -> None:
        """Write under another name, sync, rename, sync the directory."""
        _make_synced(self.local)
        path = self.local / name
        # A zombie may write the same name. Readers of data sets pass over what begins with a dot.
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp")
        _write_synced(temporary, [content])
        temporary.rename(path)
        _sync(self.local)

    def written_s(self, name: str) -> float:
        """Give when a file was written."""
        return (self.local / name).stat().st_mtime

    def move(self, name: str, to: Folder) -> None:
        """Rename it, and sync both directories: the name in the other one first."""
        assert to.local is not None  # noqa: S101 - of the same kind
        _make_synced(to.local)
        (self.local / name).rename(to.local / name)
        _sync(to.local)
        _sync(self.local)

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        (self.local / name).unlink(missing_ok=True)


def _make_synced(directory: Path) -> None:
    """Make a directory, whose name is durable when files in it are."""
    if not directory.is_dir():
        _make_synced(directory.parent)
        directory.mkdir(exist_ok=True)
        _sync(directory.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, pieces: Iterable[Piece]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
