"""Examples read from the archive: compared with what plain Python makes of the same rows."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.examples import Examples
from models.training_data import FIRST_ROWS, examples_of
from streams.errors import TrainingError, UnavailableError
from streams.frames import Column
from streams.pipeline import Task
from streams.scratch import Scratch

COLUMNS = (Column("delay", False), Column("time", False), Column("absent", False), Column("carrier", True))
BINARY, CLASSES, ANOMALY = Task(), Task("multiclass", ("no", "perhaps", "yes")), Task("anomaly")
MOMENT = pa.timestamp("us", tz="UTC")


class Row(NamedTuple):
    """A row of the archive."""

    source: int
    number: int
    outcome: str
    label: float | str | None
    known_us: int
    time_us: int | None
    values: tuple[float, float, float]  # delay, time, carrier


def table_of(rows: list[Row], task: Task = BINARY, first: int = 0) -> pa.Table:
    """Lay rows out as the archive does; a feature named like one of its own columns has a prefix there."""
    kind = pa.string() if task.classes else pa.float64()
    metadata = {b"millrace.classes": json.dumps(task.classes).encode()} if task.classes else None
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"{row.source}-{row.number}" for row in rows]),
        "key": pa.array(["k"] * len(rows)),
        "time": pa.array([row.time_us for row in rows], pa.int64()).cast(MOMENT),
        "number": pa.array([row.number for row in rows], pa.int64()),
        "produced": pa.array([0] * len(rows), pa.int64()).cast(MOMENT),
        "label": pa.array([row.label for row in rows], kind),
        "outcome": pa.array([row.outcome for row in rows], pa.string()).dictionary_encode(),
        "label_time": pa.array([row.known_us for row in rows], pa.int64()).cast(MOMENT),
        "source": pa.array([row.source for row in rows], pa.int32()),
        "row": pa.array(range(first, first + len(rows)), pa.int64()),
        "delay": pa.array([row.values[0] for row in rows], pa.float64()),
        "feature.time": pa.array([row.values[1] for row in rows], pa.float64()),
        "unasked": pa.array([7.0] * len(rows), pa.float64()),
        "carrier": pa.array([row.values[2] for row in rows], pa.float64()),
    }
    return pa.table(columns).replace_schema_metadata(metadata)


def cut(rows: list[Row], stops: list[int], task: Task = BINARY) -> Iterator[pa.Table]:
    starts = [0, *sorted(min(stop, len(rows)) for stop in stops), len(rows)]
    for start, stop in pairwise(starts):
        yield table_of(rows[start:stop], task, start)


def by_hand(rows: list[Row], task: Task) -> list[tuple[Any, ...]]:
    """Follow each event through the rows; its place is that of its first one."""
    found: dict[tuple[int, int], list[Any]] = {}
    for row in rows:
        label = (
            np.nan if row.label is None else float(task.classes.index(str(row.label))) if task.classes else row.label
        )
        if row.outcome in ("set", "missing"):
            found[row.source, row.number] = [row, label, row.known_us, True]
        elif (row.source, row.number) in found:
            event = found[row.source, row.number]
            event[1:] = label, max(event[2], row.known_us), row.outcome == "amended"
    return [
        (row.time_us, known_us, label, *row.values)
        for row, label, known_us, is_kept in found.values()
        if is_kept and (task.is_unsupervised or not np.isnan(label))
    ]


def as_tuples(examples: Examples) -> list[tuple[Any, ...]]:
    assert np.isnan(examples.X_BF[:, 2]).all()
    values = [tuple(row) for row in examples.X_BF[:, [0, 1, 3]].tolist()]
    times = zip(examples.time_B.tolist(), examples.known_B.tolist(), examples.y_B.tolist(), strict=True)
    return [(*time, *value) for time, value in zip(times, values, strict=True)]


def made_up(seed: int, rows: int, task: Task) -> list[Row]:
    """Settle events of three sources in no order; a third are amended or retracted, some twice."""
    rng = np.random.default_rng(seed)
    events = [(source, number) for source in (0, 3, 7) for number in range(rows)]
    made, settled = list[Row](), list[tuple[int, int]]()
    for place in rng.permutation(len(events)):
        settled.append(events[place])
        made.append(_row(rng, events[place], str(rng.choice(["set", "set", "missing"])), task))
        while rng.random() < 0.3:
            again = settled[rng.integers(len(settled))]
            made.append(_row(rng, again, str(rng.choice(["amended", "retracted"])), task))
    return made


def _row(rng: np.random.Generator, event: tuple[int, int], outcome: str, task: Task) -> Row:
    source, number = event
    label = rng.choice(task.classes) if task.classes else float(rng.integers(2))
    is_none = outcome == "retracted" or (outcome == "missing" and rng.random() < 0.5)
    is_first = outcome in ("set", "missing")
    time_us = 1_000 * number + source if is_first or rng.random() < 0.5 else None
    values = rng.normal(size=3).tolist() if is_first else [np.nan] * 3
    return Row(source, number, outcome, None if is_none else label, int(rng.integers(10**6)), time_us, tuple(values))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 12),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from([BINARY, CLASSES, ANOMALY]),
)
def test_each_event_is_once_with_its_newest_label(seed: int, rows: int, stops: list[int], task: Task) -> None:
    """Retracted ones are left out, features are those of the first row, and it is known when its last label came."""
    made = made_up(seed, rows, task)

    found = as_tuples(examples_of(cut(made, stops, task), COLUMNS, task, Scratch()))

    assert repr(found) == repr(by_hand(made, task))  # NaN equals no NaN


def test_a_row_that_only_amends_is_no_example() -> None:
    """Its event is not among what was asked for, or is forgotten."""
    rows = [Row(0, 5, "amended", 1.0, 9, 5_000, (1.0, 2.0, 3.0)), Row(0, 6, "set", 1.0, 9, 6_000, (1.0, 2.0, 3.0))]

    assert as_tuples(examples_of(cut(rows, []), COLUMNS, BINARY, Scratch())) == [(6_000, 9, 1.0, 1.0, 2.0, 3.0)]


def test_an_event_whose_time_is_forgotten_is_no_example() -> None:
    """It can be in no part of a split; the others' times are as they were, to the microsecond."""
    late = 2**53 + 1
    rows = [Row(0, n, "set", 1.0, late, late if n else None, (1.0, 2.0, 3.0)) for n in range(2)]

    assert as_tuples(examples_of(cut(rows, []), COLUMNS, BINARY, Scratch())) == [(late, late, 1.0, 1.0, 2.0, 3.0)]


