"""What is archived of a topic, and where it is cut: compared with the topic's rows, one by one."""

from __future__ import annotations

import doctest
import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import archiver, example_times
from streams.archiver import Archiver, Closed
from streams.durations import DAY_US
from streams.event_numbers import NUMBER_BITS
from streams.example_times import ExampleTimes
from streams.features import columns
from streams.frames import BEGINNING, EVENT, LABEL, SET, Batch, Column, examples_schema
from streams.pipeline import Feature
from tests.archiving import (
    KEEP_US,
    SMALL_ROWS,
    START_US,
    WAIT_US,
    Row,
    batches,
    closed_rows,
    expected,
    files,
    found,
    pipeline,
    topic,
    written,
)
from tests.rows import batch_of

pytestmark = pytest.mark.usefixtures("small_archive")

OF = pipeline()
ROWS = topic(1, 400)
COLUMN = (Column("amount", is_category=False),)


def archiver_of(keep_us: int = WAIT_US + KEEP_US) -> Archiver:
    """An archiver without state."""
    return Archiver(columns(OF), (), keep_us)


def closed_by(made: Archiver, rows: list[Row], cuts: tuple[int, ...] = ()) -> list[Closed]:
    """What is closed of rows."""
    return [closed for batch in batches(OF, rows, cuts) for closed in made.take(batch)]


def rows_of(closed: list[Closed]) -> list[Row]:
    """The rows of segments, in order."""
    tables = [pq.read_table(io.BytesIO(one.content)) for one in closed]
    return sorted(found(tables), key=lambda row: row["row"])


def examples(*rows: Row) -> Batch:
    """A batch of examples with one feature, at the beginning of all clocks unless a row says more."""
    clock = np.array([row.pop("clock", BEGINNING) for row in rows], np.int64)
    usual = {"source": 0, "id": "e", "key": "k", "produced": 0, "vector": [1.0]}
    return Batch(batch_of(examples_schema(COLUMN), [usual | row for row in rows]), clock, clock)


def test_every_label_row_is_archived_once_with_the_time_of_its_event() -> None:
    """Events that wait, marks, versions and commands are not; the order is the topic's."""
    wanted = expected(ROWS)
    segments = closed_by(archiver_of(), ROWS)

    assert len(wanted) > 350
    assert rows_of(segments) == wanted[: closed_rows(wanted)]


def test_a_segment_is_cut_by_number_and_by_day() -> None:
    """At most so many rows are closed together; at the first row of a newer day all are. Each day has its own file."""
    segments = [closed.segment for closed in closed_by(archiver_of(), ROWS)]
    days = {(segment.day, segment.first) for segment in segments}

    assert len(days) == len(segments)
    assert {segment.day for segment in segments} >= {
        "2012-12-31",
        "2013-01-01",
        "2013-01-02",
        "2013-01-03",
    }
    assert SMALL_ROWS * 0.8 < max(segment.rows for segment in segments) <= SMALL_ROWS
    assert min(segment.rows for segment in segments) < SMALL_ROWS // 4
    for one in segments:
        assert one.name == f"day={one.day}/{one.first:012d}-{one.last:012d}.parquet"


def test_a_record_says_what_is_in_its_file() -> None:
    """Counts, times and the label's, from the rows themselves."""
    for closed in closed_by(archiver_of(), ROWS):
        one, rows = closed.segment, rows_of([closed])
        times = [row["time"] for row in rows if row["time"] is not None]

        assert (one.first, one.last) == (rows[0]["row"], rows[-1]["row"] + 1)
        assert (one.rows, one.size_bytes) == (len(rows), len(closed.content))
        assert (one.from_us, one.to_us) == (min(times), max(times))
        assert one.known_us == max(row["label_time"] for row in rows)
        assert one.labelled == sum(row["label"] is not None for row in rows)
        assert one.untimed == len(rows) - len(times)
        assert {datetime.fromtimestamp(time / 1e6, UTC).date().isoformat() for time in times} == {one.day}


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(ROWS)), max_size=40).map(sorted),
    restarts=st.sets(st.integers(0, 40), max_size=6),
)
def test_polls_and_restarts_do_not_show_in_a_byte(cuts: list[int], restarts: set[int]) -> None:
    """However the topic is cut into batches, and wherever a snapshot is taken and restored."""
    whole, made, closed = closed_by(archiver_of(), ROWS), archiver_of(), []
    for place, batch in enumerate(batches(OF, ROWS, cuts)):
        closed += made.take(batch)
        if place in restarts:
            state = {name: array.copy() for name, array in made.state().items()}
            made = archiver_of()
            made.restore(state)

    assert [one.segment for one in closed] == [one.segment for one in whole]
    assert [one.content for one in closed] == [one.content for one in whole]


