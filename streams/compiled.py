"""The door to numba: one decorator for every compiled kernel.

Kernels are cached on disk and never use fast-math, so that a replay gives the same bits in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on its first call with each set of argument types (about 0.1 s from the disk cache)."""
    compiled: Callable[P, R] = numba.njit(function, cache=True, nogil=True, error_model="numpy")
    return compiled


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a part of `bare` kernels into each kernel that calls it; like them it may not allocate arrays."""
    options = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False, "forceinline": True}
    compiled: Callable[P, R] = numba.njit(function, **options)
    return compiled


def bare(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that neither allocates nor gives arrays, without reference counting.

    A row-by-row kernel over many arrays otherwise spends most of its time counting references to them.
    """
    compiled: Callable[P, R] = numba.njit(function, cache=True, nogil=True, error_model="numpy", _nrt=False)
    return compiled
