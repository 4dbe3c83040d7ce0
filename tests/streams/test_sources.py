"""What a reader remembers of its sources: repeats, holes, clocks, and the same wherever it is interrupted."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.control import Claim, Control
from streams.errors import FrameError, HoleError
from streams.frames import BEGINNING, COMMAND, END, MARK, VERSION
from streams.sources import SourceMemory
from streams.tables import Table
from tests.rows import claim_of, control, log_rows

_GROUP = {"events": "events", "labels": "labels", "rows": "labels"}


class Row(NamedTuple):
    """One row: of a source, with a sequence, or a mark with a time."""

    source: int
    sequence: int = -1
    mark: int | None = None


def batch_of(rows: list[Row]) -> Table:
    """Log rows of events and marks."""
    return log_rows(
        [
            {"kind": "event" if row.mark is None else "mark", "source": row.source, "sequence": row.sequence,
             "time": 0 if row.mark is None else row.mark}
            for row in rows
        ]
    )  # fmt: skip


def sequences(memory: SourceMemory, *rows: Row) -> list[int]:
    """Admit rows and give the sequences that were kept."""
    kept: list[int] = memory.admit(batch_of(list(rows)))[0].rows.numbers("sequence").tolist()
    return kept


# Repeats and holes


def test_a_row_is_taken_once() -> None:
    """Rows at or below the last sequence taken of their source are dropped and counted."""
    known = control()
    source = known.claim(claim_of())
    memory = SourceMemory(known)

    first = sequences(memory, Row(source, 0), Row(source, 1), Row(source, 0), Row(source, 1), Row(source, 2))
    again = sequences(memory, Row(source, 1), Row(source, 2), Row(source, 3))

    assert (first, again, memory.repeats) == ([0, 1, 2], [3], 4)


def test_sources_are_told_apart() -> None:
    """Each source has numbers of its own, also within one frame."""
    known = control()
    a, b = (known.claim(claim_of(partition=p, siblings=2)) for p in range(2))
    memory = SourceMemory(known)

    assert sequences(memory, Row(a, 0), Row(b, 0), Row(a, 1), Row(b, 0), Row(b, 1), Row(a, 1)) == [0, 0, 1, 1]


def test_the_indexes_kept_come_with_the_batch() -> None:
    """Merge keys of dropped rows are dropped too; None says that nothing was."""
    known = control()
    source = known.claim(claim_of())
    memory = SourceMemory(known)

    _, all_kept = memory.admit(batch_of([Row(source, 0), Row(source, 1)]))
    _, some_kept = memory.admit(batch_of([Row(source, 1), Row(source, 2), Row(source, 2), Row(source, 3)]))

    assert all_kept is None
    assert some_kept is not None
    assert some_kept.tolist() == [1, 3]


def test_a_hole_stops_the_reader_with_its_coordinates() -> None:
    """A missing row on an inner topic is never passed over in silence."""
    known = control()
    source = known.claim(claim_of(partition=0))
    memory = SourceMemory(known)
    sequences(memory, Row(source, 0), Row(source, 1))

    with pytest.raises(HoleError, match=f"source {source} .features, partition 0. went from sequence 1 to 3"):
        sequences(memory, Row(source, 2 - 1), Row(source, 3))


def test_a_reader_from_the_start_demands_sequence_0_first() -> None:
    """Rows that were cut away before the first one read are a hole."""
    known = control()
    source = known.claim(claim_of())

    with pytest.raises(HoleError, match="from sequence -1 to 1"):
        sequences(SourceMemory(known), Row(source, 1))


def test_a_reader_from_the_middle_counts_jumps() -> None:
    """It cannot know where sources stood; it keeps that fact, and how often they jumped, in its snapshot."""
    known = control()
    source = known.claim(claim_of())
    memory = SourceMemory(known)
    memory.is_from_start = False

    kept = sequences(memory, Row(source, 5), Row(source, 6), Row(source, 9))
    copy = SourceMemory(known)
    copy.restore(memory.state())

    assert kept == [5, 6, 9]
    assert (copy.is_from_start, copy.jumps, copy.repeats) == (False, 2, 0)


def test_gaps_are_normal_in_ingests_sources() -> None:
    """Their sequence is the raw offset: going back is a repeat, gaps are records of another kind or partition."""
    known = control()
    source = known.claim(claim_of(stream="ingest", kind="events", is_gapless=False))
    memory = SourceMemory(known, is_log=True)

    assert sequences(memory, Row(source, 3), Row(source, 8), Row(source, 5), Row(source, 9)) == [3, 8, 9]
    assert memory.jumps == 0


def test_an_unclaimed_source_stops_the_reader() -> None:
    """P.control is read to its end, then the reader stops: the row's origin is unknown."""
    with pytest.raises(FrameError, match="source 7 is not claimed"):
        sequences(SourceMemory(control()), Row(7, 0))


