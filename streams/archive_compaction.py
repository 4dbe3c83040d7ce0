"""Compaction: segments of a day are merged once the day is over, and days are let go of that are older than wanted.

A merged segment holds the rows of segments that lie beside one another, so its range covers theirs: they are replaced
from the moment its record is there (archive.py). Where one merged segment ends and the next begins follows from the
segments' rows alone; so whoever merges, and whenever, ranges lie within one another or apart.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from streams.archive import Segment, read_segment, segment_name
from streams.archive_file import ARCHIVE_OWN, digest_of, encode
from streams.archiver import EPOCH_DAY, Closed
from streams.durations import DAY_US
from streams.state_folder import Place

MERGED_ROWS = 1 << 20
MERGED_BYTES = 128 << 20  # of numbers, unpacked: what merging holds in memory, and most of a file's size
MANY = 8  # segments of a day that are merged however small they are
LARGE_SHARE = 0.8  # of the rows in one segment: the others are not worth reading and writing it once more


def plan_compaction(segments: Sequence[Segment], wait_us: int) -> list[list[Segment]]:
    """Say which segments to merge, each list into one.

    Args:
        segments: all that are live.
        wait_us: how long an event waits for its label. A day is over once the newest day began so much after its end.
    """
    over = newest_day_us(segments) - wait_us
    of_days = sorted(
        (one for one in segments if day_us(one.day) + DAY_US <= over), key=lambda one: (one.day, one.first)
    )
    days = itertools.groupby(of_days, key=lambda one: one.day)
    return [run for _, day in days for run in _runs(list(day)) if _is_worth_it(run)]


def plan_retention(segments: Sequence[Segment], keep_us: int | None) -> list[Segment]:
    """Say which segments to let go of: those of days that ended `keep_us` before the newest day began, or earlier."""
    if keep_us is None:
        return []
    oldest_us = newest_day_us(segments) - keep_us
    return [one for one in segments if day_us(one.day) + DAY_US <= oldest_us]


def merged(state: Place, run: Sequence[Segment]) -> Closed:
    """Read segments and give what replaces them.

    Raises:
        ArchiveError: a file is gone or damaged.
        UnavailableError: an object store does not answer.
    """
    content = encode(pa.concat_tables([read_segment(state, segment) for segment in run]))
    first, last = run[0], run[-1]
    return Closed(
        Segment(
            segment_name(first.day, first.first, last.last),
            first.first,
            last.last,
            first.day,
            sum(one.rows for one in run),
            len(content),
            digest_of(content),
            first.columns,
            first.classes,
            min(one.from_us for one in run),
            max(one.to_us for one in run),
            max(one.known_us for one in run),
            sum(one.labelled for one in run),
            sum(one.untimed for one in run),
            tuple(name for one in run for name in (*one.replaces, one.name)),
        ),
        content,
    )


def day_us(day: str) -> int:
    """Give when a day begins."""
    return (dt.date.fromisoformat(day).toordinal() - EPOCH_DAY) * DAY_US


def newest_day_us(segments: Sequence[Segment]) -> int:
    """Give when the newest day begins; 0 without segments."""
    return max((day_us(segment.day) for segment in segments), default=0)


def _runs(day: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Cut a day's segments into runs that fit into one file, from the first on; columns are the same within a run."""
    run: list[Segment] = []
    for segment in day:
        width_bytes = 8 * (len(ARCHIVE_OWN) + len(segment.columns))
        most = min(MERGED_ROWS, MERGED_BYTES // width_bytes)
        is_like = run and (run[0].columns, run[0].classes) == (segment.columns, segment.classes)
        if run and (not is_like or sum(one.rows for one in run) + segment.rows > most):
            yield run
            run = []
        run.append(segment)
    yield run


def _is_worth_it(run: Sequence[Segment]) -> bool:
    rows = [segment.rows for segment in run]
    return len(run) >= MANY or (len(run) > 1 and max(rows) <= LARGE_SHARE * sum(rows))
