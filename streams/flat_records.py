"""Flat JSON records to columns in one compiled pass, for those records that it is certain of.

Where a record is anything but plain and good (an escape, a table inside, a missing id, a time from the future) its
index is given back instead, and it goes the careful way: `streams.decoding` alone says what is wrong with a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.flat_kernel import (
    BOOLEAN,
    CATEGORY,
    COLUMN,
    COMMON,
    DATE_TIME,
    EPOCH,
    FACTS,
    KIND,
    LABEL,
    LENGTH,
    MASK,
    NAME,
    NUMBER,
    SEEN,
    TEXT,
    VALUE,
    WORD,
    copy_kernel,
    read_kernel,
)
from streams.layouts import Text
from streams.pipeline import FieldPath, Pipeline, TimeUnit
from streams.records import Values
from streams.timestamps import UNIT_US

_OF_TEXTS, _OF_NUMBERS = (TEXT, CATEGORY), (NUMBER, BOOLEAN, LABEL, VALUE)
_GUESSES = 64  # places in a record for which the name is remembered
_LEAST_ROOM = 1_024  # rows

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Wanted(NamedTuple):
    """One value wanted from every record, under the name of its column."""

    column: str
    path: FieldPath
    kind: int


class Limits(NamedTuple):
    """Beyond which a record is not plain and good: its size, a text's size, and how far ahead of its stamp its time."""

    record_bytes: int
    text_bytes: int
    skew_us: int


class Columns(NamedTuple):
    """What was read of the `rows` plain records, in order.

    Attributes:
        rows: how many there are.
        offsets, stamps, time: of each record; its stamp is its time where none is wanted.
        texts, numbers: by column name.
        rest: indexes of the records that must be read the careful way.
    """

    rows: int
    offsets: Int64s
    stamps: Int64s
    time: Int64s
    texts: dict[str, Text]
    numbers: dict[str, Floats]
    rest: Int64s


class FlatReader:
    """Reads records of one kind. Not thread-safe: it remembers in which order the names came.

    Args:
        wanted: what to read; see `is_possible`.
        time_unit: of EPOCH.
        limits: see `Limits`.
    """

    def __init__(self, wanted: Sequence[Wanted], time_unit: TimeUnit, limits: Limits) -> None:
        kinds: dict[str, int] = {}
        for each in wanted:  # an id that is a category too is wanted once, as what allows less
            kinds[each.path[0]] = min(each.kind, kinds.get(each.path[0], each.kind))
        texts = [name for name, kind in kinds.items() if kind in _OF_TEXTS]
        numbers = [name for name, kind in kinds.items() if kind in _OF_NUMBERS]
        self._texts = [[w.column for w in wanted if w.path[0] == name] for name in texts]
        self._numbers = [[w.column for w in wanted if w.path[0] == name] for name in numbers]
        columns = {name: place for names in (texts, numbers) for place, name in enumerate(names)}
        self._plan, self._names = _plan(kinds, columns)
        self._unit_us = UNIT_US.get(time_unit, 1.0)
        self._limits = limits
        self._guesses = np.full(_GUESSES, -1, np.int64)
        self._spans = np.empty((2 * len(texts), 0), np.int64)
        self._serial = 0

    @staticmethod
    def is_possible(wanted: Sequence[Wanted]) -> bool:
        """Whether all of it stands at the top of a record and no name is wanted as two things."""
        kinds: dict[str, set[int]] = {}
        for each in wanted:
            kinds.setdefault(each.path[0], set()).add(each.kind)
        is_flat = all(len(each.path) == 1 for each in wanted)
        return is_flat and all(len(kind) == 1 or kind <= {TEXT, CATEGORY} for kind in kinds.values())

    def read(self, records: Values) -> Columns:
        """Read the plain ones of some records."""
        count = records.sizes.size
        if self._spans.shape[1] < count:
            self._spans = np.empty((self._spans.shape[0], max(count, _LEAST_ROOM)), np.int64)
        common = np.empty((COMMON, count), np.int64)
        floats = np.empty((len(self._numbers), count))
        totals = np.zeros((2, len(self._texts)), np.int64)
        rest = np.empty(count, np.int64)
        rows = read_kernel(
            records.addresses,
            records.sizes,
            records.offsets,
            records.stamps,
            self._plan,
            self._guesses,
            self._serial,
            *self._limits,
            self._unit_us,
            common,
            floats,
            self._spans,
            totals,
            rest,
        )
        self._serial += count
        numbers = {name: line[:rows] for names, line in zip(self._numbers, floats, strict=True) for name in names}
        texts = self._copy_texts(rows, totals)
        sequence, stamps, time = common
        return Columns(rows, sequence[:rows], stamps[:rows], time[:rows], texts, numbers, rest[: count - rows])

    def _copy_texts(self, rows: int, totals: Int64s) -> dict[str, Text]:
        """Copy texts out of the records into columns, which share one buffer."""
        sizes, nulls = totals.tolist()
        offsets = np.empty((len(sizes), rows + 1), np.int32)
        data = np.empty(sum(sizes) + 1, np.uint8)
        valid = np.zeros((len(sizes), (rows + 7) // 8), np.uint8)
        copy_kernel(rows, self._spans, totals, offsets, data, valid)
        texts, at = {}, 0
        for place, names in enumerate(self._texts):
            text = Text(offsets[place], data[at:], valid[place] if nulls[place] else valid[place, :0])
            at += sizes[place]
            for name in names:
                texts[name] = text
        return texts


def flat_reader(pipeline: Pipeline, kind: str) -> FlatReader | None:
    """Make the reader of a pipeline's `events` or `labels`; None where all of them must go the careful way."""
    declared = pipeline.events if kind == "events" else pipeline.labels
    paths = [("id", declared.id, TEXT), ("key", declared.key, TEXT)]
    paths.append(("time", declared.time, DATE_TIME if declared.time_unit == "rfc3339" else EPOCH))
    if kind == "events":
        kinds = {"number": NUMBER, "boolean": BOOLEAN, "category": CATEGORY}
        paths += [(f"field.{field.name}", field.path, kinds[field.kind]) for field in pipeline.events.fields]
    else:
        if pipeline.task.kind == "multiclass":  # classes are looked up by their text, in Python
            return None
        paths.append(("label", pipeline.labels.value, LABEL if pipeline.task.is_yes_or_no else VALUE))
    wanted = [Wanted(column, path, own) for column, path, own in paths if path]
    run = pipeline.run
    limits = Limits(run.max_record_bytes, run.max_text_bytes, int(run.max_skew_s * 1e6))
    return FlatReader(wanted, declared.time_unit, limits) if FlatReader.is_possible(wanted) else None


def _plan(kinds: dict[str, int], columns: dict[str, int]) -> tuple[Int64s, npt.NDArray[np.uint8]]:
    """Give the table of wanted names, and the array that holds them."""
    quoted = [name.encode() + b'"' for name in kinds]
    held = np.frombuffer(b"".join(quoted), np.uint8)
    plan = np.zeros((len(kinds), FACTS), np.int64)
    at = held.ctypes.data
    for row, name, end in zip(plan, kinds, quoted, strict=True):
        row[KIND], row[COLUMN], row[NAME], row[LENGTH] = kinds[name], columns.get(name, 0), at, len(end)
        row[WORD] = int.from_bytes(end[:8], "little", signed=len(end) >= 8)
        row[MASK] = 256 ** len(end) - 1 if len(end) < 8 else -1
        at += len(end)
    plan[:, SEEN] = -1
    return plan, held
