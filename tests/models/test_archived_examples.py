"""What P.examples had is what a training reads: through the archive's files, over days and changes of the columns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from models.training_data import read_examples
from streams.archive import segments_of
from streams.archive_store import ArchiveStore
from streams.archiver import Archiver
from streams.durations import DAY_US, HOUR_US
from streams.errors import ArchiveError
from streams.frames import AMENDED, EVENT, LABEL, MISSING, RETRACTED, SET, Batch, Column, build, examples_schema
from streams.pipeline import Task
from streams.tables import Table

OLD = (Column("delay", False), Column("row", True))  # the second is named like a column of the archive's
NEW = (Column("row", True), Column("delay", False), Column("distance", False))
TASK = Task("multiclass", ("no", "yes"))
START_US = 20_000 * DAY_US
EVENTS = 200
Row = tuple[int, int, int, float, int, list[float]]


def rows_of(columns: tuple[Column, ...], first: int) -> list[Row]:
    """Give an event an hour with its label an hour later; of the last ten of each hundred something odd."""
    rows: list[Row] = []
    for number in range(first, first + EVENTS // 2):
        vector = [{"row": number % 3, "delay": 0.5 * number, "distance": -number}[one.name] for one in columns]
        time_us = START_US + number * HOUR_US
        is_late, is_missing = number % 100 == 90, number % 100 == 91
        known_us, outcome = time_us + (900 if is_late else 1) * HOUR_US, MISSING if is_missing else SET
        rows.append((EVENT, number, time_us, math.nan, -1, vector))
        rows.append((LABEL, number, known_us, math.nan if is_missing else number % 2, outcome, vector))
        if number % 100 in (92, 93):
            again = AMENDED if number % 100 == 92 else RETRACTED
            rows.append((LABEL, number, time_us + 2 * HOUR_US, 1.0 - number % 2, again, [math.nan] * len(columns)))
    return rows


def table_of(columns: tuple[Column, ...], rows: list[Row]) -> Table:
    kind, number, time, label, outcome, vector = (np.array(column) for column in zip(*rows, strict=True))
    fields = {"kind": kind, "source": np.full(len(rows), 7), "number": number, "time": time, "label": label}
    return build(examples_schema(columns), fields | {"outcome": outcome, "vector": vector.astype(float)}, len(rows))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Archive a hundred events under the old columns and a hundred under the new."""
    archive(tmp_path, (OLD, 0), (NEW, EVENTS // 2))
    return tmp_path


def archive(state: Path, *parts: tuple[tuple[Column, ...], int]) -> None:
    """Write parts behind one another, each by a role that begins anew; a row of a later day closes it."""
    store = ArchiveStore(state, DAY_US)
    end = (START_US + 1_000 * DAY_US, [0.0] * 3)
    for columns, first in parts:
        archiver = Archiver(columns, TASK.classes, 1_000 * DAY_US)
        archiver.renew(store.next_row())
        rows = rows_of(columns, first)
        vector = end[1][: len(columns)]
        rows += [(EVENT, EVENTS, end[0], math.nan, -1, vector), (LABEL, EVENTS, end[0], 1.0, SET, vector)]
        table = table_of(columns, rows)
        clock = np.full(table.num_rows, START_US)
        for closed in archiver.take(Batch(table, clock, clock)):
            store.put(closed)


def expected(known_h: int, numbers: range = range(EVENTS)) -> list[tuple[float, ...]]:
    """Say which examples there are when labels up to an hour are known: number, label, hour known, features."""
    found: list[tuple[float, ...]] = []
    for number in numbers:
        odd = number % 100
        known, label = number + (900 if odd == 90 else 2 if odd == 92 else 1), (number + (odd == 92)) % 2
        if odd in (91, 93) or known > known_h:
            continue
        found.append((number, label, known, number % 3, 0.5 * number, math.nan if number < 100 else -number))
    return found


def read(state: Path, from_h: int | None, to_h: int | None, known_h: int | None) -> list[tuple[float, ...]]:
    from_us, to_us, known_us = (None if h is None else START_US + h * HOUR_US for h in (from_h, to_h, known_h))
    found = read_examples(state, NEW, TASK, from_us, to_us, known_us, state / "scratch")
    hours = [(times - START_US) // HOUR_US for times in (found.time_B, found.known_B)]
    table = np.column_stack([hours[0], found.y_B, hours[1], found.X_BF])
    return [tuple(row) for row in table.tolist()]


def test_each_event_is_read_with_what_was_known_of_it(state: Path) -> None:
    """Days, retractions, amendments, a column that came later and one that has moved."""
    assert len(segments_of(state)) > 8
    np.testing.assert_equal(read(state, None, None, None), expected(10_000))


def test_only_what_was_asked_for_is_read(state: Path) -> None:
    """The first time is in, the second is not, and labels that were known at the third are."""
    np.testing.assert_equal(read(state, 50, 150, None), expected(10_000, range(50, 150)))
    np.testing.assert_equal(read(state, None, None, 190), expected(190))
    assert read(state, 500, 600, None) == []


def test_an_amendment_that_was_not_known_yet_changes_nothing(state: Path) -> None:
    """The label of then is read, also of what was taken back since."""
    found = {row[0]: row for row in read(state, None, None, 93)}

    assert found[92][1:3] == (0, 93)
    assert {row[0]: row for row in read(state, None, None, 94)}[92][1:3] == (1, 94)
    assert 93 in {row[0] for row in read(state, None, None, 94)}
    assert 93 not in {row[0] for row in read(state, None, None, 95)}


def test_an_event_that_was_archived_twice_is_one_example(tmp_path: Path) -> None:
    """Where a role had to begin anew, rows come again under other numbers; they would weigh double."""
    archive(tmp_path, (OLD, 0), (NEW, EVENTS // 2), (NEW, 0), (NEW, EVENTS // 2))

    np.testing.assert_equal(read(tmp_path, None, None, None), expected(10_000))


def test_a_damaged_file_stops_the_reading(state: Path) -> None:
    """In one line that names it."""
    name = segments_of(state)[2].name
    path = state / "archive" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ArchiveError, match=name):
        read(state, None, None, None)
