"""How raw records become rows: decode, check, bury what cannot be used, in the order of the raw partition.

A record is ignored, dead or taken, never two of these; `millrace_unaccounted_rows` holds the sum to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from consumers.raw_marks import BadRecordError, read_mark
from consumers.role import Decoded
from streams import decoding, frames
from streams.building import Builder
from streams.decoding import Bad, WhereTest
from streams.flat_records import Columns, flat_reader
from streams.frames import BEGINNING, EVENT, LABEL, MARK, RETRACTED, SET, Batch, FrameSchema
from streams.layouts import Text
from streams.pipeline import Pipeline
from streams.records import Records, Values, value
from streams.snapshots import State
from streams.tables import Table, empty, join
from streams.timestamps import INVALID

Int64s = npt.NDArray[np.int64]
Bury = Callable[[Records, int, Bad], None]


class RecordInlet:
    """Decodes one raw partition and keeps the largest event time taken from it, which is the partition's mark.

    Args:
        pipeline: says what an event and a label are.
        topic: the raw topic.
        partition: the raw partition.
        sources: source numbers by kind, `events` and `labels`, as far as the topic carries them.
        schema: the log's schema.
        bury: sends a dead letter.
    """

    def __init__(
        self, pipeline: Pipeline, topic: str, partition: int, sources: dict[str, int], schema: FrameSchema, bury: Bury
    ) -> None:
        self._pipeline = pipeline
        self.topic, self.partition = topic, partition
        self._sources = sources
        self._schema = schema
        self._bury = bury
        self._events = decoding.event_shape(pipeline.events)
        self._labels = decoding.label_shape(pipeline.labels, pipeline.task)
        self._is_event = WhereTest(pipeline.events.where) if pipeline.events.where else None
        self._is_label = WhereTest(pipeline.labels.where) if pipeline.labels.where else None
        self._kind = "events" if "events" in sources else "labels"
        self._declared = pipeline.events if self._kind == "events" else pipeline.labels
        self.source = sources[self._kind]
        is_plain = len(sources) == 1 and not self._is_event and not self._is_label
        self._reader = flat_reader(pipeline, self._kind) if is_plain else None
        self._skew_us = int(pipeline.run.max_skew_s * 1e6)
        numbers = {"events": EVENT, "labels": LABEL}
        self._builders = {
            kind: Builder(schema.layout, {"kind": numbers[kind], "source": sources[kind]}) for kind in sources
        }
        self._largest = BEGINNING
        self.largest_time, self.largest_stamp = BEGINNING, 0
        self.records = self.ignored = self.dead = self.taken = 0

    # Records to rows

    def decode(self, records: Records) -> Decoded[Table]:
        """Turn raw records into log rows in offset order; dead letters leave at once."""
        self.records += records.sizes.size
        bad: dict[int, Bad] = {}
        parts, rest = self._decode_fast(records)
        if len(rest):
            parts += self._decode_carefully(records, rest, bad)
        for i, why in bad.items():
            self._bury(records, i, why)
        self.dead += len(bad)
        decoded = self._join(parts, records.offsets[list(bad)])
        self._note_largest(decoded, has_marks=len(rest) > 0)
        return decoded

    def _decode_fast(self, records: Records) -> tuple[list[Decoded[Table]], Sequence[int]]:
        """One kind of record, no tables inside: kernels take those that are plain and good. Gives what is left, too."""
        if self._reader is None:
            return [], range(records.sizes.size)
        found = self._reader.read(records)
        if not found.rows:
            return [], found.rest.tolist()
        rows = self.build_plain(found)
        return [Decoded(rows, found.offsets, found.stamps)], found.rest.tolist()

    @property
    def is_plain(self) -> bool:
        """Whether kernels can decode its records together with those of the topic's other partitions."""
        return self._reader is not None and self._declared.id is not None

    def read_plain(self, values: Values) -> Columns:
        """Read the plain ones of some records; only where `is_plain`."""
        assert self._reader is not None  # noqa: S101 - see above
        return self._reader.read(values)

    def build_plain(self, found: Columns, sources: Int64s | None = None) -> Table:
        """Make log rows of what was read; `sources` has the source of each, if they are not all this partition's."""
        ids = found.texts.get("id")
        ids = self._ids(found.offsets) if ids is None else ids
        columns = {"source": sources, "id": ids, "time": found.time, **found.texts, **found.numbers}
        if "key" not in columns and not self._is_keyless(self._kind):
            columns["key"] = ids
        return self._build(self._kind, columns, found.offsets, found.stamps)

    def _is_keyless(self, kind: str) -> bool:
        """Whether rows of a kind have no key, though events have one."""
        return kind == "labels" and self._pipeline.labels.match == "id"

    def note_plain(self, decoded: Decoded[Table]) -> Decoded[Table]:
        """Take over rows of this partition that were decoded together with others'."""
        self.records += decoded.offsets.size
        self.taken += decoded.offsets.size
        self._note_largest(decoded, has_marks=False)
        return decoded

    def _decode_carefully(self, records: Records, rest: Sequence[int], bad: dict[int, Bad]) -> list[Decoded[Table]]:
        picked: dict[str, tuple[list[int], list[Any]]] = {"events": ([], []), "labels": ([], [])}
        marks: list[tuple[int, int]] = []
        for i in rest:
            payload = value(records, i)
            try:
                if payload is None:
                    marks.append((i, read_mark(records, i, self._skew_us)))
                    continue
                limit = self._pipeline.run.max_record_bytes
                if len(payload) > limit:
                    raise BadRecordError(Bad("too_large", f"{len(payload)} bytes, at most {limit} are allowed"))
                found = list(self._pick(payload))
            except BadRecordError as error:
                bad[i] = error.bad
            except decoding.DECODE_ERRORS as error:
                bad[i] = decoding.explain(error)
            else:
                self.ignored += not found
                for kind, row in found:
                    picked[kind][0].append(i)
                    picked[kind][1].append(row)
        parts = [self._rows(kind, records, *pair, bad) for kind, pair in picked.items() if pair[0]]
        return [*parts, self._mark_rows(records, marks)] if marks else parts

    def _pick(self, payload: bytes) -> list[tuple[str, Any]]:
        """Decode a record as what it is: an event, a label, both, or neither."""
        found: list[tuple[str, Any]] = []
        if "events" in self._sources and (self._is_event is None or self._is_event(payload)):
            found.append(("events", self._events.decode(payload)))
        if "labels" in self._sources and (self._is_label is None or self._is_label(payload)):
            found.append(("labels", self._labels.decode(payload)))
        return found

    # Columns

    def _rows(
        self, kind: str, records: Records, index: list[int], rows: list[Any], bad: dict[int, Bad]
    ) -> Decoded[Table]:
        declared = self._pipeline.events if kind == "events" else self._pipeline.labels
        shape = self._events if kind == "events" else self._labels
        offsets, stamps = records.offsets[index], records.stamps[index]
        ids = decoding.texts(shape.column(rows, declared.id)) if declared.id else self._ids(offsets)
        keys = decoding.texts(shape.column(rows, declared.key)) if declared.key else ids
        values = shape.column(rows, declared.time) if declared.time else None
        columns: dict[str, Any] = {"id": ids, "time": decoding.times(values, declared.time_unit, stamps)}
        if not self._is_keyless(kind):
            columns["key"] = keys
        if kind == "events":
            columns |= decoding.field_columns(self._pipeline, shape, rows)
        else:
            columns["label"] = decoding.label_numbers(
                shape.column(rows, self._pipeline.labels.value), self._pipeline.task
            )
        self._check(columns, stamps, index, bad)
        return Decoded(self._build(kind, columns, offsets, stamps), offsets, stamps)

    def _build(self, kind: str, columns: dict[str, Any], offsets: Int64s, stamps: Int64s) -> Table:
        columns["sequence"] = offsets
        if kind == "events":
            columns["produced"] = stamps
        else:
            columns["outcome"] = np.where(np.isnan(columns["label"]), RETRACTED, SET).astype(np.int8)
        return self._builders[kind].build(columns, offsets.size)

    def _ids(self, offsets: Int64s) -> Text:
        """Give the ids of rows that have none of their own."""
        prefix = f"{self.topic}-{self.partition}-"
        return decoding.texts([prefix + str(offset) for offset in offsets.tolist()])

    def _check(
        self,
        columns: dict[str, Any],
        stamps: Int64s,
        index: list[int],
        bad: dict[int, Bad],
    ) -> None:
        """Check whole columns; the first reason found for a record stands."""
        limit = self._pipeline.run.max_text_bytes
        time = columns["time"]

        def refuse(is_bad: npt.NDArray[np.bool_], error: str, reason: str) -> None:
            for i in np.flatnonzero(is_bad).tolist():
                bad.setdefault(index[i], Bad(error, reason))

        refuse(time == INVALID, "bad_time", "the time is not an RFC 3339 date-time or not in years 1 to 9999")
        refuse(time > stamps + self._skew_us, "future", "the time lies in the future of the record's timestamp")
        for name, column in columns.items():
            if not isinstance(column, Text):
                continue
            sizes = decoding.lengths(column)
            refuse(sizes > limit, "text_too_long", f"{name.removeprefix('field.')} has over {limit} bytes")
            if name in ("id", "key"):
                refuse(sizes == 0, "empty_text", f"the {name} is empty")
        if "label" in columns:
            task = self._pipeline.task
            refuse(decoding.is_bad_label(columns["label"], task), "bad_label", decoding.explain_label(task))
        else:
            for field in self._pipeline.events.fields:
                column = columns[f"field.{field.name}"]
                if isinstance(column, np.ndarray):
                    refuse(np.isinf(column), "not_finite", f"{field.name} is not finite")

    def _mark_rows(self, records: Records, marks: list[tuple[int, int]]) -> Decoded[Table]:
        index = [i for i, _ in marks]
        columns = {
            "kind": np.full(len(marks), MARK, np.int8),
            "sequence": records.offsets[index],
            "time": np.array([time for _, time in marks], np.int64),
        }
        rows = frames.build(self._schema, columns, len(marks))
        return Decoded(rows, records.offsets[index], records.stamps[index])

    def _join(self, parts: list[Decoded[Table]], dead: Int64s) -> Decoded[Table]:
        """Put events, labels and marks in offset order (of one record the event first), without the dead ones."""
        if not parts:
            return Decoded(empty(self._schema.layout), np.empty(0, np.int64), np.empty(0, np.int64))
        if len(parts) == 1 and not dead.size:
            self.taken += parts[0].offsets.size
            return parts[0]
        offsets = np.concatenate([part.offsets for part in parts])
        rows = join([part.rows for part in parts])
        stamps = np.concatenate([part.stamps for part in parts])
        order = np.argsort(offsets, kind="stable")
        order = order[~np.isin(offsets[order], dead)]
        self.taken += np.unique(offsets[order]).size
        return Decoded(rows.take(order), offsets[order], stamps[order])

    def _note_largest(self, decoded: Decoded[Table], *, has_marks: bool) -> None:
        time = decoded.rows.numbers("time")
        if has_marks:
            time = np.where(decoded.rows.numbers("kind") == MARK, BEGINNING, time)
        at = int(time.argmax()) if time.size else 0
        if time.size and time[at] > self.largest_time:
            self.largest_time, self.largest_stamp = int(time[at]), int(decoded.stamps[at])

    # Taking

    def admit(self, rows: Table) -> tuple[Batch, Int64s | None]:
        """Note how far the partition was taken; nothing is dropped here, readers do that."""
        time = rows.numbers("time")
        self._largest = max(self._largest, int(time[time.argmax()]))
        return Batch(rows, time, time), None

    def raise_mark(self, time_us: int) -> None:
        """Raise the mark of a partition that is idle (PROTOCOL 11)."""
        self._largest = max(self._largest, time_us)

    def mark(self) -> int:
        """The largest time taken."""
        return self._largest

    def state(self) -> State:
        """Nothing: ingest has no state."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing: ingest has no state."""
