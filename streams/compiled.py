"""The door to numba: one decorator for every compiled kernel.

Kernels are cached on disk and never use fast-math, so that a replay gives the same bits in every process. numba looks
only at a kernel's own file to see whether its cache is stale, but kernels contain the kernels they call: here a cache
is stale as soon as any file with kernels has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # it ships no types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

KERNEL_PACKAGES = ("streams", "models")

P = ParamSpec("P")
R = TypeVar("R")

_jit: Any = numba.njit  # its types leave out the options that only some targets know
_intrinsic: Any = intrinsic  # its types lose the arguments
_jitable: Any = register_jitable
_raw_memcpy: Any = cgutils.raw_memcpy  # it has no types
_COMMON = {"cache": True, "nogil": True, "error_model": "numpy"}
_PART = {"error_model": "numpy", "_nrt": False, "forceinline": True, "no_cfunc_wrapper": True}


def _sources_digest() -> str:
    """Digest every file with kernels, in the packages beside this one (about 5 ms)."""
    digest, root = hashlib.blake2b(digest_size=16), Path(__file__).parent.parent
    for path in sorted(path for package in KERNEL_PACKAGES for path in (root / package).glob("*.py")):
        text = path.read_bytes()
        if b"streams.compiled import" in text or path == Path(__file__):
            digest.update(path.name.encode() + b"\0" + text)
    return digest.hexdigest()


_SOURCES = _sources_digest()


def _compile(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    compiled: Any = _jit(**_COMMON, **options)(function)
    index = compiled._cache._cache_file  # noqa: SLF001  # numba has no public way to say what makes a cache stale
    index._source_stamp = (index._source_stamp, _SOURCES)  # noqa: SLF001  # see above
    kernel: Callable[P, R] = compiled
    return kernel


def njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on its first call with each set of argument types (about 0.1 s from the disk cache)."""
    return _compile(function)


def bare(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that neither allocates nor gives arrays, without reference counting.

    A row-by-row kernel over dozens of arrays otherwise spends most of its time counting references to them.
    """
    return _compile(function, _nrt=False)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Let `bare` kernels take a function into themselves; called from Python it stays plain Python.

    A call that stays a call passes every array as seven words, which costs more than the few instructions it runs.
    """
    part: Callable[P, R] = _jitable(**_PART)(function)
    return part


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


def _copy_items(_typing: Any, target: Any, _at: Any, source: Any, _start: Any, _count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        views = [context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 2)]
        to, origin = (builder.gep(view, [arguments[n]]) for view, n in zip(views, (1, 3), strict=True))
        _raw_memcpy(builder, to, origin, arguments[4], target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return numba.types.void(target, numba.types.intp, source, numba.types.intp, numba.types.intp), generate


def _load(width: int) -> Any:
    def typed(_typing: Any, _address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(8 * width)
            place = builder.inttoptr(arguments[0], word.as_pointer())
            found = builder.load(place, align=1)
            return found if width == 8 else builder.zext(found, ir.IntType(64))

        return numba.types.int64(numba.types.int64), generate

    return typed


# load_8(address), load_32, load_64: inside kernels, read 1, 4 or 8 bytes of memory (little-endian) as an int64, aligned
# or not. The first two are never negative. The caller must know that the bytes are there.
load_8: Callable[[int], int] = _intrinsic(_load(1))
load_32: Callable[[int], int] = _intrinsic(_load(4))
load_64: Callable[[int], int] = _intrinsic(_load(8))

# prefetch(array, item): inside kernels, ask for the cache line of a contiguous array's item, counted over all axes.
prefetch: Callable[[npt.NDArray[Any], int], None] = _intrinsic(_prefetch)

# copy_items(target, at, source, start, count): inside kernels, copy items between contiguous arrays of one type,
# counted over all axes. Both have room for them, and they do not overlap.
copy_items: Callable[[npt.NDArray[Any], int, npt.NDArray[Any], int, int], None] = _intrinsic(_copy_items)
