"""What kernels do with machine words that numba has no name for: memory by address, C functions, bits, cache lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]  # it ships no types
from numba.core import cgutils
from numba.extending import intrinsic

_intrinsic: Any = intrinsic  # its types lose the arguments
_raw_memcpy: Any = cgutils.raw_memcpy  # it has no types


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


def _load(width: int) -> Any:
    def typed(_typing: Any, _address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(8 * width)
            place = builder.inttoptr(arguments[0], word.as_pointer())
            found = builder.load(place, align=1)
            return found if width == 8 else builder.zext(found, ir.IntType(64))

        return numba.types.int64(numba.types.int64), generate

    return typed


def _store(width: int) -> Any:
    def typed(_typing: Any, _address: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(8 * width)
            place = builder.inttoptr(arguments[0], word.as_pointer())
            builder.store(arguments[1] if width == 8 else builder.trunc(arguments[1], word), place, align=1)
            return context.get_dummy_value()

        return numba.types.void(numba.types.int64, numba.types.int64), generate

    return typed


def _round_to_odd(_typing: Any, _high: Any, _low: Any, _factor: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide, narrow = ir.IntType(128), ir.IntType(64)
        high, low, factor = (builder.zext(argument, wide) for argument in arguments)
        carried = builder.lshr(builder.mul(low, factor), wide(64))
        product = builder.add(builder.mul(high, factor), carried)
        is_inexact = builder.icmp_unsigned(">", builder.trunc(product, narrow), narrow(1))
        return builder.or_(builder.trunc(builder.lshr(product, wide(64)), narrow), builder.zext(is_inexact, narrow))

    word = numba.types.int64
    return word(word, word, word), generate


def _float_bits(_typing: Any, _number: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return numba.types.int64(numba.types.float64), generate


def _bits_float(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return numba.types.float64(numba.types.int64), generate


def _trailing_zeros(_typing: Any, _word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return numba.types.int64(numba.types.int64), generate


# load_8(address), load_32, load_64: inside kernels, read 1, 4 or 8 bytes of memory (little-endian) as an int64, aligned
# or not. The first two are never negative. The caller must know that the bytes are there.
load_8: Callable[[int], int] = _intrinsic(_load(1))
load_32: Callable[[int], int] = _intrinsic(_load(4))
load_64: Callable[[int], int] = _intrinsic(_load(8))

# store_8(address, value), store_32, store_64: inside kernels, write the lowest 1, 4 or 8 bytes of an int64 to memory.
store_8: Callable[[int, int], None] = _intrinsic(_store(1))
store_32: Callable[[int, int], None] = _intrinsic(_store(4))
store_64: Callable[[int, int], None] = _intrinsic(_store(8))


def _call(arguments: int) -> Any:
    word = numba.types.int64

    def typed(_typing: Any, _function: Any, *_arguments: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)] * arguments)
            return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

        return word(*[word] * (arguments + 1)), generate

    def one(_typing: Any, _function: Any, _first: Any) -> Any:
        return typed(_typing, _function, _first)

    def two(_typing: Any, _function: Any, _first: Any, _second: Any) -> Any:
        return typed(_typing, _function, _first, _second)

    return (one, two)[arguments - 1]


# call_1(function, a), call_2(function, a, b): inside kernels, call a C function by its address; arguments and result
# are 64-bit words. The address is an argument of the kernel: compiled in, it would be wrong in the next process.
call_1: Callable[[int, int], int] = _intrinsic(_call(1))
call_2: Callable[[int, int, int], int] = _intrinsic(_call(2))
# round_to_odd(high, low, factor): inside kernels, the upper 64 of the 192 bits of an unsigned 128-bit number times a
# factor; its last bit is set too when the bits below say that the result is not exact (Schubfach's rounding).
round_to_odd: Callable[[int, int, int], int] = _intrinsic(_round_to_odd)
# float_bits(x): inside kernels, the bits of a float64 as an int64.
float_bits: Callable[[float], int] = _intrinsic(_float_bits)
# bits_float(bits): inside kernels, the float64 whose bits an int64 has.
bits_float: Callable[[int], float] = _intrinsic(_bits_float)
# trailing_zeros(word): inside kernels, how many zero bits an int64 ends in; 64 of 0.
trailing_zeros: Callable[[int], int] = _intrinsic(_trailing_zeros)


def _copy_items(_typing: Any, target: Any, _at: Any, source: Any, _start: Any, _count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        views = [context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 2)]
        to, origin = (builder.gep(view, [arguments[n]]) for view, n in zip(views, (1, 3), strict=True))
        _raw_memcpy(builder, to, origin, arguments[4], target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return numba.types.void(target, numba.types.intp, source, numba.types.intp, numba.types.intp), generate


# copy_items(target, at, source, start, count): inside kernels, copy items between contiguous arrays of one type,
# counted over all axes. Both have room for them, and they do not overlap.
copy_items: Callable[[npt.NDArray[Any], int, npt.NDArray[Any], int, int], None] = _intrinsic(_copy_items)


def _copy_bytes(_typing: Any, _to: Any, _origin: Any, _size: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        to, origin = (builder.inttoptr(argument, cgutils.voidptr_t) for argument in arguments[:2])
        _raw_memcpy(builder, to, origin, arguments[2], 1)
        return context.get_dummy_value()

    word = numba.types.int64
    return numba.types.void(word, word, word), generate


# copy_bytes(to, origin, size): inside kernels, copy memory by address. The pieces do not overlap.
copy_bytes: Callable[[int, int, int], None] = _intrinsic(_copy_bytes)

# prefetch(array, item): inside kernels, ask for the cache line of a contiguous array's item, counted over all axes.
prefetch: Callable[[npt.NDArray[Any], int], None] = _intrinsic(_prefetch)
