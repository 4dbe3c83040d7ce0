"""Sums of products that a processor adds up in eight lanes at once, in the same order wherever they are compiled.

Compiled code may not change the order in which numbers are added, for that changes the last bits, so a plain loop over
a sum waits for one addition after the other. fast-math would let each processor choose its own order; here it is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # it ships no types
from numba.core import cgutils
from numba.extending import intrinsic

from streams.compiled import inlined

LANES = 8

Vector = npt.NDArray[np.float64]

_intrinsic: Any = intrinsic  # its types lose the arguments
_alloca: Any = cgutils.alloca_once_value  # it has no types


def _sum_of_blocks(_typing: Any, first: Any, second: Any, _blocks: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.DoubleType(), LANES)
        starts = [context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 1)]
        total = _alloca(builder, ir.Constant(lanes, [0.0] * LANES))
        with cgutils.for_range(builder, arguments[2]) as loop:
            at = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
            places = [builder.bitcast(builder.gep(start, [at]), lanes.as_pointer()) for start in starts]
            product = builder.fmul(*(builder.load(place, align=8) for place in places))
            builder.store(builder.fadd(builder.load(total), product), total)
        return _folded(builder, builder.load(total))

    return numba.types.float64(first, second, numba.types.int64), generate


def _folded(builder: Any, lanes: Any) -> Any:
    """Add eight lanes: each to the one four behind, then two, then one."""
    parts = [builder.extract_element(lanes, ir.Constant(ir.IntType(32), lane)) for lane in range(LANES)]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [builder.fadd(parts[lane], parts[lane + half]) for lane in range(half)]
    return parts[0]


_sum_blocks: Callable[[Vector, Vector, int], float] = _intrinsic(_sum_of_blocks)


@inlined
def dot(first: Vector, second: Vector) -> float:
    """Inside kernels, give the sum of products of two contiguous vectors of one length."""
    blocks = first.size // LANES
    total = _sum_blocks(first, second, blocks)
    for k in range(LANES * blocks, first.size):
        total += first[k] * second[k]
    return total
