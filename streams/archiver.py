"""Archiver: label rows of P.examples become segments of the archive, cut by the rows alone.

Rows are collected until there are 65,536, or until the first row of an event whose day is newer than all before it;
then all are *closed*, one file for each day in them. Where that is follows from the topic: whatever was polled together
or restored, the same files come out, byte for byte, so that a repeat after a crash finds what it would write.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.archive import Segment, segment_name
from streams.archive_file import archive_schema, digest_of, encode
from streams.durations import DAY_US
from streams.event_numbers import resolved
from streams.example_rows import UNKNOWN_US, example_rows
from streams.example_times import ExampleTimes
from streams.fitting import fit
from streams.frames import BEGINNING, EVENT, LABEL, Batch, Column, decode, examples_schema
from streams.snapshots import State, part_of
from streams.tables import Table, empty, join

CLOSED_ROWS = 65_536  # at most in a segment before days are merged; what waits for so many is in each snapshot
MOST_TABLES = 256  # collected before they are joined: a table of one row takes more room than the row
EPOCH_DAY = dt.date(1970, 1, 1).toordinal()

Int64s = npt.NDArray[np.int64]


class Closed(NamedTuple):
    """A segment and its file's content."""

    segment: Segment
    content: bytes


class Archiver:
    """Collects label rows with the times of their events. Pure: what is closed is given to the caller.

    Args:
        columns: of the examples.
        classes: of the task's label, if it has any.
        keep_us: how far the clock may be past an event's time and coming, and label rows of it may still come: the
            label's wait, and as long as settled events are remembered.
        aliases: sources of events that were numbered before partitions were parted anew (event_numbers.py).

    Attributes:
        archived: rows that were closed, and the number of the first that is collected.
        newest_day: the newest day of an event that a row was of, in days since 1970; BEGINNING before the first.
    """

    def __init__(
        self,
        columns: tuple[Column, ...],
        classes: Sequence[str] = (),
        keep_us: int = 0,
        aliases: Mapping[int, int] | None = None,
    ) -> None:
        self._frames = examples_schema(columns)
        self._classes = tuple(classes)
        self._schema = archive_schema(columns, classes)
        self._aliases = {} if aliases is None else aliases
        self._times = ExampleTimes(keep_us)
        self._held = self._none_held()
        self.archived = 0
        self.newest_day: int = BEGINNING

    @property
    def collected(self) -> int:
        """How many rows wait for more to be closed with."""
        return self._held.rows

    @property
    def events(self) -> int:
        """How many times of events are remembered."""
        return len(self._times)

    def take(self, batch: Batch) -> list[Closed]:
        """Take rows of P.examples, in order; gives the segments that became complete."""
        rows = batch.rows
        kind, source, number, time = (rows.numbers(name) for name in ("kind", "source", "number", "time"))
        is_event_B = kind == EVENT
        self._times.add(source[is_event_B], number[is_event_B], time[is_event_B], batch.clock[is_event_B])
        label_L = np.flatnonzero(kind == LABEL)
        closed: list[Closed] = []
        if label_L.size:
            number_L, source_L = resolved(number[label_L], source[label_L], self._aliases)
            time_L = self._times.find(source_L, number_L, batch.clock[label_L])
            events_3L = np.array([time_L, source_L, number_L], np.int64)
            for start, stop, is_of_newer_day in self._cuts(time_L):
                if is_of_newer_day:
                    closed += self._close()
                closed += self._collect(_Held(rows.take(label_L[start:stop]), events_3L[:, start:stop]))
        if rows.num_rows:
            self._times.forget(int(batch.clock[-1]))
        return closed

    def _cuts(self, time_L: Int64s) -> list[tuple[int, int, bool]]:
        """Say where a newer day begins: the runs of rows between, and whether a run begins with one."""
        day_L = np.where(time_L == UNKNOWN_US, BEGINNING, time_L // DAY_US)
        newest_L = np.maximum.accumulate(np.concatenate([[self.newest_day], day_L]))
        newer = np.flatnonzero(day_L > newest_L[:-1])
        self.newest_day = int(newest_L[-1])
        starts = np.unique(np.concatenate([[0], newer])).tolist()
        stops = [*starts[1:], day_L.size]
        return [(start, stop, start in newer) for start, stop in zip(starts, stops, strict=True)]

    def _collect(self, part: _Held) -> list[Closed]:
        closed: list[Closed] = []
        while part.rows:
            room = min(CLOSED_ROWS - self._held.rows, part.rows)
            self._held.add(part.slice(0, room))
            part = part.slice(room)
            if self._held.rows == CLOSED_ROWS:
                closed += self._close()
        return closed

    def _close(self) -> list[Closed]:
        """Give all that was collected, one segment for each day."""
        if not self._held.rows:
            return []
        table, (time_B, source_B, number_B) = self._held.gathered()
        self._held = self._none_held()
        row_B = np.arange(self.archived, self.archived + time_B.size)
        self.archived += time_B.size
        rows = example_rows(self._schema, table, time_B, source_B.astype(np.int32), row_B)
        place = rows.schema.get_field_index("number")
        rows = rows.set_column(place, rows.schema.field(place), pa.array(number_B))
        known_B = table.numbers("time")
        day_B = np.where(time_B == UNKNOWN_US, known_B, time_B) // DAY_US
        found = []
        for day in np.unique(day_B).tolist():
            place_D = np.flatnonzero(day_B == day)
            part = rows if place_D.size == row_B.size else rows.take(pa.array(place_D))
            found.append(self._segment(day, part, row_B[place_D], time_B[place_D], known_B[place_D]))
        return found

    def _segment(self, day: int, rows: pa.RecordBatch, row_D: Int64s, time_D: Int64s, known_D: Int64s) -> Closed:
        content = encode(pa.Table.from_batches([rows]))
        name = dt.date.fromordinal(EPOCH_DAY + day).isoformat()
        first, last = int(row_D[0]), int(row_D[-1]) + 1
        timed_D = time_D[time_D != UNKNOWN_US]
        known_us = int(known_D.max())
        return Closed(
            Segment(
                segment_name(name, first, last),
                first,
                last,
                name,
                rows.num_rows,
                len(content),
                digest_of(content),
                self._frames.columns,
                self._classes,
                int(timed_D.min()) if timed_D.size else known_us,
                int(timed_D.max()) if timed_D.size else known_us,
                known_us,
                len(rows) - rows.column("label").null_count,
                len(rows) - timed_D.size,
            ),
            content,
        )

    def renew(self, first: int) -> None:
        """Go on behind row `first` of an archive whose examples are not there any more; before anything is taken."""
        self.archived = first

    def state(self) -> State:
        """Give what was collected, and the times of events that may get label rows yet."""
        table, events_3B = self._held.gathered()
        state: State = {
            "frame": np.frombuffer(table.message() if table.num_rows else b"", np.uint8),
            "events": events_3B.copy(),
            "counts": np.array([self.archived, self.newest_day], np.int64),
            "columns": np.frombuffer(msgspec.json.encode(self._frames.columns), np.uint8),
        }
        return state | {f"times.{name}": array for name, array in self._times.state().items()}

    def restore(self, state: State) -> None:
        """Take back what `state` gave; rows of other columns get those there are now, and are cut where they were."""
        columns = msgspec.json.decode(state["columns"].tobytes(), type=tuple[Column, ...])
        frames, frame = examples_schema(columns), state["frame"].tobytes()
        table = fit(decode(frame, frames), frames, self._frames) if frame else empty(self._frames.layout)
        self._held = _Held(table, state["events"])
        self.archived, self.newest_day = state["counts"].tolist()
        self._times.restore(part_of(state, "times."))

    def _none_held(self) -> _Held:
        return _Held(empty(self._frames.layout), np.zeros((3, 0), np.int64))


class _Held:
    """Label rows that were collected: as they came, and of their events [time, source, number]."""

    def __init__(self, table: Table, events_3B: Int64s) -> None:
        self.tables, self._events = [table], [events_3B]
        self.rows = table.num_rows

    def add(self, other: _Held) -> None:
        """Take the rows of another behind these."""
        self.tables += other.tables
        self._events += other._events
        self.rows += other.rows
        if len(self.tables) > MOST_TABLES:
            self.gathered()

    def gathered(self) -> tuple[Table, Int64s]:
        """Join what was taken."""
        if len(self.tables) > 1:
            self.tables, self._events = [join(self.tables)], [np.concatenate(self._events, axis=1)]
        return self.tables[0], self._events[0]

    def slice(self, start: int, stop: int | None = None) -> _Held:
        """Give some of the rows."""
        table, events_3B = self.gathered()
        return _Held(table.slice(start, None if stop is None else stop - start), events_3B[:, start:stop])
