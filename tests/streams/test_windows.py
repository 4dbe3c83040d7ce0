"""Sliding windows: the definition case by case, against brute force, and how much memory they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams.entities import packed
from streams.pipeline import Feature
from streams.planning import make_plan
from streams.windows import ARENA_END, ARENA_LIMIT, KEPT
from tests import kernels
from tests.aggregate_reference import Row, bucket, covered_rows
from tests.featurizing import SECOND, SOURCE, START, assert_same, event, mark_clocks, reference_run, run, small_pipeline

WIDTH_S = 12  # so that a bucket is one second


def counts(times_s: list[float], width_us: int = WIDTH_S * SECOND) -> list[int]:
    """How many earlier rows each event of one key covers."""
    of = small_pipeline((Feature("n", "count", "*", "key", width_us),))
    rows = [event(str(n), time_s) for n, time_s in enumerate(times_s)]
    return [int(row["vector"][0]) for _, row in run(FeatureTask(of, 0, SOURCE), of, rows)]


def test_the_start_of_these_tests_is_aligned() -> None:
    """The cases below count seconds from a bucket's edge."""
    assert START % (WIDTH_S * SECOND) == 8 * SECOND
    assert START % SECOND == 0


def test_a_row_in_order_covers_its_bucket_and_eleven_before() -> None:
    """Bucket 11 still sees bucket 0, bucket 12 does not, whatever the place inside the bucket."""
    assert counts([0.0, 11.999999]) == [0, 1]
    assert counts([0.999999, 12.0]) == [0, 0]
    assert counts([0.0, 0.999999, 5.0, 11.5, 12.0, 16.5]) == [0, 1, 2, 3, 2, 3]


def test_a_row_out_of_order_does_not_cover_its_own_bucket() -> None:
    """It covers buckets b-11 to b-1, and counts for later rows in its bucket."""
    assert counts([0.0, 5.5, 5.2]) == [0, 1, 1]
    assert counts([0.0, 5.5, 4.5, 4.2, 5.1, 6.0]) == [0, 1, 1, 1, 3, 5]


def test_rows_of_one_time_follow_the_log() -> None:
    """A tie is in order: each covers those before it."""
    assert counts([3.0, 3.0, 3.0]) == [0, 1, 2]


def test_a_row_out_of_order_sees_buckets_that_rows_in_order_no_longer_cover() -> None:
    """Newest in bucket 22: a row in bucket 11 still covers bucket 0, which has left the window long ago."""
    assert counts([0.0, 22.0, 11.0]) == [0, 0, 1]
    assert counts([0.0, 22.0, 12.0]) == [0, 0, 0]


def test_late_rows_are_counted_and_kept_out_of_buckets_that_are_gone() -> None:
    """Older than the window is late; it counts for rows out of order only as far as its bucket is still kept."""
    of = small_pipeline(
        (Feature("n", "count", "*", "key", WIDTH_S * SECOND), Feature("m", "count", "*", "key", 60 * SECOND))
    )
    task = FeatureTask(of, 0, SOURCE)
    rows = [
        event("new", 30),
        event("edge", 19),
        event("late", 18),
        event("gone", 7),
        event("back", 19.5),
        event("now", 30),
    ]

    out = [row["vector"][0] for _, row in run(task, of, rows)]

    assert out == [0, 0, 0, 0, 1, 3]
    assert task.late_rows() == {WIDTH_S * SECOND: 2, 60 * SECOND: 0}


def test_buckets_are_aligned_to_the_epoch_also_before_it() -> None:
    """Windows that no whole number of microseconds divides, and times before 1970, follow floor(t / (w/12))."""
    of = small_pipeline((Feature("n", "count", "*", "key", 7),))
    rows: list[Row] = [{**event(str(n), 0), "time": time_us} for n, time_us in enumerate(range(-20, 20))]

    assert_same(run(FeatureTask(of, 0, SOURCE), of, rows), reference_run(of, rows).out)


def test_sums_are_added_again_never_subtracted() -> None:
    """A huge value that has left the window leaves no rounding behind."""
    of = small_pipeline((Feature("sum", "sum", "amount", "key", WIDTH_S * SECOND),))
    rows = [event("huge", 0, amount=1e17), event("a", 5, amount=0.1), event("b", 13, amount=0.2), event("c", 14)]

    assert [row["vector"][0] for _, row in run(FeatureTask(of, 0, SOURCE), of, rows)] == [0.0, 1e17, 0.1, 0.1 + 0.2]


