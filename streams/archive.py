"""The archive: every label row of P.examples with the time of its event, as Parquet, to train, export and report from.

It is a folder of *segments*, `day=2013-01-05/000000012000-000000012890.parquet`, by the day of the event. A segment is
there once its record is (`_000000012000-000000012890.json`), which is written last. Segments of a day hold ranges of
rows; one whose range lies within another's is replaced by that, whether or not it is removed yet.

A row bears its number in the order of P.examples. A label that is amended or retracted is a later row of the event's.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from streams.archive_file import SegmentFile, archive_schema
from streams.errors import ArchiveError
from streams.example_rows import MOMENT
from streams.frames import Column
from streams.state_folder import Folder, Place, folder_of

ARCHIVE = "archive"
AT_ONCE = 16  # questions to an object store at a time, for each takes tens of ms
_RECORD = re.compile(r"_\d{12}-\d{12}\.json")
Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Segment(msgspec.Struct, frozen=True):
    """One file of the archive.

    Attributes:
        name: below the archive's folder.
        first, last: its rows are in [first, last), in order; what is missing between lies in files of other days.
        day: of its events, in UTC.
        rows, size_bytes, digest: of the file; SHA-256.
        columns: of the features, in order.
        classes: of the label, if the task has any.
        from_us, to_us: the times of its events, both included.
        known_us: the largest time of a label.
        labelled: rows with a label.
        untimed: rows whose event nobody remembered; they lie with the day of their label.
        replaces: the names of segments that were merged into this one.
    """

    name: str
    first: int
    last: int
    day: str
    rows: int
    size_bytes: int
    digest: str
    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    from_us: int
    to_us: int
    known_us: int
    labelled: int
    untimed: int = 0
    replaces: tuple[str, ...] = ()

    def covers(self, other: Segment) -> bool:
        """Whether all rows of another are here, too."""
        return self.day == other.day and self.first <= other.first and other.last <= self.last


def archive_of(state: Place) -> Folder:
    """Give the archive's folder."""
    return folder_of(state) / ARCHIVE


def segment_name(day: str, first: int, last: int) -> str:
    """Name the file of a day's rows in [first, last)."""
    return f"day={day}/{first:012d}-{last:012d}.parquet"


def record_name(name: str) -> str:
    """Name a segment's record, beside its file; readers of datasets pass over names that begin so."""
    return f"_{PurePosixPath(name).stem}.json"


def folder_and_name(archive: Folder, name: str) -> tuple[Folder, str]:
    """Give the folder of a segment's file, and the file's name in it."""
    path = PurePosixPath(name)
    return archive / path.parent.name, path.name


def segments_of(state: Place) -> list[Segment]:
    """Give the segments that there are, by their first row; what was replaced is left out.

    Raises:
        ArchiveError: a record cannot be read.
        UnavailableError: an object store does not answer.
    """
    archive = archive_of(state)
    return segments_in(archive, names_in(archive))


def names_in(archive: Folder) -> dict[str, list[str]]:
    """Give the names of all files by folder."""
    folders = archive.folders()
    return dict(zip(folders, _together(archive, lambda folder: (archive / folder).names(), folders), strict=True))


def segments_in(archive: Folder, names: Mapping[str, Sequence[str]]) -> list[Segment]:
    """Give the segments that are live among files. Raises as `segments_of`."""
    records = [(archive / folder, name) for folder, found in names.items() for name in found if _RECORD.fullmatch(name)]
    read = _together(archive, lambda record: _read_record(*record), records)
    return live(segment for segment in read if segment is not None)


def live(segments: Iterable[Segment]) -> list[Segment]:
    """Leave out what is replaced: of a day's segments those that lie within another; the others by their first row."""
    kept: dict[str, Segment] = {}  # the last one of each day
    found = []
    for segment in sorted(segments, key=lambda one: (one.first, -one.last)):
        before = kept.get(segment.day)
        if before is None or not before.covers(segment):
            kept[segment.day] = segment
            found.append(segment)
    return found


def read_segment(state: Place, segment: Segment) -> pa.Table:
    """Read all rows of a segment.

    Raises:
        ArchiveError: the file is gone, or not the one that its record names.
        UnavailableError: an object store does not answer.
    """
    try:
        file = SegmentFile(*folder_and_name(archive_of(state), segment.name), segment.digest)
    except FileNotFoundError:
        raise _gone(state, segment) from None
    return file.read(segment.columns, archive_schema(segment.columns, segment.classes))


