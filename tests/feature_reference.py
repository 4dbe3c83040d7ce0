"""The features role computed another way: plain Python over lists of rows, straight from the definitions.

Nothing is shared with the kernels: no buckets are kept, no sums carried. Each aggregate goes over all earlier rows of
its key and asks of each whether the definition covers it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta

from streams.bound import Bound
from streams.hashing import CATEGORY_SEED, hash_bytes
from streams.pipeline import Feature, Pipeline
from tests.aggregate_reference import CONDITIONS, EPOCH, Row, aggregated, bucket, covered_rows, phase, weighted

BEFORE_TIME, AFTER_TIME = -(2**63), 2**63 - 1


@dataclass
class Known:
    """What is known of an event by its id and key: `state` is early, pending, set, missing or retracted."""

    state: str
    label: float = math.nan
    label_us: int = 0
    forget_us: int = 0
    event: Row | None = None


def deadline_order(known: Known) -> tuple[int, int]:
    """Of pending events: the one that is due first, of two with the same time the one that came first."""
    assert known.event is not None
    return known.event["time"], known.event["number"]


@dataclass
class Reference:
    """Takes rows one by one; `out` is P.examples as (cause, row)."""

    pipeline: Pipeline
    known: dict[tuple[str, str | None], Known] = field(default_factory=dict)
    past: dict[str, list[Row]] = field(default_factory=dict)
    out: list[tuple[int, Row]] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    settled: list[tuple[str | None, int, float]] = field(default_factory=list)  # key, time, label; not yet held
    held: list[tuple[int, int, str, int, float]] = field(default_factory=list)  # time, order, key, delay, label
    counted: dict[tuple[str, int], list[tuple[int, float]]] = field(default_factory=dict)  # by key and delay
    newest_label: dict[str, int] = field(default_factory=dict)
    latest: int = BEFORE_TIME
    entities: dict[str, int] = field(default_factory=dict)  # newest event or label by key, the last touched at the end
    idle_clock: int = BEFORE_TIME
    numbered: int = 0
    clock: int = BEFORE_TIME
    clocks: tuple[int, int] = (BEFORE_TIME, BEFORE_TIME)

    def take(self, index: int, row: Row, label_clock: int, clock: int) -> None:
        """Take a row, then let the clocks stand where they stand after it."""
        name = (row.get("id") or "", None if self.pipeline.labels.match == "id" else row.get("key"))
        known = self.known.get(name)
        if known is not None and known.state in ("set", "missing", "retracted") and self.clock > known.forget_us:
            del self.known[name]
        if row["kind"] in ("event", "label"):
            self.latest = max(self.latest, row["time"])
            self._count_labels()
        if row["kind"] == "event":
            self._event(index, row, name)
        elif row["kind"] == "label" and self.pipeline.labels.match == "key":
            self._nameless(index, row)
        elif row["kind"] == "label":
            self._label(index, row, name)
        self.clock = clock
        self._pass_idle(clock)
        wait = self.pipeline.labels.wait_us
        if (label_clock, clock) == self.clocks and row["time"] + wait >= label_clock:
            self._evict(index)
            return  # nothing new can be due: the clocks stand still, and this row is not due by itself
        self.clocks = (label_clock, clock)
        self._settle_missing(index, label_clock)
        self._evict(index)
        for late in [n for n, k in self.known.items() if k.state == "early" and clock > k.label_us + wait]:
            del self.known[late]
            self._count("unknown")

    @property
    def _bound(self) -> Bound:
        return self.pipeline.bounds[0] if self.pipeline.bounds else Bound("key")

    def _pass_idle(self, clock: int) -> None:
        """Forget the entities that come first in the order of their last rows, as long as they are expired."""
        if clock != AFTER_TIME:
            self.idle_clock = max(self.idle_clock, clock)
        while self.entities and self._is_expired(next(iter(self.entities))):
            self._forget(next(iter(self.entities)), "expired")

    def _is_expired(self, key: str) -> bool:
        ttl = self._bound.ttl_us
        return ttl is not None and self.idle_clock - self.entities[key] > ttl

    def _forget(self, key: str, why: str) -> None:
        """Let an entity be as one that was never seen."""
        del self.entities[key]
        self.past.pop(key, None)
        self.newest_label.pop(key, None)
        self.counted = {name: labels for name, labels in self.counted.items() if name[0] != key}
        self._count(why)

    def _touch(self, key: str, time: int) -> None:
        self.entities[key] = max(self.entities.pop(key, BEFORE_TIME), time)

    def _meet(self, key: str, time: int) -> None:
        """An event of an entity: one that is new may take the place of another."""
        if key in self.entities and self._is_expired(key):
            self._forget(key, "expired")
        if key not in self.entities and self._bound.most is not None:
            while len(self.entities) >= math.ceil(self._bound.most / self.pipeline.partitions):
                first = next(iter(self.entities))
                self._forget(first, "expired" if self._is_expired(first) else "evicted")
        self._touch(key, time)

    def _hold(self, key: str | None, time: int, label: float) -> None:
        """A label that has settled its event counts later, once for each delay."""
        for delay in dict.fromkeys(f.delay_us for f in self.pipeline.features if f.is_label):
            if key is not None and not math.isnan(label):
                order = len(self.settled)
                self.settled.append((key, time, label))
                self.held.append((time + delay, order, key, delay, label))

    def _count_labels(self) -> None:
        """Let labels count whose time has been reached."""
        for one in sorted(one for one in self.held if one[0] <= self.latest):
            self.held.remove(one)
            time, _, key, delay, label = one
            if key not in self.entities or self._is_expired(key):
                self._count("gone labels")
                continue
            self._touch(key, time)
            self.newest_label[key] = max(self.newest_label.get(key, BEFORE_TIME), time)
            kept = [
                f.window_us
                for f in self.pipeline.features
                if f.is_label
                and f.window_us
                and bucket(self.newest_label[key], f.window_us) - bucket(time, f.window_us) > 22
            ]
            assert not kept, "the reference does not follow labels that are older than two windows"
            self.counted.setdefault((key, delay), []).append((time, label))

    def _label_feature(self, feature: Feature, row: Row) -> float:
        """Of labels by their time; in order if neither event nor label of the key was newer."""
        newest = self.newest_label.get(row["key"])
        rows = [{"time": time, "value": label} for time, label in self.counted.get((row["key"], feature.delay_us), [])]
        covered = covered_rows(rows, row["time"], newest, feature.window_us or 1)
        return aggregated(feature, [other["value"] for other in covered])

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
        self._hold(event["key"], label_us, label)
        self.out.append((index, {**event, "kind": "label", "time": label_us, "label": label, "outcome": 0}))

    def _nameless(self, index: int, row: Row) -> None:
        """A label without an id: of the oldest event of its key that waits and is less than `within` older."""
        self._count("labels")
        labels = self.pipeline.labels
        if math.isnan(row["label"]):
            self._count("retracted")
            return
        found = [
            known
            for known in self.known.values()
            if known.state == "pending"
            and known.event is not None
            and known.event["key"] == row["key"]
            and row["time"] - labels.within_us
            < known.event["time"]
            <= row["time"]
            <= known.event["time"] + labels.wait_us
        ]
        if not found:
            self._count("unknown")
            return
        oldest = min(found, key=lambda known: (known.event["time"], known.event["number"]) if known.event else ())
        assert oldest.event is not None
        self._join(index, oldest.event, oldest, row["label"], row["time"])

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
        is_kept = self.pipeline.labels.amend == "relearn"
        vector = known.event["vector"] if is_kept else [math.nan] * len(known.event["vector"])
        number, outcome = known.event["number"], 2 if is_retraction else 3
        of = {name: value for name, value in known.event.items() if name.startswith("field.")}
        of["of_key"] = known.event["key"]
        self.out.append((index, {**row, **of, "produced": -1, "number": number, "outcome": outcome, "vector": vector}))

    def _settle_missing(self, index: int, label_clock: int) -> None:
        wait = self.pipeline.labels.wait_us
        waiting = [known for known in self.known.values() if known.state == "pending" and known.event is not None]
        for known in sorted(waiting, key=deadline_order):
            if known.event is not None and label_clock > known.event["time"] + wait:
                self._settle(index, known)

    def _evict(self, index: int) -> None:
        """Let no more events wait than may."""
        waiting = [known for known in self.known.values() if known.state == "pending"]
        surplus = max(0, len(waiting) - self.pipeline.labels.most_pending)
        for known in sorted(waiting, key=deadline_order)[:surplus] if surplus else []:
            self._settle(index, known)
            self._count("evicted events")

    def _settle(self, index: int, known: Known) -> None:
        """Settle a pending event as missing."""
        assert known.event is not None
        labels = self.pipeline.labels
        missing = math.nan if labels.missing is None else labels.missing
        deadline = known.event["time"] + labels.wait_us
        known.state, known.forget_us = "missing", deadline + labels.keep_us
        self._count("missing")
        self._hold(known.event["key"], deadline, missing)
        row = {**known.event, "kind": "label", "time": deadline, "label": missing, "outcome": 1}
        self.out.append((index, row))

    def _vector(self, row: Row) -> list[float]:
        vector = [self._raw(row, f.name, f.kind) for f in self.pipeline.events.fields if self.pipeline.raw_features]
        if row["key"] is not None:
            self._meet(row["key"], row["time"])
        past = self.past.setdefault(row["key"], []) if row["key"] is not None else None
        newest = max((other["time"] for other in past), default=None) if past is not None else None
        known: dict[str, float] = {}
        for feature in self.pipeline.features:
            made = self._feature(feature, row, past, newest, known)
            known[feature.name] = made[0]
            vector += made
        if past is not None and any(feature.is_label for feature in self.pipeline.features):
            self.newest_label[row["key"]] = max(self.newest_label.get(row["key"], BEFORE_TIME), row["time"])
        if past is not None:
            trails = ("last", "lag")
            for width in {
                f.window_us
                for f in self.pipeline.features
                if f.window_us and f.operation not in trails and not f.is_label and not f.is_exact
            }:
                if newest is not None and bucket(newest, width) - bucket(row["time"], width) > 11:
                    self.late[width] = self.late.get(width, 0) + 1
            past.append(row)
        return vector

    def _raw(self, row: Row, name: str, kind: str) -> float:
        value = row.get(f"field.{name}")
        if value is None:
            return math.nan
        return float(hash_bytes(value.encode(), CATEGORY_SEED) >> 12) if kind == "category" else float(value)

    def _feature(
        self, feature: Feature, row: Row, past: list[Row] | None, newest: int | None, known: dict[str, float]
    ) -> list[float]:
        if feature.operation == "cyclic":
            angle = 2 * math.pi * phase(feature.of, row["time"])
            return [math.sin(angle), math.cos(angle)]
        if feature.operation == "calendar":
            moment = EPOCH + timedelta(microseconds=row["time"])
            return [float(moment.isoweekday() >= 6 if feature.of == "weekend" else moment.hour < 6)]
        if feature.operation in ("one_hot", "hash"):
            return self._coded(feature, row)
        if feature.by is None:
            return [self._computed(feature, row, known)]
        if past is None:
            return [math.nan]
        if feature.is_label:
            return [self._label_feature(feature, row)]
        is_in_order = newest is None or row["time"] >= newest
        if feature.operation == "elapsed":
            return [math.nan if newest is None or not is_in_order else (row["time"] - newest) / 1e6]
        if feature.operation in ("last", "lag", "ewm_mean", "ewm_std"):
            return [self._trail(feature, row, past) if is_in_order else math.nan]
        if feature.is_exact:
            least = max(row["time"], (row["time"] if newest is None else newest) - (feature.window_us or 0))
            least -= feature.window_us or 0
            covered = [other for other in past if least < other["time"] <= row["time"]]
        else:
            covered = covered_rows(past, row["time"], newest, feature.window_us or 1)
        return [aggregated(feature, self._values(feature, covered))]

    def _values(self, feature: Feature, rows: list[Row]) -> list[float]:
        """What is there of a field in those rows that fulfil the condition; 1 for each row if no field is meant."""
        rows = [row for row in rows if feature.where is None or CONDITIONS[feature.where](row)]
        if feature.of == "*":
            return [1.0] * len(rows)
        values = [self._named(row, feature.of) for row in rows]
        return [value for value in values if not math.isnan(value)]

    def _named(self, row: Row, name: str) -> float:
        return self._raw(row, name, next(f.kind for f in self.pipeline.events.fields if f.name == name))

    def _coded(self, feature: Feature, row: Row) -> list[float]:
        text = row.get(f"field.{feature.of}")
        if text is None:
            return [math.nan] * len(feature.columns)
        if feature.operation == "one_hot":
            return [float(text == value) for value in feature.values]
        code = self._named(row, feature.of)
        return [code % feature.buckets if feature.buckets else code]

    def _computed(self, feature: Feature, row: Row, known: dict[str, float]) -> float:
        operands = (feature.of, feature.other or feature.of)
        x, y = (known[name] if name in known else self._named(row, name) for name in operands)
        if math.isnan(x) or math.isnan(y):
            return math.nan
        if feature.operation == "ratio":
            return x / y if y else math.nan
        if feature.operation == "difference":
            return x - y
        if feature.operation == "log1p":
            return math.log(1 + x) if x > -1 else math.nan
        if feature.operation == "clip":
            low = -math.inf if feature.low is None else feature.low
            return sorted([low, x, math.inf if feature.high is None else feature.high])[1]
        return float(sum(edge <= x for edge in feature.edges))

    def _trail(self, feature: Feature, row: Row, past: list[Row]) -> float:
        """What the rows before say that were in order when they came, the newest last."""
        ordered: list[Row] = []
        for other in past:
            if not ordered or other["time"] >= ordered[-1]["time"]:
                ordered.append(other)
        if feature.operation == "lag":
            ordered = ordered[-feature.k : len(ordered) - feature.k + 1] if len(ordered) >= feature.k else []
            kept = [(other["time"], self._named(other, feature.of)) for other in ordered]
        else:
            if feature.where is not None:
                ordered = [other for other in ordered if CONDITIONS[feature.where](other)]
            kept = [(other["time"], self._named(other, feature.of)) for other in ordered]
            kept = [(time, value) for time, value in kept if not math.isnan(value)]
        if feature.half_life_us is not None:
            return weighted(feature.operation, kept, feature.half_life_us)
        if not kept or (feature.window_us and row["time"] - kept[-1][0] >= feature.window_us):
            return math.nan
        return kept[-1][1]
