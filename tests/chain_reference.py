"""A chain of feature stages computed another way: the reference of one entity, once for every stage.

Each stage of the reference takes its own rows, which still have all their texts, and asks `xxhash` where they go.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import xxhash

from streams.features import columns
from streams.pipeline import Feature, Pipeline
from streams.stages import COMPUTED
from tests.aggregate_reference import Row
from tests.feature_reference import Reference

Entity = tuple[str, ...]
Made = list[tuple[int, int, Row]]  # the input row that caused it, the partition it goes to, the row
MISSING, SET = 1, 0
KEY: Entity = ("key",)
EVERYWHERE = -1  # a row that stays in its partition: feature rows and examples


def entities(pipeline: Pipeline) -> list[Entity]:
    """The entities of the middle stages; in these tests the key is called `key`, and is one where labels lack it."""
    named = [(f.by,) if isinstance(f.by, str) else f.by for f in pipeline.features if f.by]
    return [entity for entity in dict.fromkeys(named) if entity != KEY or is_by_id(pipeline)]


def is_by_id(pipeline: Pipeline) -> bool:
    return pipeline.labels.match == "id"


def hash_of(row: Row, entity: Entity) -> int:
    """XXH64 of the first text, of each other one seeded with what came before; 0 if one is missing."""
    hashed = 1
    for name in entity:
        text = row.get("of_key", row["key"]) if name == "key" else row.get(f"field.{name}")
        if text is None:
            return 0
        hashed = xxhash.xxh64(text.encode(), seed=hashed).intdigest()
    return hashed


def partition_of(row: Row, entity: Entity | None, partitions: int) -> int:
    """By the upper half of the entity's hash; by the key's where it is missing or the last stage follows."""
    hashed = hash_of(row, entity) if entity is not None else 0
    if hashed:
        return (hashed >> 32) % partitions
    return int((xxhash.xxh64((row["key"] or "").encode(), seed=1).intdigest() >> 32) % partitions)


class Stage:
    """One stage on one partition; a subclass says what it does with a row."""

    def __init__(
        self, pipeline: Pipeline, following: Entity | None, features: list[Feature], entity: Entity, *, is_raw: bool
    ) -> None:
        own = tuple(msgspec.structs.replace(f, by=f.by and "key") for f in features)
        bounds = tuple(b for b in pipeline.bounds if ((b.by,) if isinstance(b.by, str) else b.by) == entity)
        self.pipeline, self.following, self.features = pipeline, following, features
        self.engine = Reference(msgspec.structs.replace(pipeline, features=own, raw_features=is_raw, bounds=bounds))

    def process(self, rows: list[Row], clocks: list[tuple[int, int]]) -> Made:
        """Take rows in order and give what they cause."""
        made: Made = []
        for cause, (row, (label_clock, clock)) in enumerate(zip(rows, clocks, strict=True)):
            for out in self.take(row, label_clock, clock):
                made.append((cause, self.target(out), out))
        return made

    def take(self, row: Row, label_clock: int, clock: int) -> list[Row]:
        raise NotImplementedError

    def target(self, row: Row) -> int:
        return partition_of(row, self.following, self.pipeline.partitions)

    def name(self, own: list[float], fresh: list[str], known: dict[str, float], row: Row) -> dict[str, float]:
        """Give all columns known so far, those computed from others among them."""
        known = {**known, **dict(zip(fresh, own, strict=True))}
        for feature in self.pipeline.features:
            operands = (feature.of, feature.other or feature.of)
            fields = {field.name for field in self.pipeline.events.fields}
            if feature.operation in COMPUTED and all(name in known or name in fields for name in operands):
                known[feature.name] = self.engine._computed(feature, row, known)
        return known


class First(Stage):
    """The ledger, and what is of the key or of the event alone."""

    def __init__(self, pipeline: Pipeline) -> None:
        own = [f for f in pipeline.features if f.by == "key" or (f.by is None and f.operation not in COMPUTED)]
        if is_by_id(pipeline):
            own = [f for f in own if f.by is None]
        following = [*entities(pipeline), KEY][0]
        super().__init__(pipeline, following, own, KEY, is_raw=pipeline.raw_features)
        self.at = 0

    def take(self, row: Row, label_clock: int, clock: int) -> list[Row]:
        before = len(self.engine.out)
        self.engine.take(self.at, row, label_clock, clock)
        self.at += 1
        return [self._named(out) for _, out in self.engine.out[before:]]

    def _named(self, out: Row) -> Row:
        if out["kind"] != "event":
            return {**out, "known": {}}
        raw = [field.name for field in self.pipeline.events.fields] if self.pipeline.raw_features else []
        fresh = [*raw, *(column for feature in self.features for column in feature.columns)]
        return {**out, "known": self.name(out["vector"], fresh, {}, out)}


class Middle(Stage):
    """What is of one entity."""

    def __init__(self, pipeline: Pipeline, entity: Entity) -> None:
        after = [*entities(pipeline), KEY if is_by_id(pipeline) else None]
        own = [f for f in pipeline.features if ((f.by,) if isinstance(f.by, str) else f.by) == entity]
        following = after[entities(pipeline).index(entity) + 1]
        super().__init__(pipeline, following, own, entity, is_raw=False)
        self.entity = entity

    def take(self, row: Row, label_clock: int, clock: int) -> list[Row]:
        taken = [] if row["kind"] == "mark" else self._take(row)
        self.engine._pass_idle(clock)
        return taken

    def _take(self, row: Row) -> list[Row]:
        name = str(hash_of(row, self.entity)) if hash_of(row, self.entity) else None
        if row["kind"] == "event" or row["outcome"] == SET:
            self.engine.latest = max(self.engine.latest, row["time"])
        self.engine._count_labels()
        if row["kind"] == "event":
            own = self.engine._vector({**row, "key": name})
            return [{**row, "known": self.name(own, [f.name for f in self.features], row["known"], row)}]
        if row["outcome"] in (SET, MISSING):
            self.engine._hold(name, row["time"], row["label"])
        return [row]


class Last(Stage):
    """Numbers, and the vectors of label rows."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline, None, [], (), is_raw=False)
        self.numbers: dict[tuple[str, str | None, int], int] = {}
        self.is_by_id = is_by_id(pipeline)
        self.vectors: dict[int, list[float]] = {}

    def target(self, row: Row) -> int:
        return EVERYWHERE

    def take(self, row: Row, label_clock: int, clock: int) -> list[Row]:
        if row["kind"] == "mark":
            return []
        name = (row["id"], None if self.is_by_id else row["key"], row["number"])
        if row["kind"] == "event":
            number = self.numbers[name] = len(self.numbers)
            self.vectors[number] = vector_of(self.pipeline, row)
        number = self.numbers[name]
        has_vector = row["kind"] == "event" or row["outcome"] in (SET, MISSING)
        has_vector |= self.pipeline.labels.amend == "relearn"
        empty = [math.nan] * len(columns(self.pipeline))
        return [{**row, "number": number, "vector": self.vectors[number] if has_vector else empty}]


def vector_of(pipeline: Pipeline, row: Row) -> list[float]:
    """The whole matrix's row, NaN where nothing is known."""
    return [row["known"].get(column.name, math.nan) for column in columns(pipeline)]


def between(pipeline: Pipeline, row: Row, stage: int) -> dict[str, Any]:
    """A row as it travels behind a stage: the hashes of later entities, the vector so far."""
    every = [*entities(pipeline), *([KEY] if is_by_id(pipeline) else [])]
    later = {f"entity.{n}": hash_of(row, one) for n, one in enumerate(every, 2) if n > stage}
    signed = {name: value - 2**64 if value >= 2**63 else value for name, value in later.items()}
    return {**row, **signed, "vector": vector_of(pipeline, row)}


def stages(pipeline: Pipeline) -> list[list[Stage]]:
    """All stages, each with one for every partition."""
    made: list[list[Stage]] = [[First(pipeline) for _ in range(pipeline.partitions)]]
    made += [[Middle(pipeline, entity) for _ in range(pipeline.partitions)] for entity in entities(pipeline)]
    return [*made, [Last(pipeline) for _ in range(pipeline.partitions)]]