def test_a_label_that_is_no_class_is_refused() -> None:
    """The archive is older than the task."""
    rows = [Row(0, 0, "set", "maybe", 9, 0, (1.0, 2.0, 3.0))]

    with pytest.raises(TrainingError, match="'maybe', which is no class of the task: no, perhaps, yes"):
        examples_of(cut(rows, [], CLASSES), COLUMNS, CLASSES, Scratch())


def test_nothing_gives_no_examples() -> None:
    """The matrix has its width all the same."""
    examples = examples_of(iter(()), COLUMNS, BINARY, Scratch())

    assert [array.shape for array in examples] == [(0, 4), (0,), (0,), (0,)]


def many(rows: int, seed: int = 0) -> Iterator[pa.Table]:
    """Give tables of 10,000 rows; a tenth of them have no label."""
    rng = np.random.default_rng(seed)
    for first in range(0, rows, 10_000):
        size = min(10_000, rows - first)
        number = np.arange(first, first + size)
        moments = [pa.array(number * factor).cast(MOMENT) for factor in (1_000, 2_000)]
        yield pa.table(
            {
                "time": moments[0],
                "number": number,
                "label": pa.array(number % 2 * 1.0, mask=rng.random(size) < 0.1),
                "outcome": pa.array(["set"] * size),
                "label_time": moments[1],
                "source": pa.array(np.zeros(size, np.int32)),
                "row": number,
                "delay": number * 0.5,
                "feature.time": number * 0.25,
                "carrier": number % 7 * 1.0,
            }
        )


def test_what_is_large_lies_in_a_file_that_has_no_name(tmp_path: Path) -> None:
    """It is the same matrix, and gone with the process."""
    rows = 3 * FIRST_ROWS
    expected = examples_of(many(rows), COLUMNS, BINARY, Scratch())
    found = examples_of(many(rows), COLUMNS, BINARY, Scratch(tmp_path, 4 * 8 * FIRST_ROWS + 1))

    assert len(found.y_B) > 2.6 * FIRST_ROWS
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, expected, strict=True))
    assert found.X_BF[:, 0].tolist() == (found.time_B // 1_000 * 0.5).tolist()
    assert _is_mapped(found.X_BF)
    assert not _is_mapped(expected.X_BF)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Before it is too late."""
    (tmp_path / "file").touch()

    with pytest.raises(UnavailableError, match="cannot keep tables in"):
        examples_of(many(10), COLUMNS, BINARY, Scratch(tmp_path / "file", 1))


def test_one_table_at_a_time_is_in_memory() -> None:
    """When the next is read the one before is gone."""
    alive = list[weakref.ref[Any]]()

    def tables() -> Iterator[pa.Table]:
        for table in many(50_000):
            assert all(one() is None for one in alive)
            alive.append(weakref.ref(table))
            yield table
            del table

    assert len(examples_of(tables(), COLUMNS, BINARY, Scratch()).y_B) > 40_000
    assert len(alive) == 5


def _is_mapped(array: npt.NDArray[Any]) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return hasattr(getattr(base, "obj", base), "file")
