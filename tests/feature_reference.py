"""The features role computed another way: plain Python over lists of rows, straight from the definitions.

Nothing is shared with the kernels: no buckets are kept, no sums carried. Each aggregate goes over all earlier rows of
its key and asks of each whether the definition covers it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from streams.hashing import CATEGORY_SEED, hash_bytes
from streams.pipeline import Feature, Pipeline

Row = dict[str, Any]
BEFORE_TIME = -(2**63)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Known:
    """What is known of an event by its id and key: `state` is early, pending, set, missing or retracted."""

    state: str
    label: float = math.nan
    label_us: int = 0
    forget_us: int = 0
    event: Row | None = None


@dataclass
class Reference:
    """Takes rows one by one; `out` is P.examples as (cause, row)."""

    pipeline: Pipeline
    known: dict[tuple[str, str | None], Known] = field(default_factory=dict)
    past: dict[str, list[Row]] = field(default_factory=dict)
    out: list[tuple[int, Row]] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    numbered: int = 0
    clock: int = BEFORE_TIME
    clocks: tuple[int, int] = (BEFORE_TIME, BEFORE_TIME)

    def take(self, index: int, row: Row, label_clock: int, clock: int) -> None:
        """Take a row, then let the clocks stand where they stand after it."""
        name = (row.get("id") or "", row.get("key"))
        known = self.known.get(name)
        if known is not None and known.state in ("set", "missing", "retracted") and self.clock > known.forget_us:
            del self.known[name]
        if row["kind"] == "event":
            self._event(index, row, name)
        elif row["kind"] == "label":
            self._label(index, row, name)
        self.clock = clock
        wait = self.pipeline.labels.wait_us
        if (label_clock, clock) == self.clocks and row["time"] + wait >= label_clock:
            return  # nothing new can be due: the clocks stand still, and this row is not due by itself
        self.clocks = (label_clock, clock)
        self._settle_missing(index, label_clock)
        for late in [n for n, k in self.known.items() if k.state == "early" and clock > k.label_us + wait]:
            del self.known[late]
            self._count("unknown")

    def _count(self, name: str, rows: int = 1) -> None:
        self.tally[name] = self.tally.get(name, 0) + rows

    def _event(self, index: int, row: Row, name: tuple[str, str | None]) -> None:
        self._count("events")
        known = self.known.get(name)
        if known is not None and known.state != "early":
            self._count("duplicate events")
            return
        event = {**row, "number": self.numbered, "vector": self._vector(row)}
        self.numbered += 1
        self.out.append((index, {**event, "label": math.nan, "outcome": -1}))
        if known is not None and known.label_us <= row["time"] + self.pipeline.labels.wait_us:
            self.known[name] = known
            self._join(index, event, known, known.label, known.label_us)
            return
        if known is not None:
            self._count("too late")
        self.known[name] = Known("pending", event=event)

    def _join(self, index: int, event: Row, known: Known, label: float, label_us: int) -> None:
        known.state, known.label, known.event = "set", label, event
        known.forget_us = label_us + self.pipeline.labels.keep_us
        self._count("joined")
        self.out.append((index, {**event, "kind": "label", "time": label_us, "label": label, "outcome": 0}))

    def _label(self, index: int, row: Row, name: tuple[str, str | None]) -> None:
        self._count("labels")
        known, label = self.known.get(name), row["label"]
        is_retraction = math.isnan(label)
        if known is None:
            if is_retraction:
                self._count("retracted")
            else:
                self.known[name] = Known("early", label, row["time"])
        elif known.state == "early":
            if is_retraction:
                del self.known[name]
                self._count("retracted", 2)
            elif label == known.label:
                self._count("duplicate labels")
            else:
                self._count("amended")
                self.known[name] = Known("early", label, row["time"])
        elif known.state == "pending":
            assert known.event is not None
            if is_retraction:
                self._count("retracted")
            elif row["time"] > known.event["time"] + self.pipeline.labels.wait_us:
                self._count("too late")
            else:
                self._join(index, known.event, known, label, row["time"])
        elif known.state == "missing":
            self._count("too late")
        elif (is_retraction and known.state == "retracted") or (known.state == "set" and label == known.label):
            self._count("duplicate labels")
        else:
            self._correct(index, row, known)

    def _correct(self, index: int, row: Row, known: Known) -> None:
        assert known.event is not None
        is_retraction = math.isnan(row["label"])
        known.state, known.label = "retracted" if is_retraction else "set", row["label"]
        self._count("retracted" if is_retraction else "amended")
        vector = [math.nan] * len(known.event["vector"])
        number, outcome = known.event["number"], 2 if is_retraction else 3
        self.out.append((index, {**row, "produced": -1, "number": number, "outcome": outcome, "vector": vector}))

    def _settle_missing(self, index: int, label_clock: int) -> None:
        wait, keep = self.pipeline.labels.wait_us, self.pipeline.labels.keep_us
        missing = math.nan if self.pipeline.labels.missing is None else self.pipeline.labels.missing
        due = [
            (known.event["time"] + wait, known.event["number"], known)
            for known in self.known.values()
            if known.state == "pending" and known.event is not None and label_clock > known.event["time"] + wait
        ]
        for deadline, _, known in sorted(due, key=lambda item: item[:2]):
            assert known.event is not None
            known.state, known.forget_us = "missing", deadline + keep
            self._count("missing")
            row = {**known.event, "kind": "label", "time": deadline, "label": missing, "outcome": 1}
            self.out.append((index, row))

    def _vector(self, row: Row) -> list[float]:
        vector = [self._raw(row, f.name, f.kind) for f in self.pipeline.events.fields if self.pipeline.raw_features]
        past = self.past.setdefault(row["key"], []) if row["key"] is not None else None
        newest = max((other["time"] for other in past), default=None) if past is not None else None
        for feature in self.pipeline.features:
            vector += self._feature(feature, row, past, newest)
        if past is not None:
            for width in {f.window_us for f in self.pipeline.features if f.window_us}:
                if newest is not None and bucket(newest, width) - bucket(row["time"], width) > 11:
                    self.late[width] = self.late.get(width, 0) + 1
            past.append(row)
        return vector

    def _raw(self, row: Row, name: str, kind: str) -> float:
        value = row.get(f"field.{name}")
        if value is None:
            return math.nan
        return float(hash_bytes(value.encode(), CATEGORY_SEED) >> 12) if kind == "category" else float(value)

    def _feature(self, feature: Feature, row: Row, past: list[Row] | None, newest: int | None) -> list[float]:
        if feature.operation == "cyclic":
            angle = 2 * math.pi * phase(feature.of, row["time"])
            return [math.sin(angle), math.cos(angle)]
        if past is None:
            return [math.nan]
        is_in_order = newest is None or row["time"] >= newest
        if feature.operation == "elapsed":
            return [math.nan if newest is None or not is_in_order else (row["time"] - newest) / 1e6]
        covered = covered_rows(past, row["time"], newest, feature.window_us or 1)
        if feature.of == "*":
            return [float(len(covered))]
        kind = next(f.kind for f in self.pipeline.events.fields if f.name == feature.of)
        values = [self._raw(other, feature.of, kind) for other in covered]
        values = [value for value in values if not math.isnan(value)]
        if feature.operation == "count":
            return [float(len(values))]
        if feature.operation == "sum":
            return [math.fsum(values)]
        return [math.fsum(values) / len(values) if values else math.nan]


def bucket(time_us: int, width_us: int) -> int:
    """The bucket of a time: floor(time / (w/12)), in exact arithmetic."""
    return math.floor(Fraction(time_us) / Fraction(width_us, 12))


def covered_rows(past: list[Row], time_us: int, newest: int | None, width_us: int) -> list[Row]:
    """The earlier rows that an event's window covers: buckets b-11..b in order, b-11..b-1 out of order.

    Buckets more than 22 before the newest are gone; only a row that is itself older than the window can miss them.
    """
    own = bucket(time_us, width_us)
    if newest is None or time_us >= newest:
        first, last = own - 11, own
    else:
        first, last = max(own - 11, bucket(newest, width_us) - 22), own - 1
    return [other for other in past if first <= bucket(other["time"], width_us) <= last]


def phase(period: str, time_us: int) -> float:
    """How much of the UTC day, week from Monday or calendar year has passed."""
    moment = EPOCH + timedelta(microseconds=time_us)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "hour":
        return (moment - day) / timedelta(days=1)
    if period == "weekday":
        return (moment - (day - timedelta(days=day.weekday()))) / timedelta(days=7)
    start = day.replace(month=1, day=1)
    return (moment - start) / (start.replace(year=start.year + 1) - start)
