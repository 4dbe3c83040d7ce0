"""Merging partitions by time: equal to taking one row at a time, and who waits for whom."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.building import locate
from streams.frames import AMENDED, BEGINNING, END, MISSING, NO_OUTCOME, RETRACTED, SET
from streams.merging import LIVE_AGE_US, Aligner, Intake, merge_keys, merge_order, spread_order
from streams.records import HeldRecords, Record
from tests.rows import log_rows

WAIT_US = 500_000
OLD_US = 100 * LIVE_AGE_US


class Row(NamedTuple):
    """A row to merge: an event, or a row that is taken at once."""

    time: int
    is_at_once: bool = False


def filled(rank: int, partition: int, rows: list[Row], *, mark: int = BEGINNING, stamp_us: int = 0) -> Intake:
    """An intake with rows, one per message, beginning at offset 0."""
    intake = Intake(rank, partition)
    add(intake, rows, 0, stamp_us=stamp_us)
    intake.mark = mark
    return intake


def add(intake: Intake, rows: list[Row], offset: int, stamp_us: int = 0) -> None:
    """Append rows, one per message."""
    batch = log_rows([{"kind": "mark" if row.is_at_once else "event", "time": row.time} for row in rows])
    offsets = np.arange(offset, offset + len(rows))
    intake.add(batch, offsets, np.full(len(rows), stamp_us), offset + len(rows))


def times_of(intake: Intake, count: int) -> list[int]:
    """Take rows and give their times."""
    times: list[int] = intake.take(count)[0].numbers("time").tolist()
    return times


def replay() -> Aligner:
    """As demo, replay and backfill run."""
    return Aligner(is_replay=True, align_wait_us=WAIT_US)


# Merge keys


def test_keys_are_the_running_maximum_over_events_and_settled_labels() -> None:
    """What is older than its predecessor goes with it; marks and labels settled otherwise move nothing."""
    rows = log_rows(
        [
            {"kind": "mark", "time": 90},
            {"kind": "event", "time": 5},
            {"kind": "event", "time": 3},
            {"kind": "label", "time": 8, "outcome": SET},
            *({"kind": "label", "time": 50, "outcome": outcome} for outcome in (MISSING, AMENDED, RETRACTED)),
            {"kind": "mark", "time": 60},
            {"kind": "event", "time": 9, "outcome": NO_OUTCOME},
        ]
    )

    assert merge_keys(rows, BEGINNING).tolist() == [BEGINNING, 5, 5, 8, 8, 8, 8, 8, 9]
    assert merge_keys(rows, 7).tolist() == [7, 7, 7, 8, 8, 8, 8, 8, 9]
    (located,) = locate(rows.layout, HeldRecords("log", 0, [Record(rows.message(), 0, 0)]))
    for piece in (located.slice(2, 6), rows.slice(2, 6)):
        assert merge_keys(piece, 1).tolist() == [3, 8, 8, 8, 8, 8]


@given(times=st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5), data=st.data())
def test_frames_that_lie_in_their_records_are_taken_as_tables(times: list[list[int]], data: st.DataObject) -> None:
    """However they are cut: the same rows, keys, bounds, positions and stamps."""
    tables = [log_rows([{"kind": "event", "time": time, "id": f"e{time}"} for time in part]) for part in times]
    made = [Record(rows.message(), 10 * at, 1_000 + at) for at, rows in enumerate(tables)]
    eager, lazy, end = Intake(0, 3), Intake(0, 3), 10 * len(tables)
    for at, (rows, located) in enumerate(
        zip(tables, locate(tables[0].layout, HeldRecords("log", 3, made)), strict=True)
    ):
        offsets, stamps = np.full(rows.num_rows, 10 * at), np.full(rows.num_rows, 1_000 + at)
        eager.add(rows, offsets, stamps, end)
        lazy.add(located, offsets, stamps, end)

    while eager.rows:
        assert (lazy.rows, lazy.head, lazy.head_stamp) == (eager.rows, eager.head, eager.head_stamp)
        assert (lazy.position, lazy.bound) == (eager.position, eager.bound)
        count = data.draw(st.integers(1, eager.rows))
        (rows, keys), (own_rows, own_keys) = eager.take(count), lazy.take(count)
        assert own_rows.message() == rows.message()
        assert own_keys.tolist() == keys.tolist()
    assert (lazy.rows, lazy.position) == (0, eager.position)


# One row at a time


def brute_force(partitions: list[tuple[int, int, list[Row]]]) -> list[tuple[int, int, int]]:
    """Take row by row the head with the smallest (running maximum, rank, partition): gives (rank, partition, place)."""
    places = [0] * len(partitions)
    highest = [BEGINNING] * len(partitions)
    order: list[tuple[int, int, int]] = []
    while True:
        heads = []
        for i, (rank, partition, rows) in enumerate(partitions):
            if places[i] < len(rows):
                row = rows[places[i]]
                key = highest[i] if row.is_at_once else max(highest[i], row.time)
                heads.append((key, rank, partition, i))
        if not heads:
            return order
        key, rank, partition, i = min(heads)
        order.append((rank, partition, places[i]))
        highest[i] = key
        places[i] += 1


rows_lists = st.lists(st.builds(Row, st.integers(0, 9), st.sampled_from([False, False, False, True])), max_size=8)


many = st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 2)), rows_lists, min_size=1, max_size=4)


@given(many=many, seed=st.integers(0, 2**32))
def test_equals_one_row_at_a_time_however_rows_arrive(many: dict[tuple[int, int], list[Row]], seed: int) -> None:
    """Replay: over all polls, the rows taken and merged are in the order of the brute-force merge."""
    rng, keys = random.Random(seed), list(many)
    partitions = [(rank, partition, rows) for (rank, partition), rows in many.items()]
    intakes = [Intake(rank, partition) for rank, partition, _ in partitions]
    given_, taken, aligner = [0] * len(keys), [0] * len(keys), replay()
    found: list[tuple[int, int, int]] = []
    while sum(taken) < sum(len(rows) for _, _, rows in partitions):
        for i, (_, _, rows) in enumerate(partitions):
            size = rng.randint(0, len(rows) - given_[i])
            add(intakes[i], rows[given_[i] : given_[i] + size], given_[i])
            given_[i] += size
            if given_[i] == len(rows):
                intakes[i].mark = END
        parts = []
        counts = aligner.capped(intakes, aligner.counts(intakes, OLD_US), rng.choice([1, 3, 99]))
        for i, count in enumerate(counts):
            if count:
                parts.append((i, [taken[i] + place for place in range(count)], intakes[i].take(count)[1]))
                taken[i] += count
        if parts:
            names = [(*keys[i], place) for i, places, _ in parts for place in places]
            order = merge_order([part[2] for part in parts], [intakes[part[0]] for part in parts])
            found += names if order is None else [names[at] for at in order.tolist()]

    assert found == brute_force(partitions)


def test_a_step_takes_about_so_many_rows_up_to_one_common_key() -> None:
    """A slow role must stop in time too: the cut falls at one merge key, so that no order changes."""
    intakes = [filled(0, 0, [Row(1), Row(4), Row(5), Row(6)]), filled(1, 0, [Row(2), Row(3), Row(4), Row(9)])]

    assert replay().capped(intakes, [4, 4], 4) == [1, 2]
    assert replay().capped(intakes, [4, 4], 8) == [4, 4]
    assert replay().capped(intakes, [4, 0], 2) == [2, 0]


def test_ties_go_to_events_then_to_the_lower_partition() -> None:
    """An event and a label of the same time: the event is predicted before the label is learned."""
    labels = filled(1, 0, [Row(5)])
    later, first = filled(0, 1, [Row(5)]), filled(0, 0, [Row(5)])
    taken = [intake.take(1)[1] for intake in (labels, later, first)]

    order = merge_order(taken, [labels, later, first])

    assert order is not None
    assert order.tolist() == [2, 1, 0]


def test_a_tie_is_not_taken_while_the_one_before_it_may_still_come() -> None:
    """A label waits for an event of the same time; an event does not wait for a label of the same time."""
    events, labels = filled(0, 0, [], mark=5), filled(1, 0, [Row(5)])

    assert replay().counts([events, labels], OLD_US) == [0, 0]
    assert replay().counts([filled(0, 0, [Row(5)]), filled(1, 0, [], mark=5)], OLD_US) == [1, 0]


def test_every_partition_gives_all_its_rows_up_to_the_common_horizon() -> None:
    """Merging costs no small batches: kernels run on everything that may be taken."""
    events = filled(0, 0, [Row(1), Row(2), Row(7), Row(9)])
    labels = filled(1, 0, [Row(3), Row(6), Row(8)])

    assert replay().counts([events, labels], OLD_US) == [3, 3]
    assert (times_of(events, 3), times_of(labels, 3)) == ([1, 2, 7], [3, 6, 8])


@given(
    runs=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 3),
            st.lists(st.tuples(st.sampled_from([BEGINNING, 0, 1, 2, 3, END]), st.integers(-1, 2)), max_size=8),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda run: run[:2],
    )
)
def test_rows_for_many_targets_keep_the_same_order(runs: list[tuple[int, int, list[tuple[int, int]]]]) -> None:
    """Merging once for all targets gives each what merging its rows alone would have given."""
    keys = [np.array(sorted(key for key, _ in rows), np.int64) for _, _, rows in runs]
    targets = [np.array([target for _, target in rows], np.int64) for _, _, rows in runs]
    intakes = [Intake(rank, partition) for rank, partition, _ in runs]

    order, ends = spread_order(keys, targets, intakes, 3)

    whole = merge_order(keys, intakes)
    going = np.concatenate(targets)
    whole = np.arange(going.size) if whole is None else whole
    expected = [whole[going[whole] == target].tolist() for target in range(3)]
    assert [part.tolist() for part in np.split(order[: ends[-1]], ends[:-1])] == expected


def test_one_output_needs_no_order() -> None:
    """Outputs of one partition stay as they are."""
    assert merge_order([np.array([3, 1])], [Intake(0, 0)]) is None


# Waiting


def test_replay_waits_for_ever_for_an_empty_partition_behind_the_head() -> None:
    """Then no label is learned before an earlier event was predicted; its mark or its rows end the waiting."""
    empty, full, aligner = filled(0, 0, []), filled(1, 0, [Row(5), Row(6)]), replay()

    assert [aligner.counts([empty, full], now) for now in (0, OLD_US, END // 2)] == [[0, 0]] * 3
    empty.mark = 5
    assert aligner.counts([empty, full], OLD_US) == [0, 0]
    empty.mark = 6
    assert aligner.counts([empty, full], OLD_US) == [0, 1]
    empty.mark = END
    assert aligner.counts([empty, full], OLD_US) == [0, 2]


def test_replay_waits_though_the_head_is_young() -> None:
    """History published a moment ago is history."""
    assert replay().counts([filled(0, 0, []), filled(1, 0, [Row(5)], stamp_us=1_000)], 1_000) == [0, 0]


def test_live_never_waits() -> None:
    """While the head is under 5 s old everything at hand is taken."""
    aligner = Aligner(is_replay=False, align_wait_us=WAIT_US)
    intakes = [filled(0, 0, []), filled(1, 0, [Row(5), Row(9)], stamp_us=1_000)]

    assert aligner.counts(intakes, 1_000 + LIVE_AGE_US - 1) == [0, 2]
    assert aligner.counts(intakes, 1_000 + LIVE_AGE_US) == [0, 0]


@pytest.mark.parametrize(
    ("first", "stamps", "counts"),
    [
        (5, (LIVE_AGE_US, 0), [2, 2]),  # the smallest head is live, though another is not
        (5, (0, LIVE_AGE_US), [1, 2]),
        (6, (LIVE_AGE_US, 0), [2, 2]),  # of equal times the first partition's is the smallest
        (6, (0, LIVE_AGE_US), [1, 2]),
        (7, (0, LIVE_AGE_US), [2, 2]),
        (7, (LIVE_AGE_US, 0), [1, 2]),
    ],
)
def test_the_smallest_head_says_whether_all_is_live(first: int, stamps: tuple[int, int], counts: list[int]) -> None:
    """Only where it is no longer live rows are taken up to what all partitions have reached."""
    aligner, now = Aligner(is_replay=False, align_wait_us=WAIT_US), LIVE_AGE_US
    rows = [Row(first), Row(9)], [Row(6), Row(8)]

    found = [filled(0, place, own, stamp_us=stamp) for place, (own, stamp) in enumerate(zip(rows, stamps, strict=True))]

    assert aligner.counts(found, now) == counts


def test_catching_up_waits_at_most_align_wait() -> None:
    """Then the empty partition is passed over, and what is at hand elsewhere is still merged."""
    aligner = Aligner(is_replay=False, align_wait_us=WAIT_US)
    intakes = [filled(0, 0, []), filled(0, 1, [Row(5), Row(9)]), filled(1, 0, [Row(7)])]

    assert aligner.counts(intakes, OLD_US) == [0, 0, 0]
    assert aligner.counts(intakes, OLD_US + WAIT_US - 1) == [0, 0, 0]
    assert aligner.counts(intakes, OLD_US + WAIT_US) == [0, 1, 1]


def test_rows_that_flow_reset_the_wait() -> None:
    """The wait is for one blockage: it begins anew after rows were taken."""
    aligner = Aligner(is_replay=False, align_wait_us=WAIT_US)
    empty, full = filled(0, 0, []), filled(1, 0, [Row(5), Row(9)])

    assert aligner.counts([empty, full], OLD_US) == [0, 0]
    empty.mark = 6
    assert aligner.counts([empty, full], OLD_US + 400_000) == [0, 1]
    full.take(1)
    assert aligner.counts([empty, full], OLD_US + 600_000) == [0, 0]
    assert aligner.counts([empty, full], OLD_US + 600_000 + WAIT_US) == [0, 1]


@pytest.mark.parametrize("is_replay", [True, False])
def test_one_partition_alone_waits_for_nobody(is_replay: bool) -> None:
    """All its rows are taken at once, and none when there are none."""
    aligner = Aligner(is_replay=is_replay, align_wait_us=WAIT_US)

    assert aligner.counts([filled(0, 0, [Row(5), Row(3)])], OLD_US) == [2]
    assert aligner.counts([filled(0, 0, [])], OLD_US) == [0]
    assert aligner.counts([], OLD_US) == []


def test_rows_taken_at_once_do_not_wait_for_their_own_time() -> None:
    """A mark of the future stands with the rows before it, at the head of a partition before all."""
    full, empty = filled(0, 0, [Row(100, is_at_once=True), Row(4), Row(100, is_at_once=True)]), filled(1, 0, [], mark=4)

    assert replay().counts([full, empty], OLD_US) == [3, 0]
    assert replay().counts([filled(0, 0, [Row(100, is_at_once=True)]), filled(1, 0, [])], OLD_US) == [1, 0]


# Positions


def test_the_position_is_the_first_message_not_wholly_taken() -> None:
    """A frame half taken is read again after a crash; the memory skips its done rows."""
    intake = Intake(0, 0)
    before = intake.position
    rows = log_rows([{"kind": "event", "time": time} for time in (1, 2, 3, 4)])
    intake.add(rows, np.array([7, 7, 8, 8]), np.zeros(4, np.int64), 9)
    found = [intake.position]
    for _ in range(4):
        intake.take(1)
        found.append(intake.position)

    assert (before, found) == (-1, [7, 7, 8, 8, 9])


def test_messages_without_rows_move_the_position() -> None:
    """What was read and gave nothing need not be read again, unless rows before it wait."""
    intake = Intake(0, 0)
    none = log_rows([])
    nothing = np.empty(0, np.int64)
    intake.add(none, nothing, nothing, 5)
    first = intake.position
    add(intake, [Row(1)], 5)
    intake.add(none, nothing, nothing, 9)
    waiting = intake.position
    intake.take(1)

    assert (first, waiting, intake.position) == (5, 5, 9)


def test_taking_joins_what_came_in_several_polls() -> None:
    """One batch leaves, with the keys of its rows, however it arrived."""
    intake = filled(0, 0, [Row(3), Row(1)])
    add(intake, [Row(2), Row(8)], 2)

    rows, keys = intake.take(3)

    assert rows.numbers("time").tolist() == [3, 1, 2]
    assert keys.tolist() == [3, 3, 3]
    assert (intake.rows, intake.head.time, intake.bound.time) == (1, 8, 8)
