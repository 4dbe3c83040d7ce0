"""What a condition does, step by step, on a stack of columns: every step takes the topmost values and gives one.

A value is a column [B] or, where only literals meet, a scalar. NaN is a missing value, and every comparison with it
is false, also `!=` and `not in`: so nothing is ever learned from a value that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Literals = tuple[float | str, ...]


class Step(NamedTuple):
    """An operator: `apply` takes the topmost `takes` values of the stack."""

    takes: int
    apply: Callable[..., Any]


Steps = tuple[str | float | Step, ...]  # a text reads the field of that name, a number or truth value stands for itself


def run(steps: Iterable[str | float | Step], values: Mapping[str, npt.NDArray[np.float64]]) -> Any:
    """Take all steps and give the one value they leave; about a microsecond a step besides the rows."""
    stack: list[Any] = []
    with np.errstate(
        all="ignore"
    ):  # dividing by zero gives inf or NaN, and a pipeline's log is not the place to say so
        for step in steps:
            if isinstance(step, Step):
                base = len(stack) - step.takes
                stack[base:] = [step.apply(*stack[base:])]
            else:
                stack.append(values[step] if isinstance(step, str) else step)
    (result,) = stack
    return result


def differ(left: Any, right: Any) -> Any:
    """Whether both are there and not equal; numpy's `!=` holds for NaN."""
    return np.less(left, right) | np.greater(left, right)


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": differ,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
CALCULATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
JUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {"and": np.logical_and, "or": np.logical_or}


def chained(signs: tuple[str, ...], *operands: Any) -> Any:
    """Whether each operand compares with the next as its sign says: `0 < a <= b`."""
    holds: Any = True
    for sign, (left, right) in zip(signs, pairwise(operands), strict=True):
        holds = np.logical_and(holds, COMPARISONS[sign](left, right))
    return holds


def is_true(value: Any) -> Any:
    """Whether a boolean field is there and true."""
    return np.equal(value, 1.0)


def is_there(value: Any) -> Any:
    """Whether a value is not missing."""
    return np.equal(value, value)


def is_among(literals: Literals, value: Any) -> Any:
    """Whether a value is one of the literals; log2 of their number a row."""
    sought = _sorted(literals)
    return np.equal(sought.take(np.searchsorted(sought, value), mode="clip"), value)


def is_not_among(literals: Literals, value: Any) -> Any:
    """Whether a value is there and none of the literals."""
    return np.logical_and(is_there(value), np.logical_not(is_among(literals, value)))


@cache
def code_of(text: str) -> float:
    """Give the code by which a category field of this text is known."""
    # Imported here, so that who only reads a pipeline file starts without a compiler.
    from streams.hashing import CATEGORY_SEED, CATEGORY_SHIFT, hash_bytes

    return float(hash_bytes(text.encode(), CATEGORY_SEED) >> CATEGORY_SHIFT)


@cache
def _sorted(literals: Literals) -> npt.NDArray[np.float64]:
    codes = [code_of(literal) if isinstance(literal, str) else float(literal) for literal in literals]
    return np.sort(np.array(codes))
