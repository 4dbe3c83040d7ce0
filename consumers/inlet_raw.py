"""How raw records become rows: decode, check, bury what cannot be used, in the order of the raw partition.

A record is ignored, dead or taken, never two of these; `millrace_unaccounted_rows` holds the sum to it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumers.role import Decoded
from streams import decoding, frames
from streams.decoding import Bad, Shape, WhereTest
from streams.frames import BEGINNING, END, EVENT, LABEL, MARK, RETRACTED, SET, Batch, FrameSchema
from streams.kafka import Message
from streams.pipeline import FieldPath, Pipeline
from streams.records import Records, value
from streams.snapshots import State
from streams.sources import take
from streams.timestamps import INVALID

MARK_HEADER = "millrace-mark"
KEPT_BYTES = 512 * 1024  # of a refused record's value, so that its dead letter (base64) fits into one Kafka message
KEPT_KEY_BYTES = 32 * 1024

_MARK_TIME = re.compile(rb"-?[0-9]{1,18}")  # what fits into int64

Int64s = npt.NDArray[np.int64]
Bury = Callable[[Message, Bad], None]


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
        self._labels = decoding.label_shape(pipeline.labels)
        self._is_event = WhereTest(pipeline.events.where) if pipeline.events.where else None
        self._is_label = WhereTest(pipeline.labels.where) if pipeline.labels.where else None
        self._skew_us = int(pipeline.run.max_skew_s * 1e6)
        self._largest = BEGINNING
        self.largest_time, self.largest_stamp = BEGINNING, 0
        self.records = self.ignored = self.dead = self.taken = 0

    # Messages to rows

    def decode(self, records: Records) -> Decoded:
        """Turn raw records into log rows in offset order; dead letters leave at once."""
        messages: list[Any] = [_Message(records, i) for i in range(records.offsets.size)]
        self.records += len(messages)
        bad: dict[int, tuple[Message, Bad]] = {}
        parts = self._decode_fast(messages, bad)
        if parts is None:
            parts = self._decode_carefully(messages, bad)
        for message, why in bad.values():
            self._bury(message, why)
        self.dead += len(bad)
        return self._join(parts, bad)

    def _decode_fast(self, messages: Sequence[Message], bad: dict[int, tuple[Message, Bad]]) -> list[Decoded] | None:
        """One kind of record, all of them good: no Python beyond msgspec's own loop. None if that is not so."""
        if len(self._sources) > 1 or self._is_event or self._is_label:
            return None
        kind = "events" if "events" in self._sources else "labels"
        shape = self._events if kind == "events" else self._labels
        try:
            payloads: list[Any] = [message.value() for message in messages]
            if max(map(len, payloads)) > self._pipeline.run.max_record_bytes:
                return None
            rows = list(map(shape.decode, payloads))
        except (TypeError, *decoding.DECODE_ERRORS):
            return None
        return [self._rows(kind, messages, rows, bad)]

    def _decode_carefully(self, messages: Sequence[Message], bad: dict[int, tuple[Message, Bad]]) -> list[Decoded]:
        picked: dict[str, tuple[list[Message], list[Any]]] = {"events": ([], []), "labels": ([], [])}
        marks: list[tuple[Message, int]] = []
        for message in messages:
            payload = message.value()
            try:
                if payload is None:
                    marks.append((message, self._read_mark(message)))
                    continue
                limit = self._pipeline.run.max_record_bytes
                if len(payload) > limit:
                    raise _BadRecordError(Bad("too_large", f"{len(payload)} bytes, at most {limit} are allowed"))
                found = list(self._pick(payload))
            except _BadRecordError as error:
                bad[message.offset()] = (message, error.bad)
            except decoding.DECODE_ERRORS as error:
                bad[message.offset()] = (message, decoding.explain(error))
            else:
                self.ignored += not found
                for kind, row in found:
                    picked[kind][0].append(message)
                    picked[kind][1].append(row)
        parts = [self._rows(kind, *pair, bad) for kind, pair in picked.items() if pair[0]]
        return [*parts, self._mark_rows(marks)] if marks else parts

    def _pick(self, payload: bytes) -> list[tuple[str, Any]]:
        """Decode a record as what it is: an event, a label, both, or neither."""
        found: list[tuple[str, Any]] = []
        if "events" in self._sources and (self._is_event is None or self._is_event(payload)):
            found.append(("events", self._events.decode(payload)))
        if "labels" in self._sources and (self._is_label is None or self._is_label(payload)):
            found.append(("labels", self._labels.decode(payload)))
        return found

    def _read_mark(self, message: Message) -> int:
        """Read a publisher's mark (PROTOCOL 11): a record without value whose header says how far the partition is."""
        text = dict(message.headers() or []).get(MARK_HEADER)
        if text is None:
            raise _BadRecordError(Bad("empty", "the record has no value"))
        if text == b"end":
            return END
        if not _MARK_TIME.fullmatch(text):
            raise _BadRecordError(Bad("invalid", f"{MARK_HEADER} must be microseconds or `end`"))
        if int(text) > message.timestamp()[1] * 1000 + self._skew_us:
            raise _BadRecordError(Bad("future", "the mark lies in the future of its record"))
        return int(text)

    # Columns

    def _rows(
        self, kind: str, messages: Sequence[Message], rows: list[Any], bad: dict[int, tuple[Message, Bad]]
    ) -> Decoded:
        declared = self._pipeline.events if kind == "events" else self._pipeline.labels
        shape = self._events if kind == "events" else self._labels
        offsets = offsets_of(messages)
        stamps = np.array([message.timestamp()[1] for message in messages], np.int64) * 1000
        ids = self._ids(shape, rows, declared.id, offsets)
        keys = decoding.texts(shape.column(rows, declared.key)) if declared.key else ids
        values = shape.column(rows, declared.time) if declared.time else None
        time = decoding.times(values, declared.time_unit, stamps)
        columns: dict[str, Any] = {
            "kind": np.full(len(rows), EVENT if kind == "events" else LABEL, np.int8),
            "source": np.full(len(rows), self._sources[kind], np.int32),
            "sequence": offsets,
            "time": time,
            "id": ids,
            "key": keys,
        }
        if kind == "events":
            columns["produced"] = stamps
            columns |= decoding.field_columns(self._pipeline, shape, rows)
        else:
            label = np.array(shape.column(rows, self._pipeline.labels.value), np.float64)
            columns["label"] = label
            columns["outcome"] = np.where(np.isnan(label), RETRACTED, SET).astype(np.int8)
        self._check(columns, stamps, messages, bad)
        self._note_largest(time, stamps, offsets, bad)
        return Decoded(frames.build(self._schema, columns, len(rows)), offsets, stamps)

    def _note_largest(self, time: Int64s, stamps: Int64s, offsets: Int64s, bad: dict[int, Any]) -> None:
        good = time if not bad else np.where(np.isin(offsets, np.fromiter(bad, np.int64)), BEGINNING, time)
        at = int(good.argmax())
        if good[at] > self.largest_time:
            self.largest_time, self.largest_stamp = int(good[at]), int(stamps[at])

    def _ids(self, shape: Shape, rows: list[Any], path: FieldPath | None, offsets: Int64s) -> pa.StringArray:
        if path:
            return decoding.texts(shape.column(rows, path))
        prefix = f"{self.topic}-{self.partition}-"
        return pa.array([prefix + str(offset) for offset in offsets.tolist()], pa.string())

    def _check(
        self,
        columns: dict[str, Any],
        stamps: Int64s,
        messages: Sequence[Message],
        bad: dict[int, tuple[Message, Bad]],
    ) -> None:
        """Check whole columns; the first reason found for a record stands."""
        limit = self._pipeline.run.max_text_bytes
        time = columns["time"]

        def refuse(is_bad: npt.NDArray[np.bool_], error: str, reason: str) -> None:
            for i in np.flatnonzero(is_bad).tolist():
                bad.setdefault(messages[i].offset(), (messages[i], Bad(error, reason)))

        refuse(time == INVALID, "bad_time", "the time is not an RFC 3339 date-time or not in years 1 to 9999")
        refuse(time > stamps + self._skew_us, "future", "the time lies in the future of the record's timestamp")
        for name, column in columns.items():
            if not isinstance(column, pa.Array):
                continue
            sizes = decoding.lengths(column)
            refuse(sizes > limit, "text_too_long", f"{name.removeprefix('field.')} has over {limit} bytes")
            if name in ("id", "key"):
                refuse(sizes == 0, "empty_text", f"the {name} is empty")
        if "label" in columns:
            label = columns["label"]
            is_bad = ~(np.isnan(label) | (label == 0) | (label == 1))
            refuse(is_bad, "bad_label", "the label is not 0, 1, true or false")
        else:
            for field in self._pipeline.events.fields:
                column = columns[f"field.{field.name}"]
                if isinstance(column, np.ndarray):
                    refuse(np.isinf(column), "not_finite", f"{field.name} is not finite")

    def _mark_rows(self, marks: list[tuple[Message, int]]) -> Decoded:
        offsets = np.array([message.offset() for message, _ in marks], np.int64)
        columns = {
            "kind": np.full(len(marks), MARK, np.int8),
            "sequence": offsets,
            "time": np.array([time for _, time in marks], np.int64),
        }
        stamps = np.array([message.timestamp()[1] * 1000 for message, _ in marks], np.int64)
        return Decoded(frames.build(self._schema, columns, len(marks)), offsets, stamps)

    def _join(self, parts: list[Decoded], bad: dict[int, tuple[Message, Bad]]) -> Decoded:
        """Put events, labels and marks in offset order (of one record the event first), without the bad ones."""
        if not parts:
            return Decoded(frames.build(self._schema, {}, 0), np.empty(0, np.int64), np.empty(0, np.int64))
        offsets = np.concatenate([part.offsets for part in parts])
        if len(parts) == 1 and not bad:
            self.taken += offsets.size
            return parts[0]
        rows = pa.concat_batches([part.rows for part in parts])
        stamps = np.concatenate([part.stamps for part in parts])
        order = np.argsort(offsets, kind="stable")
        if bad:
            order = order[~np.isin(offsets[order], np.fromiter(bad, np.int64))]
        self.taken += np.unique(offsets[order]).size
        return Decoded(take(rows, order), offsets[order], stamps[order])

    # Taking

    def admit(self, rows: pa.RecordBatch) -> tuple[Batch, Int64s | None]:
        """Note how far the partition was taken; nothing is dropped here, readers do that."""
        time = frames.numbers(rows, "time")
        self._largest = max(self._largest, int(time.max()))
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


