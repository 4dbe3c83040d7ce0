"""Kernels that Python calls without numba's look at their arguments: in tests many calls are looked at all the same.

It is so from the import of this module on, for kernels that are imported later. A look takes 0.3 ms.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numba
from numba import types

from streams import compiled

typeof: Any = numba.typeof
FIRST_CALLS, EVERY = 20, 50


def checked(kernel: Any) -> Any:
    settled: list[Any] = []
    calls = count()

    def called(*arguments: Any) -> Any:
        call = next(calls)
        if not settled:
            result = kernel(*arguments)
            settled[:] = kernel.overloads.values()  # of two threads that come first, the second changes nothing
            return result
        (only,) = settled
        if call < FIRST_CALLS or call % EVERY == 0:
            for argument, kind in zip(arguments, only.signature.args, strict=True):
                found = typeof(argument)
                assert _fits(found, kind), f"{kernel.__name__} gets {found} where it was compiled for {kind}"
        return only.entry_point(*arguments)

    return called


def _fits(found: Any, wanted: Any) -> bool:
    """Whether a kernel that was compiled for one type may be given another: not to write where nobody may."""
    if isinstance(wanted, types.Array):
        is_same = (found.dtype, found.ndim, found.layout) == (wanted.dtype, wanted.ndim, wanted.layout)
        return is_same and (found.mutable or not wanted.mutable)
    if isinstance(wanted, types.BaseTuple):
        parts: Any = wanted
        return len(found) == len(parts) and all(_fits(one, part) for one, part in zip(found, parts, strict=True))
    if isinstance(wanted, types.Integer):
        return isinstance(found, types.Integer)
    return str(found) == str(wanted)


compiled.straight = checked
