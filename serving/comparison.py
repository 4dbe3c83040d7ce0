"""Comparing rows of features column by column, bit for bit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streams.frames import Column
from streams.layouts import TEXT
from streams.tables import Table

Int64s = npt.NDArray[np.int64]
Value = float | int | str | None


class Difference(msgspec.Struct, frozen=True):
    """One value that was written and comes out otherwise; a missing number is NaN (null in JSON)."""

    stage: int
    partition: int
    number: int
    id: str | None
    column: str
    served: Value
    recomputed: Value


class Unlike(NamedTuple):
    """The rows in which a column differs, and the column on both sides."""

    column: str
    row_B: Int64s
    served: Sequence[Value] | npt.NDArray[np.generic]
    recomputed: Sequence[Value] | npt.NDArray[np.generic]


def compare(
    served: Table, recomputed: Table, columns: Sequence[Column], leaving_out: Collection[str]
) -> Iterator[Unlike]:
    """Yield the columns in which two tables of one topic and of as many rows differ.

    Numbers are compared bit for bit, but for NaN, which is equal to NaN. `columns` name the matrix.
    """
    arrow, again, layout = served.to_arrow(), recomputed.to_arrow(), served.layout
    names = [name for name in layout.names if name not in leaving_out]
    for name in (name for name in names if layout.widths[layout.places[name]] == TEXT):
        mine, other = arrow.column(name), again.column(name)
        if not mine.equals(other):
            yield Unlike(name, _unlike_texts(mine, other), mine.to_pylist(), other.to_pylist())
    for name in names:
        place = layout.places[name]
        if layout.widths[place] != TEXT and place != layout.matrix:
            yield from _unlike_numbers(name, served.numbers(name), recomputed.numbers(name))
    vectors_BF, again_BF = served.matrix(), recomputed.matrix()
    is_unlike_BF = _is_unlike(vectors_BF, again_BF)
    for place in np.flatnonzero(is_unlike_BF.any(axis=0)).tolist():
        rows = np.flatnonzero(is_unlike_BF[:, place])
        yield Unlike(columns[place].name, rows, vectors_BF[:, place], again_BF[:, place])


def _unlike_numbers(name: str, mine: npt.NDArray[Any], other: npt.NDArray[Any]) -> Iterator[Unlike]:
    rows = np.flatnonzero(_is_unlike(mine, other) if mine.dtype == np.float64 else mine != other)
    if rows.size:
        yield Unlike(name, rows, mine, other)


def _is_unlike(mine: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    differs: npt.NDArray[np.bool_] = mine.view(np.uint64) != other.view(np.uint64)
    return differs & ~(np.isnan(mine) & np.isnan(other))


def _unlike_texts(mine: pa.Array, other: pa.Array) -> Int64s:
    is_equal = pc.if_else(pc.and_(mine.is_null(), other.is_null()), True, pc.equal(mine, other))
    return np.flatnonzero(~is_equal.fill_null(False).to_numpy(zero_copy_only=False))
