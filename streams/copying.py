"""Copying texts inside kernels: most are so short that a call of C would take longer than the copying."""

from __future__ import annotations

from streams.compiled import inlined
from streams.intrinsics import load_8, load_32, load_64, store_8, store_32, store_64


@inlined
def copy_text(to: int, origin: int, size: int) -> None:
    """Copy a text by address, word by word; the last word may overlap the one before. Nothing is copied of size -1."""
    if size >= 8:
        for k in range(0, size - 8, 8):
            store_64(to + k, load_64(origin + k))
        store_64(to + size - 8, load_64(origin + size - 8))
    elif size >= 4:
        store_32(to, load_32(origin))
        store_32(to + size - 4, load_32(origin + size - 4))
    else:
        for k in range(size):
            store_8(to + k, load_8(origin + k))
