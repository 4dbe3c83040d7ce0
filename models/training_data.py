"""Examples from the archive, as matrices: one for each event, with the newest label that was known.

The archive has a row for each label row of P.examples. That of a set or missing label brings the event's features; a
later one of the same event amends its label or takes it back; one that settles it again is passed over. One whose
event's time is forgotten is no example, for it is in no part of a split. What is read is a pure function of the
archive's rows, so two trainings of the same rows and times see the same matrix.

Examples of more than `most_bytes` lie in a file without a name, filled table by table, so that one table of the archive
at a time is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.examples import Examples, Indexes, Matrix, Times, Vector
from models.split_figures import split_figures
from models.time_split import Span, Split, split_by_time
from streams.archive import read_rows
from streams.archive_file import archive_names
from streams.errors import TrainingError
from streams.frames import Column
from streams.pipeline import Task
from streams.scratch import Scratch, let_go
from streams.settlements import Settlements
from streams.state_folder import Place

__all__ = ["Examples", "Span", "Split", "examples_of", "read_examples", "split_by_time", "split_figures"]

MOST_BYTES = 2 << 30  # of a matrix in memory; a larger one lies in a file
FIRST_ROWS = 65_536  # there is room for at the beginning
GROWTH = 1.5  # of the room when it is full
_COPIED_ROWS = 65_536  # at a time
_CACHED_ROWS = 1_024  # of 16 columns: 128 KiB


def read_examples(
    state: Place,
    columns: tuple[Column, ...],
    task: Task,
    from_us: int | None,
    to_us: int | None,
    known_us: int | None,
    scratch: Path,
    most_bytes: int = MOST_BYTES,
    to_row: int | None = None,
) -> Examples:
    """Read the examples of events in [from_us, to_us) from the archive below `state`; None: all that there are.

    A feature that the archive does not have is NaN, one that `columns` do not name is passed over. Retracted labels are
    left out and, where the task needs labels, so are events without one.

    Args:
        state: of the pipeline.
        columns: of the matrix.
        task: whose labels they are.
        from_us: event time of the first.
        to_us: event time that is not reached.
        known_us: only labels that were known by then, None: all.
        scratch: a directory for a matrix that is large.
        most_bytes: what a matrix in memory takes at most.
        to_row: row of the archive that is not reached, None: all there are now. With it a reading can be repeated.

    Raises:
        ArchiveError: a file of the archive is damaged or missing.
        TrainingError: a label is no class of the task.
        UnavailableError: there is no room for the matrix.
    """
    tables = read_rows(state, from_us, to_us, known_us, columns, to_row)
    return examples_of(tables, columns, task, Scratch(scratch, most_bytes))


def examples_of(tables: Iterable[pa.Table], columns: tuple[Column, ...], task: Task, scratch: Scratch) -> Examples:
    """Turn rows of the archive, in its order, into examples. Raises as `read_examples`."""
    gathered, corrections, settlements = _Gathered(len(columns), scratch), _Corrections(), Settlements()
    for table in tables:
        outcome = table.column("outcome").combine_chunks().cast(pa.string())
        is_first = pc.is_in(outcome, pa.array(["set", "missing"]))
        is_placed = pc.and_(is_first, pc.is_valid(table.column("time").combine_chunks()))
        corrections.add(table.filter(pc.invert(is_first)), task)
        placed = table if pc.all(is_placed).as_py() is not False else table.filter(is_placed)
        gathered.add(settlements.once(placed), columns, task)
        del table, placed  # before the next one is read
    return gathered.examples(corrections, task)


class _Gathered:
    """Rows with features, in arrays that grow."""

    def __init__(self, features: int, scratch: Scratch) -> None:
        self._scratch, self._rows = scratch, 0
        self._X_BF: Matrix = scratch.zeros((FIRST_ROWS, features), np.float64)
        self._y_B: Vector = np.empty(FIRST_ROWS)
        self._ints_4B = np.empty((4, FIRST_ROWS), np.int64)  # times of event and label, source, number

    def add(self, table: pa.Table, columns: tuple[Column, ...], task: Task) -> None:
        """Put rows behind those that are there."""
        start, stop = self._rows, self._rows + table.num_rows
        if stop > len(self._X_BF):
            self._grow(stop)
        part = self._X_BF[start:stop]
        _fill(part, [_numbers(table, name) if name in table.column_names else None for name in archive_names(columns)])
        self._y_B[start:stop] = _labels(table, task)
        for place, name in enumerate(("time", "label_time", "source", "number")):
            self._ints_4B[place, start:stop] = _integers(table, name)
        self._rows = stop
        let_go(self._X_BF)

    def examples(self, corrections: _Corrections, task: Task) -> Examples:
        """Correct labels, and give the rows that are examples."""
        rows = self._rows
        y_B, (time_B, known_B, source_B, number_B) = self._y_B[:rows], self._ints_4B[:, :rows]
        is_kept = corrections.apply(source_B, number_B, y_B, known_B)
        if not task.is_unsupervised:
            is_kept &= ~np.isnan(y_B)
        X_BF = self._X_BF[:rows]
        if is_kept.all():
            return Examples(X_BF, y_B.copy(), time_B.copy(), known_B.copy())
        kept = np.flatnonzero(is_kept)
        for start in range(0, kept.size, _COPIED_ROWS):  # in place: no row moves behind one that is still to be read
            places = kept[start : start + _COPIED_ROWS]
            X_BF[start : start + places.size] = X_BF[places]
        return Examples(X_BF[: kept.size], y_B[kept], time_B[kept], known_B[kept])

    def _grow(self, needed: int) -> None:
        room = max(needed, int(GROWTH * len(self._X_BF)))
        self._X_BF = self._scratch.resized(self._X_BF, room, self._rows)
        self._y_B = np.concatenate([self._y_B[: self._rows], np.empty(room - self._rows)])
        more = np.empty((4, room - self._rows), np.int64)
        self._ints_4B = np.concatenate([self._ints_4B[:, : self._rows], more], axis=1)


class _Corrections:
    """Amended and retracted labels; of each event the newest counts."""

    def __init__(self) -> None:
        self._parts: list[tuple[Indexes, Indexes, Vector, Times, npt.NDArray[np.bool_]]] = []

    def add(self, table: pa.Table, task: Task) -> None:
        """Note rows, later ones than those before."""
        if table.num_rows:
            is_gone = np.asarray(pc.equal(table.column("outcome").cast(pa.string()), "retracted"))
            source, number, known = (_integers(table, name) for name in ("source", "number", "label_time"))
            self._parts.append((source, number, _labels(table, task), known, is_gone))

    def apply(self, source_B: Indexes, number_B: Indexes, y_B: Vector, known_B: Times) -> npt.NDArray[np.bool_]:
        """Write the newest labels, and when they were known, over the first; says which rows still have one."""
        is_kept = np.ones(y_B.size, np.bool_)
        if not self._parts:
            return is_kept
        source, number, label, known, is_gone = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        for one in np.unique(source):
            mine = np.flatnonzero(source == one)
            mine = mine[np.argsort(number[mine], kind="stable")]  # of an event the newest comes last
            event, first = np.unique(number[mine], return_index=True)
            newest, latest = mine[np.append(first[1:], mine.size) - 1], np.maximum.reduceat(known[mine], first)
            rows = np.flatnonzero(source_B == one)
            place = np.minimum(np.searchsorted(event, number_B[rows]), event.size - 1)
            is_found = event[place] == number_B[rows]
            rows, place = rows[is_found], place[is_found]
            y_B[rows], is_kept[rows] = label[newest[place]], ~is_gone[newest[place]]
            known_B[rows] = np.maximum(known_B[rows], latest[place])
        return is_kept


def _fill(part_BF: Matrix, columns: list[Vector | None]) -> None:
    """Write columns into rows, so many rows at a time that they stay in the processor's cache; None is NaN."""
    for start in range(0, len(part_BF), _CACHED_ROWS):
        rows = slice(start, start + _CACHED_ROWS)
        for place, values in enumerate(columns):
            part_BF[rows, place] = np.nan if values is None else values[rows]


def _labels(table: pa.Table, task: Task) -> Vector:
    """Give labels as the task has them, NaN for none."""
    if not task.classes:
        return _numbers(table, "label")
    names = table.column("label").cast(pa.string())
    places = pc.index_in(names, pa.array(task.classes, pa.string()), skip_nulls=True)
    unknown = pc.and_(pc.is_null(places), pc.is_valid(names))
    if pc.any(unknown).as_py():
        found = names.filter(unknown)[0].as_py()
        raise TrainingError(
            f"the archive has a label {found!r}, which is no class of the task: {', '.join(task.classes)}"
        )
    return np.asarray(places.cast(pa.float64()).fill_null(np.nan))


def _numbers(table: pa.Table, name: str) -> Vector:
    return np.asarray(table.column(name).cast(pa.float64()).fill_null(np.nan), np.float64)


def _integers(table: pa.Table, name: str) -> Indexes:
    return np.asarray(table.column(name).cast(pa.int64()), np.int64)
