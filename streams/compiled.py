"""The door to numba: one decorator for every compiled kernel.

Kernels are cached on disk and never use fast-math, so that a replay gives the same bits in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # it ships no types
from numba.core import cgutils
from numba.extending import intrinsic

P = ParamSpec("P")
R = TypeVar("R")

_jit: Any = numba.njit  # its types leave out the options that only some targets know
_intrinsic: Any = intrinsic  # its types lose the arguments
_COMMON = {"cache": True, "nogil": True, "error_model": "numpy"}


def njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on its first call with each set of argument types (about 0.1 s from the disk cache)."""
    compiled: Callable[P, R] = _jit(**_COMMON)(function)
    return compiled


def bare(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that neither allocates nor gives arrays, without reference counting.

    A row-by-row kernel over dozens of arrays otherwise spends most of its time counting references to them.
    """
    compiled: Callable[P, R] = _jit(**_COMMON, _nrt=False)(function)
    return compiled


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a part of `bare` kernels into each kernel that calls it.

    A call that stays a call passes every array as seven words, which costs more than the few instructions it runs.
    """
    compiled: Callable[P, R] = _jit(**_COMMON, _nrt=False, forceinline=True)(function)
    return compiled


def _prefetch(_typing: Any, array: Any, item: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        line = builder.bitcast(builder.gep(view.data, [arguments[1]]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        kinds = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kinds)
        builder.call(function, [line, flag(0), flag(3), flag(1)])  # to read, into the nearest cache, of data
        return context.get_dummy_value()

    return numba.types.void(array, item), generate


# prefetch(array, item): inside kernels, ask for the cache line of a contiguous array's item, counted over all axes.
prefetch: Callable[[npt.NDArray[Any], int], None] = _intrinsic(_prefetch)
