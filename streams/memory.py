"""Memory: large tables that cost what they hold, and code that only starting needed given back.

NumPy's own arrays come from the C heap, which keeps what tables leave behind when they grow; a worker would stay as
large as it ever was. Mapped ones are zero, aligned to pages, resident where they were touched, and gone when dropped.
`HeapBytes` is for what is to be given away.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

_libc = ctypes.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
_libc.free.restype, _libc.free.argtypes = None, [ctypes.c_void_p]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
HEAP_SPARE_BYTES = 4 << 20
SMALLEST_MAPPED_BYTES = 1 << 16
HUGE_PAGES_FROM_BYTES = 4 << 20  # random look-ups in larger tables miss the TLB with pages of 4 KiB


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Give an array of zeros; costs nothing until it is written."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size < SMALLEST_MAPPED_BYTES:
        return np.zeros(shape, dtype)
    # Private: the kernel gives shared memory, mmap's usual kind, no huge pages.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_PAGES_FROM_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def resized(array: npt.NDArray[Any], length: int, used: int | None = None) -> npt.NDArray[Any]:
    """Give the array with another length of its first axis; what is new is zero.

    Only the first `used` of it are copied, where that is said: what was never written costs nothing, until it is.
    """
    larger = zeros((length, *array.shape[1:]), array.dtype)
    kept = min(length, array.shape[0] if used is None else used)
    larger[:kept] = array[:kept]
    return larger


def address_of(array: npt.NDArray[Any]) -> int:
    """Give the address of a contiguous array's first item; a third of the time that numpy's own ways take."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(cast("Any", array)))
    except (TypeError, ValueError):  # read-only, or empty
        address: int = array.__array_interface__["data"][0]
        return address


class HeapBytes:
    """Bytes of the C heap that can be given to a library that frees them itself.

    Arrays over it (`np.asarray`) keep it alive, but are void once it was given away.

    Args:
        size: in bytes.

    Attributes:
        address: of the first byte.
        size: how many of them count; the caller may say fewer.
    """

    def __init__(self, size: int) -> None:
        self.address: int = _libc.malloc(size) or 0
        self.size, self._is_ours = size, self.address != 0
        if not self.address:
            raise MemoryError(f"no memory for {size} bytes")

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """See numpy's array interface protocol."""
        return {"data": (self.address, False), "shape": (self.size,), "typestr": "|u1", "version": 3}

    def __bytes__(self) -> bytes:
        """Copy them."""
        return ctypes.string_at(self.address, self.size)

    def give(self) -> None:
        """Note that they are someone else's now, who frees them by `free`."""
        self._is_ours = False

    def __del__(self) -> None:
        """Free them, if they were not given away."""
        if self._is_ours:
            _libc.free(self.address)


def release_heap() -> None:
    """Give back what starting has allocated and freed: the C heap keeps it for itself, where nobody asks for it.

    From then on the heap keeps HEAP_SPARE_BYTES free at its end, and maps only what is larger than twice that by
    itself. Left alone it sets both limits by what happens to be freed, and a stream of frames may pay a page fault for
    each of their pages.
    """
    trim = getattr(_libc, "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(ctypes.c_size_t(0))
        _libc.mallopt(M_TRIM_THRESHOLD, HEAP_SPARE_BYTES)
        _libc.mallopt(M_MMAP_THRESHOLD, 2 * HEAP_SPARE_BYTES)


def release_libraries(maps: Path = Path("/proc/self/smaps")) -> int:
    """Give back the code and constants of libraries that starting has made resident, 65 MiB of LLVM's alone.

    They stay in the page cache, and what is used again comes back by itself. Called once, when all is loaded. Pages
    that the loader has written to (relocations) are left alone: dropping them would lose what was written.

    Returns:
        The bytes of what was given back, resident or not.
    """
    released, start, stop = 0, 0, 0
    for line in maps.read_text().splitlines() if maps.exists() else []:
        mapping = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) .*?(\S*)$", line)
        if mapping:
            is_library = ".so" in mapping[4] and "w" not in mapping[3]
            start, stop = (int(mapping[1], 16), int(mapping[2], 16)) if is_library else (0, 0)
        elif line.startswith("Private_Dirty:") and line.split()[1] == "0" and stop > start:
            span = ctypes.c_void_p(start), ctypes.c_size_t(stop - start)
            released += stop - start if _libc.madvise(*span, mmap.MADV_DONTNEED) == 0 else 0
    return released
