"""The door to numba: one decorator for every compiled kernel.

Kernels are cached on disk and never use fast-math, so that a replay gives the same bits in every process. numba looks
only at a kernel's own file to see whether its cache is stale, but kernels contain the kernels they call: here a cache
is stale as soon as any file with kernels has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.extending import register_jitable

from streams.plain_indexes import KernelCompiler

KERNEL_PACKAGES = ("streams", "models", "serving")

P = ParamSpec("P")
R = TypeVar("R")

_jit: Any = numba.njit  # its types leave out the options that only some targets know
_jitable: Any = register_jitable
_config: Any = numba.config
_EVERY = {"error_model": "numpy", "pipeline_class": KernelCompiler}
_COMMON = {**_EVERY, "cache": True, "nogil": True}
_PART = {**_EVERY, "_nrt": False, "forceinline": True, "no_cfunc_wrapper": True}


def _sources_digest() -> str:
    """Digest every file with kernels or parts of their compiler, in the packages beside this one (about 5 ms)."""
    digest, root = hashlib.blake2b(digest_size=16), Path(__file__).parent.parent
    for path in sorted(path for package in KERNEL_PACKAGES for path in (root / package).glob("*.py")):
        text = path.read_bytes()
        if any(used in text for used in (b"streams.compiled import", b"import numba", b"from numba")):
            digest.update(path.name.encode() + b"\0" + text)
    return digest.hexdigest()


_SOURCES = _sources_digest()
_BOUNDS: Any = _config.BOUNDSCHECK  # whether NUMBA_BOUNDSCHECK lets kernels look at bounds


def _compile(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    compiled: Any = _jit(**_COMMON, **options)(function)
    index = compiled._cache._cache_file  # noqa: SLF001  # numba has no public way to say what makes a cache stale
    index._source_stamp = (index._source_stamp, _SOURCES, _BOUNDS)  # noqa: SLF001  # see above
    index._load_index = _unless_foreign(index._load_index)  # noqa: SLF001
    kernel: Callable[P, R] = compiled
    return kernel


def _unless_foreign(load: Callable[[], dict[Any, Any]]) -> Callable[[], dict[Any, Any]]:
    """Let a cache that names types which this release no longer has be as good as none."""

    def guarded() -> dict[Any, Any]:
        try:
            return load()
        except (AttributeError, ImportError):
            return {}

    return guarded


def njit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on its first call with each set of argument types (about 0.1 s from the disk cache)."""
    return _compile(function)


def bare(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that neither allocates nor gives arrays, without reference counting.

    A row-by-row kernel over dozens of arrays otherwise spends most of its time counting references to them.
    """
    return _compile(function, _nrt=False)


def straight(kernel: Callable[P, R]) -> Callable[P, R]:
    """Let Python call a kernel, which always gets the same types, without numba's look at each argument.

    That look takes longer than a few rows over dozens of arrays. The first call settles the types; nobody checks those
    of later calls, so this is for kernels whose arguments are all made in one place. Kernels cannot call what it gives.
    """
    compiled: Any = kernel
    entry: Any = None

    def called(*arguments: Any) -> Any:
        nonlocal entry
        if entry is not None:
            return entry(*arguments)
        result = compiled(*arguments)
        (only,) = compiled.overloads.values()
        entry = only.entry_point
        return result

    return cast("Callable[P, R]", called)


_types: Any = numba.types
NOTHING, WORD, ADDRESS_OF_WORDS = _types.void, _types.int64, _types.CPointer(_types.int64)


def callback(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that C code may call from any thread, without Python; `.address` is what C is given."""
    compiled: Callable[[Callable[..., Any]], Any] = numba.cfunc(signature, cache=True)
    return compiled


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Let `bare` kernels take a function into themselves; called from Python it stays plain Python.

    A call that stays a call passes every array as seven words, which costs more than the few instructions it runs.
    """
    part: Callable[P, R] = _jitable(**_PART)(function)
    return part
