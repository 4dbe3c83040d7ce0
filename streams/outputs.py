"""Rows on their way out: columns of P.examples or of a topic between stages, filled by kernels in one block."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined, straight
from streams.frames import EVENT
from streams.inputs import Input, is_there_kernel
from streams.intrinsics import copy_items
from streams.layouts import Layout, Memory, own_memory
from streams.message_kernels import DATA, ITEMS, VALID
from streams.tables import Table


class Output(NamedTuple):
    """Room for B rows with F features. `cause` is the input row that made a row."""

    kind: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    time: npt.NDArray[np.int64]
    produced: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    cause: npt.NDArray[np.int64]
    delay: npt.NDArray[np.int64]  # label time - event time of joined labels (us)
    label: npt.NDArray[np.float64]
    vectors_BF: npt.NDArray[np.float64]
    id_offsets: npt.NDArray[np.int32]
    id_data: npt.NDArray[np.uint8]
    key_offsets: npt.NDArray[np.int32]
    key_data: npt.NDArray[np.uint8]
    key_valid: npt.NDArray[np.uint8]  # one byte a row
    others: npt.NDArray[np.int64]  # [B, E] hashes of the entities of later stages
    sizes: npt.NDArray[np.int64]  # [rows, rows without a key, joined labels]


ROWS, KEYLESS, DELAYS = 0, 1, 2


class Room:
    """Memory for rows, laid out as in a table; what is not used of it is never touched.

    Args:
        layout: of P.examples, or of a topic between stages.
        rows: at most so many.
        id_bytes, key_bytes: of all ids and of all keys, at most.
        entities: how many later stages have one.
        memory: gives the block.

    Attributes:
        output: the columns, for kernels to fill.
    """

    def __init__(
        self,
        layout: Layout,
        rows: int,
        id_bytes: int,
        key_bytes: int,
        entities: int = 0,
        memory: Memory = own_memory,
    ) -> None:
        sizes, nulls = layout.zeros(), layout.zeros()
        sizes[layout.places["id"]], sizes[layout.places["key"]] = id_bytes, key_bytes
        nulls[layout.places["key"]] = 1
        self._layout, self._rows = layout, rows
        # Behind the columns lies another of sequences: the event rows have their own in P.features.
        self._block, self._places, self._second = layout.blank(rows, sizes, nulls, 8 * rows, memory)
        self._starts: list[int] = self._places[:, ITEMS].tolist()
        id_at, key_at = (self._places[layout.places[name], DATA] for name in ("id", "key"))
        self.output = Output(
            self.column("kind"),
            self.column("outcome"),
            self.column("time"),
            self.column("produced"),
            self.column("number"),
            np.empty(rows, np.int64),
            np.empty(rows, np.int64),
            self.column("label"),
            self.column("vector").reshape(rows, layout.features),
            self.column("id"),
            self._block[id_at : id_at + id_bytes],
            self.column("key"),
            self._block[key_at : key_at + key_bytes],
            np.empty(rows, np.uint8),
            np.empty((rows, entities), np.int64),
            np.zeros(3, np.int64),
        )
        self.output.id_offsets[0] = self.output.key_offsets[0] = 0

    def column(self, name: str) -> npt.NDArray[Any]:
        """View the room of a column, of text its offsets."""
        column = self._layout.places[name]
        at, dtype = self._starts[column], self._layout.dtypes[column]
        if dtype is None:
            return np.ndarray(self._rows + 1, np.int32, self._block, at)
        return np.ndarray(self._rows * self._layout.widths.item(column) // dtype.itemsize, dtype, self._block, at)

    def table(self, source: int) -> Table:
        """Give the rows so far. The caller numbers them, all of them: until then their sequences are arbitrary."""
        rows = int(self.output.sizes[ROWS])
        self.column("source")[:rows] = source
        key = self._layout.places["key"]
        if self.output.sizes[KEYLESS]:
            bitmap = np.packbits(self.output.key_valid[:rows], bitorder="little")
            at = int(self._places[key, VALID])
            self._block[at : at + bitmap.size] = bitmap
        else:
            self._places[key, VALID] = -1
        return Table(self._layout, self._block, self._places, 0, rows)

    def features(
        self, layout: Layout, columns: npt.NDArray[np.int64], examples: Table, next_feature: int, next_example: int
    ) -> tuple[Table, npt.NDArray[np.int64]]:
        """Number the rows; gives the same ones as P.features has them, and which are events: only these may go there.

        Args:
            layout: of P.features.
            columns: the number here of each column of that.
            examples: the rows so far.
            next_feature: the first event's sequence in P.features.
            next_example: the first row's in P.examples.
        """
        sequences: npt.NDArray[np.int64] = np.ndarray(self._rows, np.int64, self._block, self._second)
        events, kind = np.empty(examples.num_rows, np.int64), self.output.kind
        found = number_rows_kernel(kind, next_feature, next_example, sequences, self.column("sequence"), events)
        places = self._places[columns]
        places[layout.places["sequence"], ITEMS] = self._second
        return Table(layout, self._block, places, 0, examples.num_rows), events[:found]


@straight
@bare
def number_rows_kernel(
    kind: npt.NDArray[np.int8],
    next_feature: int,
    next_example: int,
    feature_sequences: npt.NDArray[np.int64],
    example_sequences: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
) -> int:
    """Number the first `events.size` rows, event rows for P.features too; gives how many these are and their places."""
    found = 0
    for row in range(events.size):
        example_sequences[row] = next_example + row
        if kind[row] == EVENT:
            feature_sequences[row] = next_feature + found
            events[found] = row
            found += 1
    return found


@inlined
def emit_kernel(
    output: Output, kind: int, outcome: int, cause: int, time_us: int, produced_us: int, number: int, label: float
) -> int:
    """Begin a row and give its place; its texts and vector follow."""
    at: int = output.sizes[ROWS]
    output.sizes[ROWS] = at + 1
    output.kind[at] = kind
    output.outcome[at] = outcome
    output.cause[at] = cause
    output.time[at] = time_us
    output.produced[at] = produced_us
    output.number[at] = number
    output.label[at] = label
    return at


@inlined
def emit_text_kernel(
    offsets: npt.NDArray[np.int32],
    data: npt.NDArray[np.uint8],
    at: int,
    source: npt.NDArray[np.uint8],
    start: int,
    size: int,
) -> None:
    """Write the text of row `at`, the last row so far."""
    end = offsets[at]
    copy_items(data, end, source, start, size)
    offsets[at + 1] = end + size


@inlined
def copy_row_kernel(target_BF: npt.NDArray[np.float64], at: int, source_BF: npt.NDArray[np.float64], row: int) -> None:
    """Copy one row of a matrix to a row of another as wide."""
    columns = target_BF.shape[1]
    copy_items(target_BF, at * columns, source_BF, row * columns, columns)


@inlined
def fill_row_kernel(vectors_BF: npt.NDArray[np.float64], at: int, value: float) -> None:
    """Write one value into a whole row of a matrix."""
    for column in range(vectors_BF.shape[1]):
        vectors_BF[at, column] = value


@inlined
def emit_names_kernel(rows: Input, row: int, output: Output, at: int) -> None:
    """Write an input row's id and key to an output row."""
    start = rows.id.offsets[row]
    emit_text_kernel(output.id_offsets, output.id_data, at, rows.id.data, start, rows.id.offsets[row + 1] - start)
    size = 0
    start = rows.key.offsets[row]
    if is_there_kernel(rows.key.valid, row):
        size = rows.key.offsets[row + 1] - start
        output.key_valid[at] = 1
    else:
        output.key_valid[at] = 0
        output.sizes[KEYLESS] += 1
    emit_text_kernel(output.key_offsets, output.key_data, at, rows.key.data, start, size)
