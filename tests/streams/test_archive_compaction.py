"""Which segments are merged or let go of: a function of what there is."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import archive_compaction
from streams.archive import Segment, live, segment_name
from streams.archive_compaction import plan_compaction, plan_retention
from streams.durations import DAY_US, HOUR_US
from streams.frames import Column

COLUMNS = (Column("amount", is_category=False),)
NEWEST = "2013-01-09"


def segment(first: int, rows: int, day: str = "2013-01-01", columns: tuple[Column, ...] = COLUMNS) -> Segment:
    """One that has all the rows from its first one on."""
    last = first + rows
    return Segment(segment_name(day, first, last), first, last, day, rows, 1, "", columns, (), 0, 0, 0, rows)


def planned(segments: list[Segment], wait_us: int = 0) -> list[list[tuple[int, int]]]:
    """The ranges of what is to be merged, beside a newest day."""
    plan = plan_compaction([*segments, segment(10**9, 10, NEWEST)], wait_us)
    return [[(one.first, one.last) for one in run] for run in plan]


def test_a_day_is_merged_once_it_is_over_for_as_long_as_labels_are_waited_for() -> None:
    """The newest day never is, and neither is one whose events may still get labels."""
    pair = [segment(0, 10, "2013-01-07"), segment(10, 10, "2013-01-07")]

    assert planned(pair, DAY_US) == [[(0, 10), (10, 20)]]
    assert planned(pair, DAY_US + HOUR_US) == []
    assert planned([segment(one.first, 10, NEWEST) for one in pair]) == []
    assert plan_compaction([], 0) == []


def test_days_stay_apart_and_a_single_segment_stays_as_it_is() -> None:
    """However their rows overlap."""
    days = ["2013-01-01", "2013-01-02", "2013-01-01", "2013-01-02", "2013-01-03"]
    segments = [segment(10 * place, 10, day) for place, day in enumerate(days)]

    assert planned(segments) == [[(0, 10), (20, 30)], [(10, 20), (30, 40)]]


def test_segments_of_another_list_of_columns_are_not_merged() -> None:
    """A file has one list of columns."""
    other = (Column("amount", is_category=True),)
    segments = [segment(0, 10), segment(10, 10), segment(20, 10, columns=other), segment(30, 10, columns=other)]

    assert planned(segments) == [[(0, 10), (10, 20)], [(20, 30), (30, 40)]]


def test_a_few_late_rows_do_not_have_a_large_file_written_anew_each_day() -> None:
    """Until they are a fifth of all, or in many files."""
    large, tail = segment(0, 1_000), [segment(1_000 + 10 * place, 10) for place in range(7)]

    assert planned([large, *tail[:6]]) == []
    assert planned([large, *tail]) == [[(0, 1_000), *((one.first, one.last) for one in tail)]]
    assert planned([large, segment(1_000, 249)]) == []
    assert planned([large, segment(1_000, 250)]) == [[(0, 1_000), (1_000, 1_250)]]


@pytest.mark.parametrize(("features", "most"), [(1, 1 << 20), (16, 1 << 20), (502, 1 << 15)])
def test_a_merged_file_is_bounded(features: int, most: int) -> None:
    """By rows, and where there are many columns by what they take unpacked, 128 MiB."""
    wide = tuple(Column(str(place), is_category=False) for place in range(features))
    most = min(1 << 20, (128 << 20) // (8 * (10 + features)))
    segments = [segment(most // 2 * place, most // 2, columns=wide) for place in range(5)]

    assert [len(run) for run in planned(segments)] == [2, 2]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.integers(1, 40), min_size=1, max_size=25),
    orders=st.lists(st.tuples(st.integers(1, 25), st.integers(0, 3)), max_size=12),
)
def test_whoever_merges_and_whenever_no_two_live_segments_share_a_row(
    rows: list[int], orders: list[tuple[int, int]]
) -> None:
    """Writers that know of more or of fewer segments merge one after another, each from what it has seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_compaction, "MERGED_ROWS", 60)
        starts = itertools.accumulate(rows, initial=0)
        atoms = [segment(start, size) for start, size in zip(starts, rows, strict=False)]
        everything = list(atoms)
        for known, merges in orders:
            seen = live([one for one in everything if one.last <= sum(rows[:known])])
            runs = plan_compaction([*seen, segment(10**9, 1, NEWEST)], 0)[:merges]
            everything += [segment(run[0].first, run[-1].last - run[0].first) for run in runs]
        found = live(everything)

        assert [row for one in found for row in range(one.first, one.last)] == list(range(sum(rows)))


def test_days_that_are_older_than_what_is_kept_are_let_go_of() -> None:
    """By the newest day; without a limit none is."""
    segments = [segment(10 * place, 10, f"2013-01-{place + 1:02d}") for place in range(9)]

    assert [one.day[-2:] for one in plan_retention(segments, 2 * DAY_US)] == ["01", "02", "03", "04", "05", "06"]
    assert [one.day[-2:] for one in plan_retention(segments, 2 * DAY_US + 1)] == ["01", "02", "03", "04", "05"]
    assert plan_retention(segments, None) == []
    assert plan_retention([], DAY_US) == []


def test_a_segment_of_another_day_covers_nothing() -> None:
    """Rows of several days are closed together."""
    wide = segment(0, 100)
    inner = msgspec.structs.replace(segment(10, 10), day="2013-01-02")

    assert not wide.covers(inner)
    assert wide.covers(segment(10, 10))
    assert live([inner, wide]) == [wide, inner]
