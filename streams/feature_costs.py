"""What features cost: words of state for each key, as the kernels' own plan lays them out.

Features share state: aggregates of one field and window read the same lanes, two counters share a word. So a feature
costs what the plan grows by when it joins the features declared before it, and nothing where all is there already. Each
entity has state of its own.

An entity's state is a place in the table of keys and a head, for each window a chunk of filled buckets (windows.py),
and the events of exact windows (exact.py). A chunk has room in steps, and leaves that room behind in the arena when it
grows, until the arena is packed (entities.py).
"""

from __future__ import annotations

import msgspec
from msgspec.structs import astuple

from streams.bound import Bound
from streams.entities import ARENA_GROWTH, DEAD_SHARE
from streams.pipeline import Feature, Pipeline
from streams.plan import BOUND_WORDS, FIRST_WINDOW_WORD
from streams.planning import make_plan
from streams.stages import entity_of, stage_specs
from streams.windows import KEPT, room_kernel

WORD_BYTES = 8
TABLE_LEAST_BYTES, TABLE_MOST_BYTES = 26, 52  # for a key: 16 bytes a place, 5/16 to 5/8 of which are taken
# An arena is left as it is while less than a third of it is dead, and then grows by a quarter, dead or not.
ARENA_MOST_SHARE = DEAD_SHARE / (DEAD_SHARE - 1) * (1 + 1 / ARENA_GROWTH)


class Words(msgspec.Struct, frozen=True):
    """State of one key, in words of 8 bytes.

    Attributes:
        head: words of the head.
        windows: how many windows.
        bucket: words of one bucket, of all windows together.
        event: words that exact windows keep of each event of twice the longest of them.
    """

    head: int = 0
    windows: int = 0
    bucket: int = 0
    event: int = 0

    def bytes_with(self, buckets: int) -> int:
        """Give head and chunks where so many buckets of each window are filled besides the open one.

        >>> Words(head=8, windows=1, bucket=2).bytes_with(1)
        104
        """
        room = room_kernel(buckets) if buckets else 0
        return WORD_BYTES * (self.head + (self.windows if buckets else 0) + room * self.bucket)

    @property
    def typical_bytes(self) -> int:
        """One filled bucket in each window: a key that was seen lately, and not much before."""
        return self.bytes_with(1)

    @property
    def most_bytes(self) -> int:
        """All buckets that are kept are filled."""
        return self.bytes_with(KEPT)


class FeatureCost(msgspec.Struct, frozen=True):
    """What one feature needs beyond the features before it; `entity` is None for what needs no state."""

    name: str
    entity: str | None
    words: Words

    @property
    def is_shared(self) -> bool:
        """Whether it needs state, all of which is there for other features already."""
        return self.entity is not None and self.words == Words()


class EntityCost(msgspec.Struct, frozen=True):
    """What one key of an entity needs for all its features; `bound` says how many there may be, if anything does."""

    entity: str
    words: Words
    bound: Bound | None = None

    @property
    def typical_bytes(self) -> int:
        """As `Words.typical_bytes`, with the key's place in a table that is neither just grown nor full."""
        return (TABLE_LEAST_BYTES + TABLE_MOST_BYTES) // 2 + self.words.typical_bytes

    @property
    def most_bytes(self) -> int:
        """As `Words.most_bytes`, with the key's place in a table that has just grown."""
        return TABLE_MOST_BYTES + self.words.most_bytes

    @property
    def unpacked_bytes(self) -> int:
        """As `most_bytes`, with what chunks that moved have left behind in an arena just before it is packed."""
        chunks = self.words.most_bytes - WORD_BYTES * self.words.head
        return self.most_bytes + round((ARENA_MOST_SHARE - 1) * chunks)


class Costs(msgspec.Struct, frozen=True):
    """What the declared features cost, in the file's order, and what the keys of each entity do."""

    features: tuple[FeatureCost, ...]
    entities: tuple[EntityCost, ...]


def feature_costs(pipeline: Pipeline) -> Costs:
    """Count the state of all declared features; makes a plan for each of them: 0.1 s for 100, 1 s for 400."""
    owned: dict[str, list[Feature]] = {}
    for feature in pipeline.features:
        if feature.by is not None:
            owned.setdefault(_entity(pipeline, feature.by), []).append(feature)
    found = {feature.name: FeatureCost(feature.name, None, Words()) for feature in pipeline.features}
    for entity, features in owned.items():
        before = Words(head=FIRST_WINDOW_WORD + (BOUND_WORDS if _bound(pipeline, features) else 0))
        for count, feature in enumerate(features, 1):
            words = _words(pipeline, features[:count])
            own = Words(*(now - then for now, then in zip(astuple(words), astuple(before), strict=True)))
            found[feature.name], before = FeatureCost(feature.name, entity, own), words
    entities = tuple(
        EntityCost(entity, _words(pipeline, features), _bound(pipeline, features)) for entity, features in owned.items()
    )
    return Costs(tuple(found.values()), entities)


def _words(pipeline: Pipeline, features: list[Feature]) -> Words:
    """Count what these features need for each key of their entity, which they all have in common."""
    bound = _bound(pipeline, features)
    alone = msgspec.structs.replace(pipeline, features=tuple(features), bounds=(bound,) if bound else ())
    number = next(stage.number for stage in stage_specs(alone) if stage.features)
    plan = make_plan(alone, number).plan
    event = 1 + plan.exact_E.size if plan.bucket_windows < plan.width_W.size else 0  # its time, and fields
    return Words(plan.head_words, plan.bucket_windows, int(plan.lane_start[plan.bucket_windows]), event)


def _bound(pipeline: Pipeline, features: list[Feature]) -> Bound | None:
    """Give the bound of the entity of these features."""
    entity = entity_of(pipeline.events, features[0].by or ())
    return next((bound for bound in pipeline.bounds if entity_of(pipeline.events, bound.by) == entity), None)


def _entity(pipeline: Pipeline, by: str | tuple[str, ...]) -> str:
    """Name an entity by its path: a field may name it too."""
    paths = {field.name: ".".join(field.path) for field in pipeline.events.fields}
    return " and ".join(paths.get(name, name) for name in ((by,) if isinstance(by, str) else by))
