"""The audit of a partition: silent over whatever a crash leaves behind, and exact about what is really wrong."""

from __future__ import annotations

import doctest
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from serving import audit
from serving.audit import Audit, is_sampled
from serving.course import Course, Courses
from serving.hop import hops
from serving.names import Names, names
from serving.recomputation import Recomputation
from serving.replica import Naming, Replica
from serving.stage_audit import StageAudit
from serving.tally import SHOWN, Tally
from streams import frames
from streams.control import Claim
from streams.features import columns
from streams.frames import EVENT, FrameSchema
from streams.records import Records
from streams.tables import Table
from tests.faults.world import World, install
from tests.memory_feed import MemoryFeed, Row, changed, frame, rows_of
from tests.rows import batch_of

LOG, FEATURES = "w.log", "w.features"
PARTITION = 1


class Written:
    """What a pipeline has written that was killed again and again, to be damaged and audited by a test."""

    def __init__(self, world: World) -> None:
        self.world, self.pipeline = world, world.pipeline
        self.schema: FrameSchema = frames.features_schema(columns(self.pipeline))
        self.log = list(world.records(LOG, PARTITION))
        self.served = list(world.records(FEATURES, PARTITION))
        self.log_id = world.broker.uuid(LOG)

    def rows(self) -> list[Row]:
        """The served events as readers take them."""
        last: dict[int, int] = {}
        taken = []
        for row in (row for record in self.served for row in rows_of(self.schema, record)):
            if row["kind"] == EVENT and row["sequence"] > last.get(row["source"], -1):
                last[row["source"]] = row["sequence"]
                taken.append(row)
        return taken

    def change(self, number: int, change: Callable[[Row], Row | None]) -> None:
        """Change the row of this number wherever it stands, or leave it out."""

        def changes(rows: list[Row]) -> list[Row]:
            made = [change(row) if row["kind"] == EVENT and row["number"] == number else row for row in rows]
            return [row for row in made if row is not None]

        for at, record in enumerate(self.served):
            if any(row["number"] == number for row in rows_of(self.schema, record)):
                self.served[at] = changed(self.schema, record, changes)

    def append(self, rows: list[Row]) -> None:
        """Write one more record."""
        self.served.append(frame(self.schema, rows, len(self.served)))

    def audit(
        self, *, sample: float = 1.0, start: int = 0, log_start: int = 0, log_id: str | None = None
    ) -> StageAudit:
        """An audit of the partition; topics may have been cut."""
        control, hop = self.world.control(), hops(self.pipeline)[0]
        rows = (frames.decode(r.value_ or b"", self.schema) for r in self.served[start:])
        naming: Callable[[int], Naming | None] = Names(rows, "number").of if log_start else lambda _: None
        courses = Courses(self.pipeline, hop, control, log_id or self.log_id, lambda _: MemoryFeed(self.log, log_start))
        served = MemoryFeed(self.served, start)
        return StageAudit(hop, courses, [Audit(hop, PARTITION, control, served, courses, sample=sample, naming=naming)])

    def go(self, audit: StageAudit, share: float = 1.0, *, is_last: bool = True) -> None:
        """Let an audit go on through this share of what was served, and through all of the log."""
        audit.run({PARTITION: int(len(self.served) * share)}, {PARTITION: len(self.log)}, is_last=is_last)

    def tally(self, **options: object) -> Tally:
        """Audit everything there is."""
        found = self.audit(**options)  # type: ignore[arg-type]  # passed on as they are
        self.go(found)
        return found.tallies[0]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A pipeline under crashes, rebalances and zombies, run once."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr("os.fsync", lambda _: None)
        made = World(2, Path(directory), events=300)
        install(patch, made)
        made.run()
        yield made


@pytest.fixture
def written(world: World) -> Written:
    """A fresh copy of what it has written."""
    return Written(world)


def test_what_crashes_and_zombies_leave_behind_is_no_skew(written: Written, world: World) -> None:
    """Rows that were sent again are the same rows, and readers take them once."""
    tally = written.tally()
    sent = sum(row["kind"] == EVENT for record in written.served for row in rows_of(written.schema, record))

    assert tally == Tally(PARTITION, compared=len(written.rows()))
    assert tally.skew == 0
    assert len(written.log) > 50, "else chunks of both sides would not overlap in every way"
    assert min(world.crashes, world.zombies, sent - tally.compared) > 0, "else this world would prove little"


@pytest.mark.parametrize("column", [0, 2, 5])
def test_one_value_that_differs_is_counted_once_and_shown(written: Written, column: int) -> None:
    """By the last bit: in the matrix, bit for bit."""
    row = written.rows()[40]
    right = row["vector"][column]
    wrong = float(np.nextafter(right, np.inf))
    place = column
    written.change(
        40, lambda row: row | {"vector": [wrong if at == place else v for at, v in enumerate(row["vector"])]}
    )
    tally = written.tally()
    (found,) = tally.first

    assert tally.unlike == {written.schema.columns[column].name: 1}
    assert (tally.skew, tally.compared, tally.one_sided) == (1, len(written.rows()), 0)
    assert (found.partition, found.number, found.id) == (PARTITION, 40, row["id"])
    assert (found.column, found.served, found.recomputed) == (written.schema.columns[column].name, wrong, right)


