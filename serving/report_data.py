"""What a report reads of the archive: how many events there were each day, and a sample of them with their labels.

The archive has a row for each label row, so an event whose label was amended has several. Which events are looked at is
decided by a hash of their name (source, number): all rows of an event are taken, or none. So the newest label of each
is known, the choice is the same in every run, and memory is bounded whatever the archive holds.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streams.advice import NOTHING_ARCHIVED
from streams.archive import read_rows, segments_of
from streams.archive_file import archive_names
from streams.durations import DAY_US
from streams.errors import UnavailableError
from streams.features import columns
from streams.frames import BEGINNING, OUTCOME_NAMES, Column
from streams.pipeline import Pipeline, Task
from streams.settlements import Settlements
from streams.state_folder import Folder, state_of

SAMPLE_EVENTS = 100_000  # 80 MB of a hundred columns; a share of them is known to 0.3 %
NO_TIME: int = BEGINNING  # of a label that never came

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
_MIX = (np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F))
_TURN = np.uint64(29)


class Period(NamedTuple):
    """Events at or after `start_us` and before `stop_us`; None is no limit."""

    start_us: int | None = None
    stop_us: int | None = None

    def has(self, time_us: int) -> bool:
        """Say whether a moment is in it."""
        return (self.start_us is None or time_us >= self.start_us) and (self.stop_us is None or time_us < self.stop_us)


class Events(NamedTuple):
    """Sampled events by time: N of them with F features.

    `first_N` is the label they were scored with, `label_N` the newest, NaN where there is none; `known_us_N` is when
    the first came, NO_TIME where none did. Numbers of multiclass labels are places among the task's classes.
    """

    source_N: Int64s
    number_N: Int64s
    id_N: npt.NDArray[np.object_]
    time_us_N: Int64s
    known_us_N: Int64s
    first_N: Floats
    label_N: Floats
    X_NF: Floats
    columns: tuple[Column, ...]

    def take(self, place_N: Int64s) -> Events:
        """Give some of the events."""
        parts = {name: part[place_N] for name, part in self._asdict().items() if name != "columns"}
        return self._replace(**parts)

    @property
    def delay_us(self) -> Floats:
        """Give how long after its event each label came, NaN where none did."""
        return np.where(self.known_us_N == NO_TIME, np.nan, (self.known_us_N - self.time_us_N).astype(float))


class Archived(NamedTuple):
    """What the archive holds of a period.

    `days` counts label rows by (day since 1970, outcome), of all events; `share` of the events is in the sample.
    """

    events: Events
    days: dict[tuple[int, str], int]
    share: float

    @property
    def counted(self) -> dict[str, int]:
        """Give how many label rows of each outcome there are."""
        totals: Counter[str] = Counter(dict.fromkeys(OUTCOME_NAMES, 0))
        for (_, outcome), count in self.days.items():
            totals[outcome] += count
        return dict(totals)

    @property
    def settled(self) -> int:
        """Give the number of events: each was settled once, by a label or by its absence."""
        counted = self.counted
        return counted["set"] + counted["missing"]


def read_archive(pipeline: Pipeline, period: Period, most_events: int = SAMPLE_EVENTS) -> Archived:
    """Read the archive of a pipeline once, from its first row to its last.

    Raises:
        UnavailableError: there is no archive, or it has no events of this period.
        ArchiveError: a file is damaged.
    """
    state = state_of(pipeline)
    segments = [one for one in segments_of(state) if _overlaps(period, one.from_us, one.to_us)]
    if not segments:
        raise UnavailableError(_nothing(pipeline, state, period))
    share = min(1.0, most_events / max(1, sum(one.rows for one in segments)))
    days: Counter[tuple[int, str]] = Counter()
    found = []
    wanted, settlements = columns(pipeline), Settlements()
    for rows in read_rows(state, period.start_us, period.stop_us, columns=wanted):
        table = settlements.once(rows)
        _count(table, days)
        sampled = table.filter(pa.array(in_share(_ints(table, "source"), _ints(table, "number"), share)))
        found.append(_plain(sampled, wanted, pipeline.task))
    events = _each_once(found, wanted) if found else None
    if events is None or not events.time_us_N.size:
        raise UnavailableError(_nothing(pipeline, state, period))
    return Archived(events, dict(days), share)


def in_share(source_B: Int64s, number_B: Int64s, share: float) -> npt.NDArray[np.bool_]:
    """Say which events are in a sample of this share: by their names alone.

    >>> in_share(np.zeros(4, np.int64), np.arange(4), 0.5).tolist()
    [True, False, True, True]
    """
    if share >= 1.0:
        return np.ones(number_B.size, bool)
    mixed = number_B.astype(np.uint64) * _MIX[0] + source_B.astype(np.uint64) * _MIX[1]
    mixed = (mixed ^ (mixed >> _TURN)) * _MIX[1]
    is_in: npt.NDArray[np.bool_] = (mixed ^ (mixed >> _TURN)) < np.uint64(share * 2**64)
    return is_in


def _overlaps(period: Period, from_us: int, to_us: int) -> bool:
    starts_in_time = period.stop_us is None or from_us < period.stop_us
    return starts_in_time and (period.start_us is None or to_us >= period.start_us)


def _nothing(pipeline: Pipeline, state: Folder, period: Period) -> str:
    if period == Period():
        return NOTHING_ARCHIVED
    return f"{state}/archive has no events of {pipeline.name} between --from and --to; leave one of them out"


def _count(table: pa.Table, days: Counter[tuple[int, str]]) -> None:
    """Add the label rows of each event day; rows whose event's time was forgotten belong to none."""
    time = table.column("time").cast(pa.int64())
    day = pc.floor(pc.divide(time.cast(pa.float64()), float(DAY_US))).cast(pa.int64())
    counts = (
        pa.table({"day": day, "outcome": table.column("outcome")})
        .group_by(["day", "outcome"])
        .aggregate([([], "count_all")])
    )
    for row in counts.to_pylist():
        if row["day"] is not None:
            days[row["day"], row["outcome"]] += row["count_all"]


