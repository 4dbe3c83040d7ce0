"""Which stages a pipeline's features take: one where all are of the events' key, else a chain over several entities.

The first stage of a chain goes by the key: its ledger settles labels, and what is known of the event alone or of its
key is computed there. One stage for each other entity follows, in the order in which the file names them. The last goes
by the key again and computes nothing: it numbers events and keeps their vectors until the label row comes. What is
computed from other columns is computed where the last of them is known. Between two stages lies a topic.

Where labels have no key, the log goes by the events' ids, and so does the first stage, which then computes only what is
known of the event alone. The key is an entity like others, with a stage of its own if any feature is by it.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.bound import Bound
from streams.expressions import parse
from streams.pipeline import Events, Feature, Field, Operation, Pipeline

Entity = tuple[str, ...]
KEY: Entity = ()  # the entity that is named by no field, but by the events' key
ID: Entity = ("",)  # that of the first stage where labels have no key: the event itself, by its id alone
COMPUTED: tuple[Operation, ...] = (
    "ratio",
    "difference",
    "log1p",
    "clip",
    "bucketise",
)  # of fields and of columns before


class StageSpec(NamedTuple):
    """One stage of a chain.

    Attributes:
        number: its place, from 1.
        last: the place of the last.
        entity: the fields whose values name its entity; KEY in the first and the last, ID in the first if labels have
            no key.
        features: computed here, in the file's order.
        carried: the fields that later stages read; they travel with the events.
        entities: those of later stages but the last, by the stages' numbers; their hashes travel with every row. Where
            labels have no key the last is among them, for what amends a label knows of the key its hash alone.
        bound: of its entity; None where entities are kept for good, or none are.
    """

    number: int
    last: int
    entity: Entity
    features: tuple[Feature, ...]
    carried: tuple[Field, ...]
    entities: dict[int, Entity]
    bound: Bound | None

    @property
    def name(self) -> str:
        """Of the role, and so of its group and its snapshots."""
        return "features" if self.number == 1 else f"features-{self.number}"

    @property
    def reads(self) -> str:
        """The topic it reads, without the pipeline's name."""
        return "log" if self.number == 1 else stage_topic(self.number - 1)

    @property
    def is_only(self) -> bool:
        """Whether there is no chain."""
        return self.last == 1

    @property
    def is_last(self) -> bool:
        """Whether it numbers events and writes feature rows and examples."""
        return self.number == self.last


def stage_topic(number: int) -> str:
    """Name the topic that a stage writes for the next one, without the pipeline's name."""
    return f"stage{number}"


def stage_topics(pipeline: Pipeline) -> tuple[str, ...]:
    """Name the topics between stages, in order; none where one stage does it all."""
    return tuple(stage_topic(spec.number) for spec in stage_specs(pipeline)[:-1])


def entity_of(events: Events, by: str | Entity) -> Entity:
    """Give the entity that a feature's `by` names."""
    names, fields = (by,) if isinstance(by, str) else by, {field.name: field for field in events.fields}
    if len(names) == 1:
        (name,) = names
        if name not in fields or name == ".".join(events.key or ()) or fields[name].path == events.key:
            return KEY
    return names


def stage_specs(pipeline: Pipeline) -> tuple[StageSpec, ...]:
    """Say which stages there are and what each does."""
    named = [entity_of(pipeline.events, feature.by) for feature in pipeline.features if feature.by is not None]
    is_by_id = pipeline.labels.match == "id"
    first = ID if is_by_id else KEY
    others = [entity for entity in dict.fromkeys(named) if entity != first]
    last = len(others) + 2 if others or is_by_id else 1
    numbers = {first: 1} | {entity: number for number, entity in enumerate(others, 2)}
    places = _places(pipeline, numbers)
    bounds = {numbers[entity_of(pipeline.events, b.by)]: b for b in pipeline.bounds if b.ttl_us or b.most}
    entities = {number: entity for entity, number in numbers.items()} | {last: KEY}
    return tuple(
        StageSpec(
            number,
            last,
            entities[number],
            tuple(f for f in pipeline.features if places[f.name] == number),
            _fields_read(pipeline, [f for f in pipeline.features if places[f.name] > number]),
            {later: entity for later, entity in entities.items() if number < later < last + is_by_id},
            bounds.get(number),
        )
        for number in sorted(entities)
    )


def _places(pipeline: Pipeline, numbers: dict[Entity, int]) -> dict[str, int]:
    """Say at which stage each feature is computed."""
    places: dict[str, int] = {}
    for feature in pipeline.features:
        at = 1
        if feature.by is not None:
            at = numbers[entity_of(pipeline.events, feature.by)]
        elif feature.operation in COMPUTED:
            at = max(places.get(name, 1) for name in (feature.of, feature.other or feature.of))
        places[feature.name] = at
    return places


def _fields_read(pipeline: Pipeline, features: list[Feature]) -> tuple[Field, ...]:
    fields = pipeline.events.fields
    kinds = {field.name: field.kind for field in fields}
    read = {name for f in features if not f.is_label for name in (f.of, f.other)}
    read |= {name for f in features if f.where for name in parse(f.where, kinds).fields}
    return tuple(field for field in fields if field.name in read)
