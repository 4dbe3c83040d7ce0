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