def test_missing_is_equal_to_missing_and_to_nothing_else(written: Written) -> None:
    """Every vector with NaN passes as it is; a 0 in its place does not."""
    row = next(row for row in written.rows() if np.isnan(row["vector"][0]))
    written.change(row["number"], lambda row: row | {"vector": [0.0, *row["vector"][1:]]})

    assert written.tally().unlike == {"amount": 1}


def test_missing_is_missing_whatever_its_bits(written: Written) -> None:
    """A float64 has many NaNs; which one another machine writes says nothing."""
    other = float(np.array([0x7FF8000000000123], np.uint64).view(np.float64)[0])
    row = next(row for row in written.rows() if np.isnan(row["vector"][0]))
    written.change(row["number"], lambda row: row | {"vector": [other, *row["vector"][1:]]})
    stored = next(one for one in written.rows() if one["number"] == row["number"])["vector"][:1]

    assert np.array(stored).view(np.uint64).tolist() == [0x7FF8000000000123]
    assert written.tally().skew == 0


def test_zero_and_minus_zero_are_told_apart(written: Written) -> None:
    """Equal numbers of other bits were not computed in the same way."""
    place = [column.name for column in columns(written.pipeline)].index("n_10s")
    row = next(row for row in written.rows() if row["vector"][place] == 0.0)
    vector = [*row["vector"][:place], -0.0, *row["vector"][place + 1 :]]
    written.change(row["number"], lambda row: row | {"vector": vector})

    assert written.tally().unlike == {"n_10s": 1}


@pytest.mark.parametrize(
    ("column", "value"), [("id", "another"), ("id", None), ("key", "k9"), ("time", 5), ("produced", 6)]
)
def test_what_names_an_event_is_compared_too(written: Written, column: str, value: object) -> None:
    """A right vector on the wrong event is wrong."""
    row = written.rows()[7]
    written.change(7, lambda row: row | {column: value})
    tally = written.tally()

    assert tally.unlike == {column: 1}
    assert (tally.first[0].served, tally.first[0].recomputed) == (value, row[column])


def test_only_the_first_differences_are_kept_and_all_are_counted(written: Written) -> None:
    """A broken feature differs in every row."""
    for number in range(0, 60, 2):
        written.change(number, lambda row: row | {"vector": [-1.0, *row["vector"][1:]]})
    tally = written.tally()

    assert tally.unlike == {"amount": 30}
    assert [one.number for one in tally.first] == list(range(0, 2 * SHOWN, 2))


def test_a_row_missing_among_served_ones_is_counted(written: Written) -> None:
    """Whichever: the first one, too."""
    for number in (0, 13, 14):
        written.change(number, lambda _: None)
    tally = written.tally()

    assert (tally.only_recomputed, tally.only_served, tally.unlike, tally.unserved) == (3, 0, {}, 0)


def test_rows_that_the_log_does_not_give_are_counted(written: Written) -> None:
    """Behind its end, and a number for the second time under a new sequence."""
    last = written.rows()[-1]
    written.append([last | {"sequence": last["sequence"] + more, "number": last["number"] + more} for more in (1, 2)])
    written.append([last | {"sequence": last["sequence"] + 3}])
    tally = written.tally()

    assert (tally.only_served, tally.only_recomputed, tally.unlike) == (3, 0, {})


def test_a_number_given_twice_in_one_record_is_counted(written: Written) -> None:
    """The second row is new to readers, and the log gives none for it."""
    last = written.rows()[-1]
    written.append([last | {"sequence": last["sequence"] + 1}])
    written.served[-2:] = [
        frame(written.schema, [row for record in written.served[-2:] for row in rows_of(written.schema, record)])
    ]
    tally = written.tally()

    assert (tally.only_served, tally.only_recomputed, tally.compared) == (1, 0, len(written.rows()) - 1)