@given(
    steps=st.lists(st.tuples(st.integers(-30_000, 14_000), st.integers(0, 1)), min_size=1, max_size=120),
    width_us=st.sampled_from([5, 1_200, 12_000, 12_001, 60_000, 1_000_000]),
)
def test_any_order_of_rows_follows_the_definition(steps: list[tuple[int, int]], width_us: int) -> None:
    """Counts, sums and means equal brute force for rows that jump back and forth, over two keys."""
    of = small_pipeline(
        (
            Feature("n", "count", "*", "key", width_us),
            Feature("sum", "sum", "amount", "key", width_us),
            Feature("mean", "mean", "amount", "key", width_us),
            Feature("n_is_new", "count", "is_new", "key", 3 * width_us),
        )
    )
    rows, now = [], START
    for number, (step, key) in enumerate(steps):
        row = event(
            str(number), 0, f"key {key}", amount=None if step % 5 == 0 else step / 7, is_new=1.0 if step % 3 else None
        )
        row["time"] = now + step
        now = max(now, row["time"])
        rows.append(row)
    task, reference = FeatureTask(of, 0, SOURCE), reference_run(of, rows)

    assert_same(run(task, of, rows), reference.out)
    assert {width: late for width, late in task.late_rows().items() if late} == reference.late


def test_the_reference_reads_the_definition() -> None:
    """The brute force itself, on the example in docs/features.md."""
    past = [{"time": time_us} for time_us in (0, 999_999, 1_000_000, 11_999_999)]

    assert bucket(-1, WIDTH_S * SECOND) == -1
    assert len(covered_rows(past, 11_999_999, 11_999_999, WIDTH_S * SECOND)) == 4
    assert len(covered_rows(past, 12_000_000, 11_999_999, WIDTH_S * SECOND)) == 2
    assert len(covered_rows(past, 11_000_000, 11_999_999, WIDTH_S * SECOND)) == 3


def test_chunks_have_room_for_what_they_hold() -> None:
    """Room grows by a quarter, in steps of two, up to the 22 buckets that are kept."""
    rooms = [kernels.room(held) for held in range(1, KEPT + 1)]

    assert all(held <= room <= KEPT for held, room in enumerate(rooms, 1))
    assert rooms == sorted(rooms)
    assert {room % 2 for room in rooms} == {0}


@pytest.mark.parametrize("bits", [0, 1, 0b1011, (1 << 22) - 1, (1 << 44) - 1 & 0x3FFFFF, 0xFFFFFFFF])
def test_ones_are_counted(bits: int) -> None:
    """The count of filled buckets is the count of ones."""
    assert kernels.ones(bits) == bits.bit_count()


def test_memory_is_bounded_by_buckets_not_rows() -> None:
    """100,000 rows over five keys and a thousand windows of time take what 22 buckets a key take."""
    of = small_pipeline((Feature("mean", "mean", "amount", "key", WIDTH_S * SECOND),))
    task = FeatureTask(of, 0, SOURCE)
    rng = np.random.default_rng(1)
    for start in range(0, 20_000, 2_000):
        rows = [event(str(n), n * 0.6 - 20 * rng.random(), f"key {n % 5}") for n in range(start, start + 2_000)]
        run(task, of, rows, mark_clocks(rows))
    state = task.state()

    assert state["windows.used"][0] == 5
    assert state["windows.arena"].size < 6_000


def test_packing_makes_room_for_chunks_that_are_all_full() -> None:
    """Chunks that hold as much as they can get more room when packed; the new arena must hold all of it."""
    of = small_pipeline((Feature("sum", "sum", "amount", "key", WIDTH_S * SECOND),))
    task, plan = FeatureTask(of, 0, SOURCE), make_plan(of).plan
    rows = [event(f"{key} {n}", n, f"key {key}", amount=n + key) for n in range(5) for key in range(500)]
    run(task, of, rows[:2_000])
    task._stage = task._stage._replace(windows=packed(task._stage.windows, plan, 10))
    run(task, of, rows[2_000:])
    before = task._stage.windows
    live = int(before.used[ARENA_END])

    after = packed(before, plan, 10)

    assert after.arena.size > 2 * live
    assert live < after.used[ARENA_END] < after.used[ARENA_LIMIT] <= after.arena.size
    task._stage = task._stage._replace(windows=after)
    again = [event(f"{key} 5", 5, f"key {key}") for key in range(500)]
    assert [row["vector"][0] for _, row in run(task, of, again)] == [10.0 + 5 * key for key in range(500)]
