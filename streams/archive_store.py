"""Writing the archive: a segment's file, then its record, so that a record that is there names a whole file.

Who archives is a pure function of the topic, so what a crash repeats is there already, and is left as it is. Nothing
is changed in place: merging writes a segment that covers others, and those are removed, file first. What a crash leaves
of that is removed at the next start.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streams.archive import Segment, archive_of, folder_and_name, live, names_in, record_name, segments_in
from streams.archive_compaction import merged, plan_compaction, plan_retention
from streams.archiver import Closed
from streams.errors import ArchiveError, UnavailableError
from streams.faults import fail_point
from streams.state_folder import Place

LOG = logging.getLogger("streams.archive_store")
_FILE = re.compile(r"_?(\d{12})-(\d{12})\.(parquet|json)")


class ArchiveStore:
    """The archive as its one writer knows it. What is in it is listed once, when it is opened.

    Args:
        state: of the pipeline.
        wait_us: how long an event waits for its label; days that are over for so long are merged.
        keep_us: of the newest events; older days are removed. None keeps all.

    Attributes:
        segments: those that are live, by their first row.
        damaged: days that could not be merged, for a file of theirs is damaged or gone.

    Raises:
        ArchiveError: a record cannot be read.
        UnavailableError: an object store does not answer.
    """

    def __init__(self, state: Place, wait_us: int, keep_us: int | None = None) -> None:
        self._state = state
        self._archive = archive_of(state)
        self._wait_us, self._keep_us = wait_us, keep_us
        names = names_in(self._archive)
        self.segments = segments_in(self._archive, names)
        self.damaged: set[str] = set()
        self._tidied = ""  # the newest day when nothing more was due
        for folder, found in names.items():
            self._sweep(folder, found)

    def put(self, closed: Closed) -> None:
        """Write a segment, unless its rows are there already.

        Raises:
            ArchiveError: other rows are there under its numbers.
            UnavailableError: there is no room, or an object store does not take it.
        """
        new = closed.segment
        beside = [one for one in self.segments if one.day == new.day and one.first < new.last and new.first < one.last]
        for found in beside:
            self._check_same(found, closed)
        if not beside:
            self._write(closed, "after_segment", "after_record")

    def next_row(self) -> int:
        """Give the number behind that of the last row."""
        return max((segment.last for segment in self.segments), default=0)

    def tidy(self) -> bool:
        """Do one thing that is due: merge segments of a day, or remove one that is too old; says whether one was.

        A day that cannot be read stays as it is: who reads its rows is told, but new ones are archived.
        """
        newest = max((segment.day for segment in self.segments), default="")
        if newest == self._tidied:
            return False
        for segment in plan_retention(self.segments, self._keep_us):
            self._remove(segment.name)
            self.segments.remove(segment)
            return True
        for run in plan_compaction(self.segments, self._wait_us):
            if run[0].day not in self.damaged:
                self._merge(run)
                return True
        self._tidied = newest
        return False

    def _merge(self, run: Sequence[Segment]) -> None:
        try:
            closed = merged(self._state, run)
        except ArchiveError as error:
            self.damaged.add(run[0].day)
            LOG.error("day %s of the archive is not merged: %s", run[0].day, error)  # noqa: TRY400  # one line says all
            return
        self._write(closed, "after_merged", "after_merge")
        folder, name = folder_and_name(self._archive, run[0].name)[0], f"day={run[0].day}"
        self._sweep(name, folder.names())

    def _write(self, closed: Closed, *points: str) -> None:
        segment = closed.segment
        folder, name = folder_and_name(self._archive, segment.name)
        try:
            folder.publish(name, closed.content)
            fail_point(points[0])
            folder.publish(record_name(name), msgspec.json.encode(segment))
        except OSError as error:
            raise UnavailableError(f"cannot write {folder}/{name}: {error.strerror or error}; make room") from None
        fail_point(points[1])
        self.segments = live([*self.segments, segment])

    def _check_same(self, found: Segment, closed: Closed) -> None:
        """Pass over a segment that is there, or within one that is; under another list of columns it is the same."""
        new = closed.segment
        if not found.covers(new):
            raise self._other(found, new)
        is_like = (found.columns, found.classes) == (new.columns, new.classes)
        if found.name != new.name or not is_like or found.digest == new.digest:
            return
        if not _is_equal(self._read(found), closed.content):  # another release may write the same rows otherwise
            raise self._other(found, new)

    def _read(self, segment: Segment) -> bytes:
        folder, name = folder_and_name(self._archive, segment.name)
        return folder.read(name)

    def _other(self, found: Segment, new: Segment) -> ArchiveError:
        what = f"{self._archive}/{found.name} holds other examples than the topic gives for rows {new.first} to"
        return ArchiveError(f"{what} {new.last - 1}: was the topic made anew? move the archive away, start again")

    def _remove(self, name: str) -> None:
        """Remove a file, then its record: one without a file is found and removed at the next start."""
        folder, file = folder_and_name(self._archive, name)
        folder.remove(file)
        folder.remove(record_name(file))

    def _sweep(self, name: str, files: Iterable[str]) -> None:
        """Remove what lies within another segment of its day: what was merged, or was to be before a crash."""
        kept = [(one.first, one.last) for one in self.segments if one.name.startswith(f"{name}/")]
        for match in filter(None, map(_FILE.fullmatch, sorted(files))):
            first, last = int(match[1]), int(match[2])
            if (first, last) not in kept and any(start <= first and last <= stop for start, stop in kept):
                (self._archive / name).remove(match[0])


def _is_equal(one: bytes, other: bytes) -> bool:
    """Whether two files hold the same rows, NaN for NaN."""
    read = [pq.read_table(pa.BufferReader(content)).combine_chunks() for content in (one, other)]
    if read[0].schema != read[1].schema:
        return False
    return all(_bits(a) == _bits(b) for a, b in zip(*(table.columns for table in read), strict=True))


def _bits(column: pa.ChunkedArray) -> list[bytes | None]:
    return [None if buffer is None else buffer.to_pybytes() for chunk in column.chunks for buffer in chunk.buffers()]
