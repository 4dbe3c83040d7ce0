"""What a pipeline file stands for, spelled out: topics, stages, feature columns and models, for `millrace check`."""

from __future__ import annotations

import msgspec

from streams.durations import duration_text
from streams.pipeline import Feature, Field, Pipeline
from streams.topic_specs import TopicSpec, topic_specs


class Stage(msgspec.Struct, frozen=True):
    """One role of the pipeline, with the topics it reads and writes."""

    role: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    purpose: str


class FeatureLine(msgspec.Struct, frozen=True):
    """One feature in words, with the columns of the feature matrix that it fills."""

    name: str
    meaning: str
    columns: tuple[str, ...]
    is_category: bool


class ModelLine(msgspec.Struct, frozen=True):
    """One candidate; the champion is the one that answers."""

    name: str
    kind: str
    params: dict[str, bool | int | float | str]
    is_champion: bool


class Description(msgspec.Struct, frozen=True):
    """A whole pipeline in lists that a terminal or a page can lay out."""

    name: str
    topics: tuple[TopicSpec, ...]
    stages: tuple[Stage, ...]
    features: tuple[FeatureLine, ...]
    models: tuple[ModelLine, ...]


def describe(pipeline: Pipeline) -> Description:
    """Spell out a pipeline; `is_user_topic` tells the users' topics, and whatever topic is absent gets created."""
    raw = pipeline.events.fields if pipeline.raw_features else ()
    return Description(
        name=pipeline.name,
        topics=topic_specs(pipeline),
        stages=_stages(pipeline),
        features=(*map(_raw_line, raw), *map(_feature_line, pipeline.features)),
        models=tuple(
            ModelLine(model.name, model.kind, model.params, is_champion=model.name == pipeline.serve.champion)
            for model in pipeline.models
        ),
    )


def _stages(pipeline: Pipeline) -> tuple[Stage, ...]:
    def inner(*names: str) -> tuple[str, ...]:
        return tuple(f"{pipeline.name}.{name}" for name in names)

    raw = tuple(dict.fromkeys((pipeline.events.topic, pipeline.labels.topic)))
    key = ".".join(pipeline.events.key or pipeline.events.id or ()) or "the record's position"
    wait = duration_text(pipeline.labels.wait_us)
    candidates = ", ".join(model.name for model in pipeline.models)
    return (
        Stage("ingest", raw, inner("log", "deadletters"), "decodes and checks records, orders them by partition"),
        Stage(
            "features",
            inner("log"),
            inner("features", "examples"),
            f"joins labels within {wait}, computes the features of {key}",
        ),
        Stage(
            "learn",
            inner("examples"),
            inner("scores", "control", "decisions"),
            f"predicts, scores and learns: {candidates}",
        ),
        Stage("serve", inner("features", "control"), inner("predictions"), _serving(pipeline)),
    )


def _serving(pipeline: Pipeline) -> str:
    purpose = f"answers with {pipeline.serve.champion}"
    if pipeline.serve.redis is None:
        return purpose
    return f"{purpose}, keeps the last of each key in Redis for {duration_text(pipeline.serve.redis_ttl_us)}"


def _raw_line(field: Field) -> FeatureLine:
    return FeatureLine(field.name, f"the {field.kind} as it came", (field.name,), is_category=field.kind == "category")


def _feature_line(feature: Feature) -> FeatureLine:
    if feature.operation == "cyclic":
        meaning = f"the {feature.of} of the event's time, as a point on a circle"
    elif feature.operation == "elapsed":
        meaning = f"seconds since the last event of the same {feature.by}"
    else:
        what = "events" if feature.of == "*" else feature.of
        window = duration_text(feature.window_us or 0)
        meaning = f"{feature.operation} of {what} of the same {feature.by} over the last {window}"
    return FeatureLine(feature.name, meaning, feature.columns, is_category=False)
