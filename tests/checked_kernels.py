"""Kernels that Python calls without numba's look at their arguments: in tests each call is looked at all the same.

It is so from the import of this module on, for kernels that are imported later.
"""

from __future__ import annotations

from typing import Any

import numba
from numba import types

from streams import compiled

typeof: Any = numba.typeof


def checked(kernel: Any) -> Any:
    settled: list[Any] = []

    def called(*arguments: Any) -> Any:
        if not settled:
            result = kernel(*arguments)
            settled.extend(kernel.overloads.values())
            return result
        (only,) = settled
        for argument, kind in zip(arguments, only.signature.args, strict=True):
            found, wanted = _form(typeof(argument)), _form(kind)
            assert found == wanted, f"{kernel.__name__} gets {found} where it was compiled for {wanted}"
        return only.entry_point(*arguments)

    return called


def _form(kind: Any) -> Any:
    """What kernels depend on: not on whether an array may be written."""
    parts: Any = kind
    if isinstance(kind, types.Array):
        return kind.dtype, kind.ndim, kind.layout
    if isinstance(kind, types.BaseTuple):
        return [_form(part) for part in parts]
    return "integer" if isinstance(kind, types.Integer) else str(kind)


compiled.straight = checked