def test_rows_not_served_yet_are_no_skew(written: Written) -> None:
    """The features role may be behind; what it will send is only counted."""
    whole = len(written.rows())
    del written.served[len(written.served) // 2 :]
    tally = written.tally()

    assert 0 < tally.compared < whole
    assert (tally.skew, tally.compared + tally.unserved) == (0, whole)


def test_nothing_served_is_all_not_served_yet(written: Written) -> None:
    """A pipeline whose features role has not begun."""
    whole = len(written.rows())
    written.served.clear()

    assert written.tally() == Tally(PARTITION, unserved=whole)


def test_served_rows_cut_by_retention_are_not_missed(written: Written) -> None:
    """What the topic holds no more cannot be compared, and is nobody's fault."""
    start = len(written.served) // 2
    tally = written.tally(start=start)

    assert 0 < tally.compared < len(written.rows())
    assert tally.skew == 0


def test_an_audit_goes_on_where_it_stopped(written: Written) -> None:
    """However often it looks, it finds the same as one that looks once; also while both topics grow."""
    row = written.rows()[90]
    written.change(90, lambda row: row | {"vector": [7.0, *row["vector"][1:]]})
    written.change(91, lambda _: None)
    going_on = written.audit()
    for share in range(1, 9):
        written.go(going_on, share / 8, is_last=share == 8)

    assert going_on.tallies == [written.tally()]
    assert going_on.tallies[0].first[0].id == row["id"]


def test_a_later_generation_is_compared_from_the_first_row_on(written: Written) -> None:
    """The role went on without state: it repeats events under a new source, beside a zombie of the old one."""
    first = written.rows()
    claim = Claim("features", written.log_id, PARTITION, "rows", 1, 2, is_gapless=True)
    source = written.world.control().claim(claim)
    again = [row | {"source": source} for row in first]
    wrong = first[-1] | {"sequence": len(first), "number": len(first)}
    written.append(again[:30])
    written.append([wrong])
    written.append(again[30:])
    tally = written.tally()

    assert (tally.compared, tally.skew, tally.only_served) == (2 * len(first), 1, 1)


def test_rows_of_a_log_made_anew_are_out_of_reach(written: Written) -> None:
    """The log they were computed from is gone."""
    tally = written.tally(log_id="another")

    assert (tally.out_of_reach, tally.compared, tally.skew) == (len(written.rows()), 0, 0)


def test_a_sample_is_the_same_rows_every_time(written: Written) -> None:
    """About the share asked for; a difference is found if its number belongs to it, and only then."""
    numbers = np.arange(len(written.rows()))
    drawn = np.flatnonzero(is_sampled(numbers, 0.3))
    left = np.flatnonzero(~is_sampled(numbers, 0.3))
    written.change(int(drawn[5]), lambda row: row | {"key": "wrong"})
    written.change(int(left[5]), lambda row: row | {"key": "wrong"})
    written.change(int(drawn[9]), lambda _: None)
    written.change(int(left[9]), lambda _: None)
    tally = written.tally(sample=0.3)

    assert (tally.compared, tally.only_recomputed) == (drawn.size - 1, 1)
    assert [one.number for one in tally.first] == [drawn[5]]
    assert 0.15 < drawn.size / numbers.size < 0.45


def test_a_cut_log_is_compared_by_the_names_of_events(written: Written) -> None:
    """Numbers cannot be counted any more; rows a window after the cut are as they were, apart from trails."""
    log_start = len(written.log) // 4
    rows = written.rows()
    tally = written.tally(log_start=log_start)

    assert tally.out_of_reach > 0
    assert tally.compared > len(rows) / 2
    assert tally.compared + tally.out_of_reach + tally.one_sided == len(rows)
    assert tally.one_sided == 0
    assert set(tally.unlike) <= {feature.name for feature in written.pipeline.features if feature.by is not None}
    assert all(one.number < rows[-1]["number"] / 2 for one in tally.first)


def test_a_wrong_value_behind_the_cut_of_a_log_is_found(written: Written) -> None:
    """What needs no past is compared as ever."""
    number = written.rows()[-2]["number"]
    written.change(number, lambda row: row | {"vector": [-5.0, *row["vector"][1:]]})

    assert written.tally(log_start=len(written.log) // 4).unlike["amount"] == 1


def test_events_of_a_cut_log_are_told_apart_by_all_that_names_them(written: Written) -> None:
    """Equal rows have equal names; a row that differs in one column has another."""
    row = written.rows()[3] | {"key": "k1"}
    others = [row | change for change in ({"id": "x"}, {"key": "x"}, {"time": 1}, {"produced": 1}, {"key": None})]
    swapped = row | {"id": row["key"], "key": row["id"]}
    found = names(batch_of(written.schema, [row, *others, swapped])).tolist()

    assert len(set(found)) == 7
    assert names(batch_of(written.schema, [row])).tolist() == found[:1]


def test_a_name_met_twice_in_a_cut_log_is_the_first_row(written: Written) -> None:
    """A twin whose first half is remembered no more: the stream gave the name's number to the first."""

    class Twins(Recomputation):
        def written(self, records: Records) -> Iterator[tuple[int, Table]]:
            yield PARTITION, batch_of(written.schema, written.rows()[:6])

    numbers = iter([[3, -1, 5, 3, 8, 5]])
    twins = Twins(written.pipeline, PARTITION, written.world.control())
    course = Course(PARTITION, twins, MemoryFeed(written.log))
    course.end = 1
    replica = Replica(course, PARTITION, "number", lambda rows: np.array(next(numbers)))

    assert replica.fetch()
    assert replica.number_B.tolist() == [3, 5, 8]
    assert replica.table is not None
    assert replica.table.numbers("number").tolist() == [0, 2, 4]
    assert replica.unserved == 3


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(audit).failed == 0