def read_rows(
    state: Place,
    from_us: int | None = None,
    to_us: int | None = None,
    known_us: int | None = None,
    columns: Sequence[Column] | None = None,
    to_row: int | None = None,
) -> Iterator[pa.Table]:
    """Give the archive's rows in their order, in tables of one schema; memory holds some row groups of days that meet.

    Rows whose event nobody remembers are always among them: they may amend one that is wanted. What is merged or
    removed meanwhile disturbs nothing.

    Args:
        state: of the pipeline.
        from_us: events at this time or later; None: all.
        to_us: events before this time.
        known_us: rows whose label had come by then, this time included.
        columns: the features that are wanted; those that a segment does not have are NaN. None: all there are.
        to_row: rows before this one; None: all there are now.

    Raises:
        ArchiveError: a file is gone or damaged.
        UnavailableError: an object store does not answer.
    """
    wanted = _Wanted(from_us, to_us, known_us, to_row)
    segments = [segment for segment in segments_of(state) if wanted.has(segment)]
    if not segments:
        return
    chosen = columns_of(segments) if columns is None else tuple(columns)
    schema = archive_schema(chosen, segments[-1].classes)
    done, end, gone = 0, max(segment.last for segment in segments), ""
    end = end if to_row is None else min(end, to_row)
    while segments:
        try:
            for rows, before in _in_order(state, segments, schema, chosen, done):
                found = wanted.choose(rows, end)
                if found.num_rows:
                    yield found
                done = before
            return
        except _MissingError as missing:
            if missing.segment.name == gone:
                raise _gone(state, missing.segment) from None
            gone = missing.segment.name
        segments = [one for one in segments_of(state) if wanted.has(one) and one.first < end and one.last > done]


def columns_of(segments: Sequence[Segment]) -> tuple[Column, ...]:
    """Give the features of all segments by name, in the order and of the kind that they had last."""
    found = {column.name: column for segment in reversed(segments) for column in reversed(segment.columns)}
    newest = {column.name: column for segment in segments for column in segment.columns}
    return tuple(newest[name] for name in reversed(found))


class _Wanted(NamedTuple):
    """Which rows are wanted, by the event's time, the label's, and the row's number."""

    from_us: int | None
    to_us: int | None
    known_us: int | None
    to_row: int | None = None

    def has(self, segment: Segment) -> bool:
        """Whether any row of a segment may be wanted."""
        is_early = self.from_us is not None and segment.to_us < self.from_us
        is_late = self.to_us is not None and segment.from_us >= self.to_us
        is_behind = self.to_row is not None and segment.first >= self.to_row
        return not is_behind and (bool(segment.untimed) or not (is_early or is_late))

    def choose(self, rows: pa.Table, end: int) -> pa.Table:
        """Keep the rows that are wanted, and lie before row `end`."""
        kept = pc.field("row") < end
        is_timed = pc.field("time").is_valid()
        if self.from_us is not None:
            kept &= ~is_timed | (pc.field("time") >= pa.scalar(self.from_us, MOMENT))
        if self.to_us is not None:
            kept &= ~is_timed | (pc.field("time") < pa.scalar(self.to_us, MOMENT))
        if self.known_us is not None:
            kept &= pc.field("label_time") <= pa.scalar(self.known_us, MOMENT)
        return rows.filter(kept)


class _MissingError(Exception):
    """A segment's file is not there; another may have replaced it since."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment.name)
        self.segment = segment


def _in_order(
    state: Place, segments: Sequence[Segment], schema: pa.Schema, columns: Sequence[Column], start: int
) -> Iterator[tuple[pa.Table, int]]:
    """Give the rows from `start` on in order, and with each table the row before which all were given.

    Row groups are read in the order of their first rows. What lies before the next group's first row is complete, and
    leaves once it is half of what is held: so a row is sorted twice or so, however many days overlap.
    """
    waiting = [(segment.first, place, 0) for place, segment in enumerate(segments)]
    heapq.heapify(waiting)
    files: dict[int, SegmentFile] = {}
    held = schema.empty_table()
    left = 0  # of the rows held, after the last ones left
    while waiting:
        first, place, group = heapq.heappop(waiting)
        if held.num_rows > 2 * left:
            ready, held = _parted(held, first)
            left = held.num_rows
            if ready.num_rows:
                yield ready, first
        if group == 0:
            files[place] = _open(state, segments[place])
        file = files[place]
        rows = file.read([one for one in columns if one in segments[place].columns], schema, group)
        held = pa.concat_tables([held, rows.filter(pc.field("row") >= start)])
        if group + 1 < file.groups:
            heapq.heappush(waiting, (file.first_row(group + 1), place, group + 1))
        else:
            del files[place]
    yield held.sort_by("row"), segments[-1].last


def _parted(rows: pa.Table, first: int) -> tuple[pa.Table, pa.Table]:
    """Give the rows before one in order, and the others."""
    return rows.filter(pc.field("row") < first).sort_by("row"), rows.filter(pc.field("row") >= first)


def _open(state: Place, segment: Segment) -> SegmentFile:
    try:
        return SegmentFile(*folder_and_name(archive_of(state), segment.name), segment.digest)
    except FileNotFoundError:
        raise _MissingError(segment) from None


def _together(archive: Folder, ask: Callable[[Asked], Told], about: Sequence[Asked]) -> list[Told]:
    """Ask about each; an object store about several at a time."""
    if archive.local is not None:
        return [ask(one) for one in about]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, about))


def _read_record(folder: Folder, name: str) -> Segment | None:
    """Read a segment's record; None if it was removed just now."""
    try:
        return msgspec.json.decode(folder.read(name), type=Segment)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ArchiveError(f"{folder}/{name} is no record of a segment: {error}; bring it back") from None


def _gone(state: Place, segment: Segment) -> ArchiveError:
    return ArchiveError(f"{archive_of(state)}/{segment.name} is gone, though its record is there; bring it back")
