"""How rows lie in a block of memory: what is known of a schema's columns before there are any rows (see tables.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.memory import HeapBytes
from streams.message_kernels import PARTS, place_kernel
from streams.messages import MessageForm, message_form

TEXT = -1
"""The width of a column of text."""
SLACK = 8  # bytes

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Memory = Callable[[int], Bytes]

NOTHING = NO_BITMAP = np.frombuffer(b"", np.uint8)


def own_memory(size: int) -> Bytes:
    """Give bytes of an array that nobody else will own."""
    return np.empty(size, np.uint8)


def heap_memory(size: int) -> Bytes:
    """Give bytes that can be given away, see `streams.memory.HeapBytes`."""
    return np.asarray(HeapBytes(size))


class ReusedMemory:
    """Memory for one block after another, the same one whenever nobody looks at the last any more.

    Fresh memory costs a page fault for every 4 KiB, the more so where the C heap gives back what was freed. A block
    that was far too large LONG times in a row is let go of.
    """

    def __init__(self) -> None:
        self._last = NOTHING
        self._oversized = 0  # so many times in a row

    def __call__(self, size: int) -> Bytes:
        """Give so many bytes."""
        self._oversized = self._oversized + 1 if self._last.size > max(_SMALL, 4 * size) else 0
        if self._oversized > LONG or size > self._last.size or sys.getrefcount(self._last) > _UNUSED:
            self._last, self._oversized = NOTHING, 0  # before there are two blocks
            self._last = own_memory(size + size // 4)
        return self._last[:size]


LONG = 200
_SMALL = 1 << 20  # bytes
_UNUSED = 2  # references to an array that has no views: its owner's, and that of `sys.getrefcount`


class Text(NamedTuple):
    """A column of text as views: `data[offsets[i]:offsets[i+1]]`; `valid` is a bitmap, empty without nulls."""

    offsets: npt.NDArray[np.int32]
    data: Bytes
    valid: Bytes


class TextAt(NamedTuple):
    """A column of text as addresses, for kernels that copy text; valid as long as its table lives."""

    offsets: int
    data: int
    valid: int  # of the bitmap, 0 without nulls
    start: int  # row i is bit `start + i` of the bitmap


class Layout:
    """How the rows of an Arrow schema lie in a block: what is known of its columns before there are any rows.

    Attributes:
        arrow: the schema; columns are numbers, text, or one fixed-size list of float64 (the feature matrix).
        names: of the columns, in order.
        places: the number of each column.
        widths: [C] bytes of a row in each column, TEXT for text.
        texts: the numbers of the columns of text.
        dtypes: [C] of the numbers in each column, None for text.
        matrix: the number of the feature matrix, -1 where there is none.
        features: the width F of the matrix.
        columns: the number C of columns.
        form: what the metadata of all messages have in common.
    """

    def __init__(self, arrow: pa.Schema) -> None:
        self.arrow = arrow
        self.names = tuple(arrow.names)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.widths = np.array([_width(field.type) for field in arrow], np.int64)
        self.texts: Int64s = np.flatnonzero(self.widths == TEXT)
        self.dtypes = [_dtype(field.type) for field in arrow]
        is_matrix = [pa.types.is_fixed_size_list(field.type) for field in arrow]
        self.matrix = is_matrix.index(True) if any(is_matrix) else -1
        self.form: MessageForm = message_form(arrow)
        self.columns = self.widths.size
        self.features = int(self.widths[self.matrix]) // 8 if self.matrix >= 0 else 0

    def __eq__(self, other: object) -> bool:
        """Equal schemas lie in the same way."""
        return isinstance(other, Layout) and bool(self.arrow.equals(other.arrow))

    def __hash__(self) -> int:
        """As their names."""
        return hash(self.names)

    def zeros(self) -> Int64s:
        """Room for a number per column."""
        return np.zeros(self.columns, np.int64)

    def blank(
        self, rows: int, sizes: Int64s, nulls: Int64s, spare: int = SLACK, memory: Memory = own_memory
    ) -> tuple[Bytes, Int64s, int]:
        """Make a block for `rows` rows, with `sizes` bytes of text in each column and a bitmap where `nulls` is not 0.

        `spare` bytes follow the message, so that a column is never without memory. `memory` gives so many bytes.

        Returns:
            The block, whose contents are arbitrary; where its columns begin: [C, 3] bitmap, items or offsets, text, -1
            where there is none; and the length of the message.
        """
        places = np.empty((self.columns, PARTS), np.int64)
        length = place_kernel(self.widths, rows, sizes, nulls, self.form.head.size, places)
        return memory(length + max(spare, SLACK)), places, length


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return 8 * int(kind.list_size)
    return TEXT if kind == pa.string() else int(kind.bit_width) // 8


def _dtype(kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return np.dtype(np.float64)
    return None if kind == pa.string() else np.dtype(kind.to_pandas_dtype())