def test_many_small_batches_are_collected_without_a_table_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under low load a batch has one row."""
    monkeypatch.setattr(archiver, "MOST_TABLES", 8)
    made = archiver_of()
    alone = closed_by(made, ROWS, tuple(range(1, len(ROWS))))

    assert [one.content for one in alone] == [one.content for one in closed_by(archiver_of(), ROWS)]
    assert len(made.state()["events"][0]) == made.collected


def test_times_are_forgotten_by_the_clock_at_the_row_whatever_is_held() -> None:
    """A row that comes later than its event is remembered has no time, and lies with the day of its label."""
    keep_us = WAIT_US // 4
    wanted = expected(ROWS, keep_us)
    made = archiver_of(keep_us)
    closed = closed_by(made, ROWS, tuple(range(0, len(ROWS), 7)))
    untimed = [row for row in wanted[: closed_rows(wanted)] if row["time"] is None]

    assert len(untimed) > 100
    assert rows_of(closed) == wanted[: closed_rows(wanted)]
    assert sum(one.segment.untimed for one in closed) == len(untimed)
    assert made.events < sum(row["kind"] == EVENT for row in ROWS) / 2  # memory is bounded, too


def test_labels_of_events_that_were_numbered_before_find_them() -> None:
    """Where partitions were parted anew, a number bears the alias of its source."""
    made = Archiver(COLUMN, (), DAY_US, {0: 7})
    event = {"kind": EVENT, "source": 7, "number": 3, "time": START_US}
    label = {"kind": LABEL, "source": 9, "number": 3 | 1 << NUMBER_BITS, "time": START_US + 1, "label": 1.0}
    newer = [
        {"kind": kind, "source": 9, "number": 0, "time": START_US + DAY_US, "label": 1.0} for kind in (EVENT, LABEL)
    ]
    (row,) = rows_of(made.take(examples(event, label | {"outcome": SET}, *newer)))

    assert (row["source"], row["number"], row["time"]) == (7, 3, START_US)


def test_classes_are_archived_by_name() -> None:
    """As in a dataset of `millrace backfill`; the segment has all of them."""
    made = Archiver(COLUMN, ("low", "mid", "high"), DAY_US)
    rows = [{"kind": EVENT, "number": n, "time": START_US + n * DAY_US} for n in range(3)]
    labels = [{"kind": LABEL, "number": n, "time": START_US + 9, "label": (2.0, np.nan, 0.0)[n]} for n in range(3)]
    closed = made.take(examples(*rows, *labels))

    assert [row["label"] for row in rows_of(closed)] == ["high", None]
    assert closed[0].segment.classes == ("low", "mid", "high")


def test_a_feature_never_takes_the_name_of_a_column_of_ours() -> None:
    """Nor that of the day, which readers make of the folder's name."""
    columns_ = tuple(Column(name, is_category=False) for name in ("row", "day", "amount"))
    made = Archiver(columns_, (), DAY_US)
    rows = [
        {"kind": kind, "number": n, "time": START_US + n * DAY_US, "vector": [1.0, 2.0, 3.0], "label": 1.0}
        for n in range(2)
        for kind in (EVENT, LABEL)
    ]
    usual = {"source": 0, "id": "e", "key": "k", "produced": 0}
    batch = batch_of(examples_schema(columns_), [usual | row for row in rows])
    (closed,) = made.take(Batch(batch, np.zeros(4, np.int64), np.zeros(4, np.int64)))

    assert pq.read_schema(io.BytesIO(closed.content)).names[10:] == ["feature.row", "feature.day", "amount"]


def test_another_list_of_columns_cuts_at_the_same_rows() -> None:
    """What was collected under the earlier list has the columns there are now, by name; NaN where it lacks one."""
    before = archiver_of()
    middle = len(ROWS) // 2
    first = closed_by(before, ROWS[:middle])
    of = msgspec.structs.replace(OF, features=(Feature("hour", "cyclic", "hour"),))
    after = Archiver(columns(of), (), WAIT_US + KEEP_US)
    after.restore(before.state())
    rest = [row | {"vector": [*row["vector"], 1.0, 2.0]} if "vector" in row else row for row in ROWS[middle:]]
    second = [closed for batch in batches(of, rest, ()) for closed in after.take(batch)]
    whole = closed_by(archiver_of(), ROWS)
    tables = [pq.read_table(io.BytesIO(one.content)) for one in second]
    table = pa.concat_tables(tables).sort_by("row").to_pydict()
    wanted = [row["vector"][0] for row in expected(ROWS) if row["row"] in table["row"]]

    assert [one.segment.name for one in (*first, *second)] == [one.segment.name for one in whole]
    assert before.collected > 0
    assert np.isnan(table["hour_sin"][: before.collected]).all()
    assert table["hour_cos"][-1] == 2.0
    np.testing.assert_array_equal(table["amount"], [np.nan if value is None else value for value in wanted])


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 3), st.integers(0, 300)), max_size=60),
    keep_us=st.integers(0, 200),
)
def test_times_are_found_as_a_dict_would(steps: list[tuple[int, int, int]], keep_us: int) -> None:
    """Over sources that jump, times out of order, a clock that goes on, and restarts."""
    times, numbers, clock = ExampleTimes(keep_us), {1: 0, 2: 50}, 0
    known, until = dict[tuple[int, int], int](), dict[tuple[int, int], int]()
    for place, (source, jump, more_us) in enumerate(steps):
        clock += more_us // 10
        number = numbers[source] + jump
        numbers[source] = number + 1
        known[source, number] = clock + more_us - 150
        until[source, number] = max(known[source, number], clock) + keep_us
        times.add(*(np.array([one]) for one in (source, number, known[source, number], clock)))
        asked = [(one, n) for one in (1, 2) for n in range(70)]
        wanted = [known[one] if clock <= until.get(one, -1) else BEGINNING for one in asked]
        source_B, number_B = (np.array(column) for column in zip(*asked, strict=True))

        assert times.find(source_B, number_B, np.full(len(asked), clock)).tolist() == wanted
        times.forget(clock)
        if place % 5 == 0:
            state, times = times.state(), ExampleTimes(keep_us)
            times.restore(state)


def test_the_same_topic_gives_the_same_directory(tmp_path: Path) -> None:
    """Two archivers on two machines, one of which polls otherwise."""
    written(OF, tmp_path, ROWS)
    with tempfile.TemporaryDirectory() as other:
        written(OF, Path(other), ROWS, range(0, len(ROWS), 13))

        assert files(tmp_path) == files(Path(other))
    assert len(files(tmp_path)) > 20


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(example_times, extraglobs={"np": np}).failed == 0
