"""Asking a model for rows so that an answer's bits do not depend on the rows that it is asked with.

A matrix product of one row and one of 500 rows run through different kernels of a library, which add up in different
orders: the same row then gets another last bit. So rows are asked for in blocks of a few fixed sizes, filled up where
rows are too few, and a size is used only where it is found to give what the smallest one gives, wherever in the block
the row stands. Which orders a library takes depends on sizes, never on values, so made-up rows find that out.

Letters of shapes: B rows of a call, R rows of a block, S numbers of an answer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from models.learner import Matrix

Rows = tuple[npt.NDArray[np.generic], ...]  # arrays of equal length: what the model is given of each row
Ask = Callable[[Rows], Matrix]


def ask_in_blocks(ask: Ask, rows: Rows, sizes: tuple[int, ...]) -> Matrix:
    """Give the answers for all rows, [B, S], asking for as many as one of the sizes at a time.

    Args:
        ask: gives the answers for the rows of a block, [R, S].
        rows: at least one.
        sizes: ascending; the first is filled up with copies of the last row.

    Example:
        >>> ask_in_blocks(lambda rows: np.full((len(rows[0]), 1), 1.0 * len(rows[0])), (np.arange(7.0),), (2, 4)).T
        array([[4., 4., 4., 4., 2., 2., 2.]])
    """
    count, start = len(rows[0]), 0
    answer_BS: Matrix | None = None
    while start < count:
        size = max((one for one in sizes if one <= count - start), default=sizes[0])
        block = _part(rows, start, start + size)
        if (missing := size - len(block[0])) > 0:
            block = tuple(np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in block)
        answer_RS = ask(block)
        if answer_BS is None:
            answer_BS = np.empty((count, answer_RS.shape[1]))
        answer_BS[start : start + size] = answer_RS[: size - missing]
        start += size
    return np.empty((0, 0)) if answer_BS is None else answer_BS


def trusted_sizes(ask: Ask, probe: Rows, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Give those sizes whose blocks answer bit for bit as the smallest does, rows moved within the block or not.

    Args:
        ask: as of `ask_in_blocks`.
        probe: at least as many rows as the largest size has, each different from the others.
        sizes: ascending. The first is kept in any case.
    """
    return (sizes[0], *(size for size in sizes[1:] if _answers_equal(ask, probe, size, sizes[0])))


def _answers_equal(ask: Ask, probe: Rows, size: int, smallest: int) -> bool:
    """Compare rows at both ends and in the middle with the smallest block's answers, and all rows with themselves."""
    wanted = ask(_part(probe, 0, size))
    for start in (0, (size - smallest) // 2, size - smallest):
        if not np.array_equal(ask(_part(probe, start, start + smallest)), wanted[start : start + smallest]):
            return False
    for moved in (1, size // 2 + 1):
        block = tuple(np.roll(array, moved, axis=0) for array in _part(probe, 0, size))
        if not np.array_equal(ask(block), np.roll(wanted, moved, axis=0)):
            return False
    return True


def _part(rows: Rows, start: int, stop: int) -> Rows:
    return tuple(array[start:stop] for array in rows)