@pytest.mark.parametrize("kind", [VERSION, COMMAND])
def test_version_and_command_rows_are_outside_the_numbering(kind: int) -> None:
    """They have no source, are never dropped, and move no clock."""
    known = control()
    source = known.claim(claim_of())
    memory = SourceMemory(known)
    rows = log_rows([{"kind": "mark", "source": source, "time": 5}, {"kind": kind, "time": 9}, {"kind": kind}])

    batch, kept = memory.admit(rows)

    assert kept is None
    assert batch.clock.tolist() == [5, 5, 5]


def test_no_rows_are_no_rows() -> None:
    """A frame may hold nothing."""
    batch, kept = SourceMemory(control()).admit(batch_of([]))

    assert (batch.rows.num_rows, batch.clock.size, kept) == (0, 0, None)


# Clocks


def test_a_mark_only_raises_a_maximum() -> None:
    """Marks are outside the numbering: repeats and older ones change nothing, and none is dropped."""
    known = control()
    source = known.claim(claim_of())

    batch, kept = SourceMemory(known).admit(batch_of([Row(source, mark=m) for m in (5, 3, 9, 9, END)]))

    assert kept is None
    assert batch.clock.tolist() == [5, 5, 9, 9, END]


def test_a_clock_waits_for_siblings_not_heard_of() -> None:
    """With three input partitions two marks say nothing yet: the third counts as minus infinity."""
    known = control()
    a, b, c = (known.claim(claim_of(partition=p, siblings=3)) for p in range(3))

    batch, _ = SourceMemory(known).admit(batch_of([Row(a, mark=5), Row(b, mark=4), Row(c, 0), Row(c, mark=7)]))

    assert batch.clock.tolist() == [BEGINNING, BEGINNING, BEGINNING, 4]


def test_a_reader_may_be_told_how_many_sources_it_has() -> None:
    """A partition of P.features is written by one source, whatever its siblings write elsewhere."""
    known = control()
    source = known.claim(claim_of(siblings=8))

    batch, _ = SourceMemory(known, heard_needed=1).admit(batch_of([Row(source, mark=5)]))

    assert batch.clock.tolist() == [5]


def test_the_logs_clocks_are_labels_and_both() -> None:
    """Missing labels go by the labels' marks; what is forgotten goes by the smallest of both (PROTOCOL 12)."""
    known = control()
    events = known.claim(claim_of(stream="ingest", topic_id="e", kind="events", is_gapless=False))
    labels = known.claim(claim_of(stream="ingest", topic_id="l", kind="labels", is_gapless=False))
    memory = SourceMemory(known, is_log=True)

    batch, _ = memory.admit(batch_of([Row(labels, mark=9), Row(events, mark=4), Row(events, mark=20)]))

    assert batch.label_clock.tolist() == [9, 9, 9]
    assert batch.clock.tolist() == [BEGINNING, 4, 9]
    assert (memory.label_clock, memory.clock) == (9, 9)


def test_a_newer_generation_ends_the_one_it_replaces() -> None:
    """Its mark leaves the minimum, and it is no longer among the living; the other partition stays."""
    known = control()
    old, other = (known.claim(claim_of(partition=p, siblings=2)) for p in range(2))
    new = known.claim(claim_of(partition=0, siblings=2, generation=1))
    memory = SourceMemory(known)

    batch, _ = memory.admit(batch_of([Row(old, mark=3), Row(other, mark=8), Row(new, 0), Row(new, mark=6)]))

    assert batch.clock.tolist() == [BEGINNING, 3, BEGINNING, 6]
    assert [number for number, _ in memory.alive()] == [other, new]


def test_an_older_generation_met_late_is_born_dead() -> None:
    """A reader that began in the middle may meet a zombie's rows after its successor's."""
    known = control()
    old, new = (known.claim(claim_of(generation=g)) for g in range(2))
    memory = SourceMemory(known)

    batch, _ = memory.admit(batch_of([Row(new, mark=6), Row(old, mark=3)]))

    assert batch.clock.tolist() == [6, 6]
    assert [number for number, _ in memory.alive()] == [new]


def test_a_recreated_topic_ends_all_sources_of_the_old_one() -> None:
    """Also those of partitions that the new topic does not have: they would hold the clock for ever."""
    known = control()
    old = [known.claim(claim_of(topic_id="old", partition=p, siblings=3)) for p in range(3)]
    new = known.claim(claim_of(topic_id="new", partition=0, siblings=1))
    memory = SourceMemory(known)

    batch, _ = memory.admit(batch_of([*(Row(number, mark=3) for number in old), Row(new, mark=7)]))

    assert batch.clock.tolist() == [BEGINNING, BEGINNING, 3, 7]
    assert [number for number, _ in memory.alive()] == [new]