class _Message:
    def __init__(self, records: Records, i: int) -> None:
        self.r, self.i = records, i
        self.v = value(records, i)

    def value(self):
        return self.v

    def key(self):
        return self.r.key(self.i)

    def headers(self):
        h = self.r.header(self.i, MARK_HEADER)
        return [] if h is None else [(MARK_HEADER, h)]

    def topic(self):
        return self.r.topic

    def partition(self):
        return self.r.partition

    def offset(self):
        return int(self.r.offsets[self.i])

    def timestamp(self):
        return (1, int(self.r.stamps[self.i]) // 1000)


def offsets_of(messages: Sequence[Message]) -> Int64s:
    """Give each message's offset; a run without holes, the usual case, needs only its ends."""
    first, last = messages[0].offset(), messages[-1].offset()
    if last - first == len(messages) - 1:
        return np.arange(first, last + 1, dtype=np.int64)
    return np.array([message.offset() for message in messages], np.int64)


class _BadRecordError(Exception):
    def __init__(self, bad: Bad) -> None:
        super().__init__(bad.reason)
        self.bad = bad


def dead_letter(message: Message, bad: Bad) -> bytes:
    """Encode a dead letter: where the record stands, why it was refused, and its bytes (`is_cut`: not all of them)."""
    key, value = message.key() or b"", message.value() or b""
    record = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "reason": bad.reason,
        "error": bad.error,
        "time_us": message.timestamp()[1] * 1000,
        "key": base64.b64encode(key[:KEPT_KEY_BYTES]).decode(),
        "value": base64.b64encode(value[:KEPT_BYTES]).decode(),
        "is_cut": len(key) > KEPT_KEY_BYTES or len(value) > KEPT_BYTES,
    }
    return msgspec.json.encode(record)
