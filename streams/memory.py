"""Memory: large tables that cost what they hold, and code that only starting needed given back.

NumPy's own arrays come from the C heap, which keeps what tables leave behind when they grow; a worker would stay as
large as it ever was. Mapped ones are zero, aligned to pages, resident where they were touched, and gone when dropped.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

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


def release_heap() -> None:
    """Give back what starting has allocated and freed: the C heap keeps it for itself, where nobody asks for it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(ctypes.c_size_t(0))


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
            released += stop - start if ctypes.CDLL(None).madvise(*span, mmap.MADV_DONTNEED) == 0 else 0
    return released