def test_a_topic_that_grows_keeps_its_sources() -> None:
    """More partitions are more siblings to wait for, not other sources: their repeats are still known."""
    known = control()
    before = known.claim(claim_of(partition=0, siblings=1))
    after = known.claim(claim_of(partition=0, siblings=2))
    added = known.claim(claim_of(partition=1, siblings=2))
    memory = SourceMemory(known)

    batch, _ = memory.admit(batch_of([Row(after, mark=5), Row(added, 0), Row(before, mark=7), Row(added, mark=6)]))

    assert before == after
    assert batch.clock.tolist() == [5, BEGINNING, BEGINNING, 6]


# The same wherever it is interrupted


class Reference:
    """The memory, row by row, in plain words."""

    def __init__(self, claims: dict[int, Claim], *, is_log: bool) -> None:
        self.claims = claims
        self.last: dict[int, int] = {}
        self.marks: dict[int, int] = {}
        self.groups = ("events", "labels") if is_log else ("labels",)

    def take(self, row: Row) -> tuple[bool, int, int]:
        """Give whether the row is kept and both clocks after it."""
        self.last.setdefault(row.source, -1)
        self.marks.setdefault(row.source, BEGINNING)
        if row.mark is not None:
            self.marks[row.source] = max(self.marks[row.source], row.mark)
            is_kept = True
        else:
            is_kept = row.sequence > self.last[row.source]
            self.last[row.source] = max(self.last[row.source], row.sequence)
        clocks = [self._clock(group) for group in self.groups]
        return is_kept, clocks[-1], min(clocks)

    def _clock(self, group: str) -> int:
        ours = [n for n in self.last if _GROUP[self.claims[n].kind] == group]
        if not ours:
            return BEGINNING
        topic = self.claims[max(ours)].topic_id
        newest = {self.claims[n].partition: n for n in sorted(ours) if self.claims[n].topic_id == topic}
        if len(newest) < max(self.claims[n].siblings for n in newest.values()):
            return BEGINNING
        return min(self.marks[n] for n in newest.values())


def claimed(known: Control, *, is_log: bool) -> dict[int, Claim]:
    """Sources of two topics one after the other, of two partitions and two generations."""
    kinds = ("events", "labels") if is_log else ("rows",)
    claims = [
        claim_of(stream="w", topic_id=f"{kind}-{topic}", partition=p, kind=kind, generation=g, siblings=2 - topic,
                 is_gapless=False)
        for topic in range(2)
        for g in range(2)
        for p in range(2 - topic)
        for kind in kinds
    ]  # fmt: skip
    return {known.claim(claim): claim for claim in claims}


@given(data=st.data(), is_log=st.booleans())
def test_equals_the_reference_wherever_it_is_cut_and_restored(data: st.DataObject, is_log: bool) -> None:
    """Batches may be cut anywhere and the memory saved and restored between any two: rows and clocks are the same."""
    known = control()
    claims = claimed(known, is_log=is_log)
    source = st.sampled_from(sorted(claims))
    row = st.builds(Row, source, st.integers(0, 6), st.none()) | st.builds(Row, source, st.just(-1), st.integers(0, 9))
    rows = data.draw(st.lists(row, max_size=30))
    reference = Reference(claims, is_log=is_log)
    answers = [(row, *reference.take(row)) for row in rows]
    expected = [(row, label_clock, clock) for row, is_kept, label_clock, clock in answers if is_kept]

    memory = SourceMemory(known, is_log=is_log)
    found: list[tuple[Row, int, int]] = []
    while rows:
        size = data.draw(st.integers(1, len(rows)))
        part, rows = rows[:size], rows[size:]
        batch, kept = memory.admit(batch_of(part))
        index = range(size) if kept is None else kept.tolist()
        found += list(zip([part[i] for i in index], batch.label_clock.tolist(), batch.clock.tolist(), strict=True))
        if data.draw(st.booleans()):
            memory = restored(memory, known, is_log=is_log)

    assert found == expected


def restored(memory: SourceMemory, known: Control, **settings: Any) -> SourceMemory:
    """A new memory with the state of another."""
    copy = SourceMemory(known, **settings)
    copy.restore(memory.state())
    assert (copy.label_clock, copy.clock, copy.repeats) == (memory.label_clock, memory.clock, memory.repeats)
    return copy


def test_a_saved_state_does_not_change_with_the_memory() -> None:
    """The arrays are written after the next rows were taken."""
    known = control()
    source = known.claim(claim_of())
    memory = SourceMemory(known)
    sequences(memory, Row(source, 0))
    state = memory.state()
    sequences(memory, Row(source, 1), Row(source, mark=4))

    assert (state["last"].tolist(), state["marks"].tolist()) == ([0], [BEGINNING])


def test_marks_are_kept_even_of_rows_that_are_all_repeats() -> None:
    """A frame read again still tells how far its writer was."""
    known = control()
    source = known.claim(claim_of())
    memory = SourceMemory(known)
    sequences(memory, Row(source, 0))

    batch, _ = memory.admit(batch_of([Row(source, 0), Row(source, mark=4)]))

    assert batch.rows.numbers("kind").tolist() == [MARK]
    assert batch.clock.tolist() == [4]
