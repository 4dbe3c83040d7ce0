"""Memory: large tables that cost what they hold, and the compiler's code given back once kernels are there.

NumPy's own arrays come from the C heap, which keeps what tables leave behind when they grow; a worker would stay as
large as it ever was. Mapped ones are zero, aligned to pages, resident where they were touched, and gone when dropped.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path
from typing import Any

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


def resized(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Give the array with another length of its first axis; what is new is zero."""
    larger = zeros((length, *array.shape[1:]), array.dtype)
    kept = min(length, array.shape[0])
    larger[:kept] = array[:kept]
    return larger


def release_compiler(maps: Path = Path("/proc/self/smaps")) -> int:
    """Give back the 65 MiB of LLVM's code and constants that compiling made resident; gives the bytes.

    They stay in the page cache and come back by themselves if something is compiled later. Called once after warming.
    Pages that the loader has written to (relocations) are left alone: dropping them would lose what was written.
    """
    released, start, stop = 0, 0, 0
    for line in maps.read_text().splitlines() if maps.exists() else []:
        mapping = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) .*?(\S*)$", line)
        if mapping:
            is_compilers = "libllvmlite" in mapping[4] and "w" not in mapping[3]
            start, stop = (int(mapping[1], 16), int(mapping[2], 16)) if is_compilers else (0, 0)
        elif line.startswith("Private_Dirty:") and line.split()[1] == "0" and stop > start:
            span = ctypes.c_void_p(start), ctypes.c_size_t(stop - start)
            released += stop - start if ctypes.CDLL(None).madvise(*span, mmap.MADV_DONTNEED) == 0 else 0
    return released