class _Rows(NamedTuple):
    """Archive rows as arrays; `time` is NO_TIME where it was forgotten."""

    row: Int64s
    source: Int64s
    number: Int64s
    id: npt.NDArray[np.object_]
    time: Int64s
    label_time: Int64s
    label: Floats
    is_set: npt.NDArray[np.bool_]
    X: Floats


def _plain(table: pa.Table, wanted: tuple[Column, ...], task: Task) -> _Rows:
    X_BF = np.empty((table.num_rows, len(wanted)))
    for place, name in enumerate(archive_names(wanted)):
        X_BF[:, place] = _floats(table.column(name))
    outcome = table.column("outcome").to_numpy(zero_copy_only=False).astype(str)
    return _Rows(
        _ints(table, "row"),
        _ints(table, "source"),
        _ints(table, "number"),
        table.column("id").to_numpy(zero_copy_only=False),
        _ints(table, "time"),
        _ints(table, "label_time"),
        _labels(table.column("label"), task),
        np.isin(outcome, ("set", "amended")),
        X_BF,
    )


def _labels(column: pa.ChunkedArray, task: Task) -> Floats:
    if not task.classes:
        return _floats(column)
    place = pc.index_in(column, pa.array(task.classes))
    return _floats(place)


def _floats(column: pa.ChunkedArray) -> Floats:
    found: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def _ints(table: pa.Table, name: str) -> Int64s:
    found: Int64s = table.column(name).cast(pa.int64()).fill_null(NO_TIME).to_numpy().astype(np.int64)
    return found


def _each_once(found: list[_Rows], wanted: tuple[Column, ...]) -> Events:
    """Make one event of its label rows: the first says when and what it was, the last which label holds."""
    rows = _Rows(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    order = np.lexsort((rows.row, rows.number, rows.source))
    source, number = rows.source[order], rows.number[order]
    is_first = np.ones(order.size, bool)
    is_first[1:] = (source[1:] != source[:-1]) | (number[1:] != number[:-1])
    first, last = order[is_first], order[np.append(np.flatnonzero(is_first)[1:], order.size) - 1]
    known_us = np.where(rows.is_set[first], rows.label_time[first], NO_TIME)
    label = rows.label[first], rows.label[last]
    one = Events(
        rows.source[first],
        rows.number[first],
        rows.id[first],
        rows.time[first],
        known_us,
        *label,
        rows.X[first],
        wanted,
    )
    whole = np.flatnonzero(one.time_us_N != NO_TIME)  # of others only a later label row is in this period
    return one.take(whole[np.argsort(one.time_us_N[whole], kind="stable")])
