"""Folders in an object store, through pyarrow.fs: the one file that knows it, loaded only where a URL names a store.

A file is one object, and its PUT replaces rename and syncs: an object is there whole once it is answered, or not at
all. The client tries again for some seconds by itself; what fails then ends in one line, and never means "not there".
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyarrow import fs

from streams.errors import PipelineError, UnavailableError
from streams.state_folder import Folder, Piece
from streams.state_url import masked, masked_in

ADVICE = "check network, bucket and rights"
OPTIONS = {  # of pyarrow, by scheme, where the URL says nothing of them
    "s3": ("allow_delayed_open", "true"),  # one PUT for a small object; else each is an upload of three requests
    "gs": ("retry_limit_seconds", "10"),  # else the client tries for 15 minutes, and nobody learns why
    "gcs": ("retry_limit_seconds", "10"),
}


@functools.cache
def open_object_folder(url: str) -> ObjectFolder:
    """Give the folder that a URL stands for; all folders of a process share its client (10 MiB, and connections).

    Raises:
        PipelineError: pyarrow cannot read the URL.
        UnavailableError: it leaves out the region, and the store cannot be asked for it.
    """
    try:
        filesystem, path = fs.FileSystem.from_uri(with_options(url))
    except (ValueError, pa.ArrowException) as error:
        raise PipelineError([f"[pipeline] state: {masked(url)}: {_words(error, url)}"]) from None
    except OSError as error:
        raise UnavailableError(f"cannot open {masked(url)}: {_words(error, url)}; {ADVICE}") from None
    return ObjectFolder(filesystem, path.rstrip("/"), url)


class ObjectFolder:
    """Objects under one prefix.

    Args:
        filesystem: pyarrow's.
        path: bucket and prefix, as the filesystem takes it.
        url: of the whole state; errors are shown without what is secret in it.
    """

    local = None

    def __init__(self, filesystem: fs.FileSystem, path: str, url: str) -> None:
        self._filesystem, self._path, self._url = filesystem, path, url

    def __str__(self) -> str:
        return f"{self._url.partition('://')[0]}://{self._path}"

    def __truediv__(self, name: str) -> ObjectFolder:
        return ObjectFolder(self._filesystem, f"{self._path}/{name}", self._url)

    def names(self) -> list[str]:
        """Give the names of its objects, in order. A bucket that is not there is an error, an empty one is not."""
        return self._listed(fs.FileType.File)

    def folders(self) -> list[str]:
        """Give what stands between its name and the next slash in names of objects below it, in order."""
        return self._listed(fs.FileType.Directory)

    def read(self, name: str, most_bytes: int | None = None) -> bytes:
        """Give an object's content; FileNotFoundError only if the store says that it is not there."""
        path = f"{self._path}/{name}"
        asking = self._asking("cannot read", f"{self}/{name}", is_absence_told=True)
        with asking, self._filesystem.open_input_file(path) as file:
            if most_bytes is not None and file.size() > most_bytes:
                raise OverflowError(file.size())
            content: bytes = file.read()
            return content

    def write(self, name: str, pieces: Iterable[Piece]) -> None:
        """Write an object; it is there when this returns."""
        path = f"{self._path}/{name}"
        with self._asking("cannot write", f"{self}/{name}"), self._filesystem.open_output_stream(path) as file:
            for piece in pieces:
                file.write(piece)

    def publish(self, name: str, content: bytes) -> None:
        """Write an object by one PUT."""
        self.write(name, [content])

    def written_s(self, name: str) -> float:
        """Give when an object was put."""
        path = f"{self._path}/{name}"
        with self._asking("cannot look at", f"{self}/{name}", is_absence_told=True):
            info = self._filesystem.get_file_info(path)
            if info.type == fs.FileType.NotFound:
                raise FileNotFoundError(name)
            return float(info.mtime.timestamp())

    def move(self, name: str, to: Folder) -> None:
        """Copy an object within the store, then delete it: broken off between the two it is in both places."""
        assert isinstance(to, ObjectFolder)  # noqa: S101 - of the same kind
        with self._asking("cannot move", f"{self}/{name}"):
            self._filesystem.move(f"{self._path}/{name}", f"{to._path}/{name}")  # noqa: SLF001 - its own kind

    def remove(self, name: str) -> None:
        """Delete an object if it is there."""
        with self._asking("cannot delete", f"{self}/{name}"), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(f"{self._path}/{name}")

    def _listed(self, kind: fs.FileType) -> list[str]:
        with self._asking("cannot list", str(self)):
            found = self._filesystem.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
            if not found:
                self._demand_bucket()
        return sorted(info.base_name for info in found if info.type == kind)

    def _demand_bucket(self) -> None:
        bucket = self._path.partition("/")[0]
        if bucket and self._filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
            raise FileNotFoundError(f"there is no bucket {bucket}")

    @contextlib.contextmanager
    def _asking(self, what: str, where: str, *, is_absence_told: bool = False) -> Iterator[None]:
        """Turn what the store says into one line; what is not an answer about the file never looks like one."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if is_absence_told and isinstance(error, FileNotFoundError):
                raise
            raise UnavailableError(f"{what} {where}: {_words(error, self._url)}; {ADVICE}") from None


def with_options(url: str) -> str:
    """Add to a URL what makes pyarrow's client fit a worker.

    >>> with_options("gs://bucket/p?scheme=http"), with_options("s3://bucket?allow_delayed_open=false")
    ('gs://bucket/p?scheme=http&retry_limit_seconds=10', 's3://bucket?allow_delayed_open=false')
    """
    name, value = OPTIONS.get(url.partition("://")[0], ("", ""))
    if not name or f"{name}=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{name}={value}"


def _words(error: Exception, url: str) -> str:
    text = masked_in(str(error).replace(with_options(url), url), url)
    return text.partition(" (Request ID")[0].rstrip(". ")
