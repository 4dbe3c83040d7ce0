"""Memory of large tables: zeroed, aligned to pages, resident only where it was touched, given back when dropped.

NumPy's own arrays come from the C heap, which keeps what tables leave behind when they grow; a worker would stay as
large as it ever was.
"""

from __future__ import annotations

import mmap
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
    memory = mmap.mmap(-1, size)
    if size >= HUGE_PAGES_FROM_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def resized(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Give the array with another length of its first axis; what is new is zero."""
    larger = zeros((length, *array.shape[1:]), array.dtype)
    kept = min(length, array.shape[0])
    larger[:kept] = array[:kept]
    return larger
