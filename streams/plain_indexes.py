"""A pass of numba's compiler: an index that a kernel has computed counts from the front, always.

To NumPy -1 is the last item, so numba puts a comparison with 0 and a choice between two places before every look-up of
an array by a signed number. Kernels look up dozens of arrays a row and never count from the end but by a number that
is written out (`x[-1]` and `x[i, -1]` stay what they are): without those the row-by-row ones take a seventh less time.
Slices, and arrays of indexes, are as ever.

A computed index below 0 would read what lies before the array. Compiled with NUMBA_BOUNDSCHECK=1 it is an IndexError,
like one that is too large; give such kernels a NUMBA_CACHE_DIR of their own, or all are compiled anew afterwards.
"""

from __future__ import annotations

from typing import Any

from numba.core import ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.typed_passes import NoPythonSupportedFeatureValidation

_types: Any = types  # numba has hardly any of Python's
_register: Any = register_pass
_FunctionPass: Any = FunctionPass
_CompilerBase: Any = CompilerBase
_passes: Any = DefaultPassBuilder


@_register(mutates_CFG=False, analysis_only=False)
class PlainIndexes(_FunctionPass):  # type: ignore[misc]
    """Let arrays be looked up by unsigned numbers, of which numba knows that they are not below 0.

    Only the signatures of the look-ups change; numba casts what it is given to what they ask for.
    """

    _name = "plain_indexes"

    def __init__(self) -> None:  # the one it has is abstract
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        """Change the look-ups of one function; gives whether there were any."""
        changed = {}
        for node, signature in state.calltypes.items():
            if isinstance(node, ir.SetItem) or (isinstance(node, ir.Expr) and node.op == "getitem"):
                array, index, *value = signature.args
                plain = _plain(state.typemap[node.index.name], index)
                if isinstance(array, _types.Array) and plain != index:
                    changed[node] = signature.replace(args=(array, plain, *value))
        state.calltypes.update(changed)
        return bool(changed)


def _plain(found: Any, index: Any) -> Any:
    """Give the type by which to look up where numba would by `index`; `found` knows which numbers are written out."""
    if isinstance(index, _types.BaseTuple):
        return _types.Tuple([_plain(*parts) for parts in zip(found, index, strict=True)])
    is_computed = isinstance(index, _types.Integer) and not isinstance(found, _types.Literal)
    return _types.uintp if is_computed else index


class KernelCompiler(_CompilerBase):  # type: ignore[misc]
    """numba's compiler with the pass above before its code generator."""

    def define_pipelines(self) -> list[Any]:
        """Give the one way in which kernels are compiled."""
        pipeline = _passes.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(PlainIndexes, NoPythonSupportedFeatureValidation)  # when types are settled
        pipeline.finalize()
        return [pipeline]
