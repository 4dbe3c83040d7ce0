"""Comparing rows of features column by column, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streams.frames import Column
from streams.tables import Table

Int64s = npt.NDArray[np.int64]
Value = float | int | str | None


class Difference(msgspec.Struct, frozen=True):
    """One value that was served and comes out otherwise; a vector's missing value is NaN (null in JSON)."""

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


def compare(served: Table, recomputed: Table, columns: Sequence[Column]) -> Iterator[Unlike]:
    """Yield the columns of P.features in which two tables of as many rows differ: NaN is equal to NaN, 0 not to -0."""
    arrow, again = served.to_arrow(), recomputed.to_arrow()
    for name in ("id", "key"):
        mine, other = arrow.column(name), again.column(name)
        if not mine.equals(other):
            yield Unlike(name, _unlike_texts(mine, other), mine.to_pylist(), other.to_pylist())
    for name in ("time", "produced"):
        yield from _unlike_numbers(name, served.numbers(name), recomputed.numbers(name))
    vectors_BF, again_BF = served.matrix(), recomputed.matrix()
    is_unlike_BF = (vectors_BF.view(np.uint64) != again_BF.view(np.uint64)) & ~(
        np.isnan(vectors_BF) & np.isnan(again_BF)
    )
    for place in np.flatnonzero(is_unlike_BF.any(axis=0)).tolist():
        rows = np.flatnonzero(is_unlike_BF[:, place])
        yield Unlike(columns[place].name, rows, vectors_BF[:, place], again_BF[:, place])


def _unlike_numbers(name: str, mine: Int64s, other: Int64s) -> Iterator[Unlike]:
    rows = np.flatnonzero(mine != other)
    if rows.size:
        yield Unlike(name, rows, mine, other)


def _unlike_texts(mine: pa.Array, other: pa.Array) -> Int64s:
    is_equal = pc.if_else(pc.and_(mine.is_null(), other.is_null()), True, pc.equal(mine, other))
    return np.flatnonzero(~is_equal.fill_null(False).to_numpy(zero_copy_only=False))
