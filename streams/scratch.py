"""Scratch: large tables in files, which the system may take out of memory, and which grow without being copied.

A table that is small is ordinary memory: the system would write a file's pages to disk now and then, wanted or not.
A file has no name from the moment it is open, so that it is gone with the process, however that ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from streams.errors import UnavailableError
from streams.memory import resized, zeros

SMALLEST_FILE_BYTES = 64 << 20

Array = npt.NDArray[Any]


class _Mapping(mmap.mmap):
    """Memory that is a file's content. mmap has a descriptor of its own and does not give it away."""

    file: IO[bytes]


class Scratch:
    """Where large tables lie.

    Args:
        directory: of the files, made when the first is needed; None keeps everything in memory.
        smallest_bytes: what has so many bytes goes to a file.

    Example:
        >>> scratch = Scratch(Path("state/flights/scratch"))
        >>> table = scratch.zeros((64, 20), np.dtype(np.float64))
        >>> scratch.resized(table, 10_000_000).nbytes  # in a file, for it is large
        1600000000
    """

    def __init__(self, directory: Path | None = None, smallest_bytes: int = SMALLEST_FILE_BYTES) -> None:
        self._directory, self._smallest_bytes = directory, smallest_bytes

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Give a table of zeros.

        Raises:
            UnavailableError: the directory cannot be written, or has not so much room.
        """
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self._directory is None or size_bytes < self._smallest_bytes:
            return zeros(shape, dtype)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  # it is closed with the last table in it
        except OSError as error:
            raise UnavailableError(f"cannot keep tables in {self._directory}: {error.strerror or error}") from None
        return self._mapped(file, shape, dtype)

    def resized(self, array: Array, length: int, used: int | None = None) -> Array:
        """Give the table with another length of its first axis; what is new is zero.

        One that lies in a file is the same memory afterwards, before and behind: give the old one up.

        Args:
            array: the table.
            length: the new one.
            used: how much of the first axis holds anything; all of it if left out.

        Raises:
            UnavailableError: the directory cannot be written, or has not so much room.
        """
        shape, mapping = (length, *array.shape[1:]), _mapping_of(array)
        if mapping is not None and length >= array.shape[0]:
            return self._mapped(mapping.file, shape, array.dtype)
        if self._directory is None or int(np.prod(shape)) * array.itemsize < self._smallest_bytes:
            return resized(array, length, used)
        larger = self.zeros(shape, array.dtype)
        kept = min(length, array.shape[0] if used is None else used)
        larger[:kept] = array[:kept]
        return larger

    def copied(self, array: Array, length: int | None = None) -> Array:
        """Give a copy of a table or of its first rows, in a file if it is large; a longer one ends in zeros."""
        copy = self.zeros((array.shape[0] if length is None else length, *array.shape[1:]), array.dtype)
        copy[: array.shape[0]] = array
        return copy

    def _mapped(self, file: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Give the file's content as a table, with disk space for all of it: a store to a full disk ends a process."""
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            else:
                file.truncate(size_bytes)
            mapping = _Mapping(file.fileno(), size_bytes)
        except OSError as error:
            text = f"{self._directory} has no room for a table of {size_bytes:,} bytes: {error.strerror or error}"
            raise UnavailableError(text) from None
        mapping.file = file
        return np.frombuffer(mapping, dtype).reshape(shape)


def let_go(array: Array) -> None:
    """Take a table's pages out of this process's memory if it lies in a file; what is used comes back by itself."""
    mapping = _mapping_of(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)  # of a file shared with the page cache this loses nothing


def _mapping_of(array: Array) -> _Mapping | None:
    """Give the file that a whole table is the content of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else base
    return owner if isinstance(owner, _Mapping) and array.nbytes == len(owner) else None
