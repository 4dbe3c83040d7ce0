"""What a pipeline file stands for, spelled out: topics, stages, feature columns and models, for `millrace check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streams.drift import Drift
from streams.durations import SECOND_US, duration_text
from streams.feature_words import FeatureLine, feature_lines
from streams.pipeline import Labels, Model, Pipeline, Task
from streams.retraining import Retrain
from streams.stages import ID, KEY, StageSpec, stage_specs, stage_topic
from streams.topic_specs import TopicSpec, topic_specs


class Stage(msgspec.Struct, frozen=True):
    """One role of the pipeline, with the topics it reads and writes."""

    role: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    purpose: str


class ModelLine(msgspec.Struct, frozen=True):
    """One candidate; the champion is the one that answers."""

    name: str
    kind: str
    params: Mapping[str, bool | int | float | str | tuple[int, ...]]
    is_champion: bool


class Declared(msgspec.Struct, frozen=True):
    """What holds in one table of the file, declared or not; durations as people write them."""

    table: str
    values: Mapping[str, Any]


class Description(msgspec.Struct, frozen=True):
    """A whole pipeline in lists that a terminal or a page can lay out."""

    name: str
    topics: tuple[TopicSpec, ...]
    stages: tuple[Stage, ...]
    declared: tuple[Declared, ...]
    features: tuple[FeatureLine, ...]
    models: tuple[ModelLine, ...]


def describe(pipeline: Pipeline) -> Description:
    """Spell out a pipeline; `is_user_topic` tells the users' topics, and whatever topic is absent gets created."""
    return Description(
        name=pipeline.name,
        topics=topic_specs(pipeline),
        stages=_stages(pipeline),
        declared=(
            Declared("task", _task(pipeline.task)),
            Declared("labels", _labels(pipeline.labels, pipeline.task)),
            Declared("drift", _drift(pipeline.drift)),
        ),
        features=feature_lines(pipeline),
        models=tuple(
            ModelLine(model.name, model.kind, _declared(model), is_champion=model.name == pipeline.serve.champion)
            for model in pipeline.models
        ),
    )


def _task(task: Task) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": task.kind}
    if task.classes:
        found["classes"] = task.classes
    if task.kind == "anomaly":
        found |= {"threshold": task.threshold} if task.alert is None else {"alert": task.alert}
    return found


def _labels(labels: Labels, task: Task) -> dict[str, Any]:
    """Give how labels find their events and what becomes of them; nothing where there are none."""
    if not labels.is_declared:
        return {}
    found: dict[str, Any] = {"match": labels.match}
    if labels.match == "key":
        found["within"] = duration_text(labels.within_us)
    found |= {"wait": duration_text(labels.wait_us), "keep": duration_text(labels.keep_us)}
    if labels.match != "key":
        found["amend"] = labels.amend
    return found | {"missing": _missing(labels.missing, task), "most_pending": labels.most_pending}


def _missing(missing: float | None, task: Task) -> str:
    if missing is None:
        return "drop"
    return task.classes[int(missing)] if task.classes else f"{missing:g}"


def _drift(drift: Drift) -> dict[str, Any]:
    """Give the detectors, and the settings of those that watch."""
    watching = [*drift.loss, *(["psi"] if drift.features == "psi" else [])]
    settings = {name: msgspec.structs.asdict(getattr(drift, name)) for name in watching}
    return {"loss": drift.loss, "features": drift.features, **settings}


def _declared(model: Model) -> dict[str, Any]:
    """Give a model's parameters, and what every kind may have where it is not as usual."""
    usual = Model("", "", {})
    common = ("sample", "shards", "on_drift", "relearn_rows")
    found = {name: getattr(model, name) for name in common if getattr(model, name) != getattr(usual, name)}
    retrain = {} if model.retrain is None else _retraining(model.retrain)
    return {**model.params, **found, **({"retrain": retrain} if retrain else {})}


def _retraining(retrain: Retrain) -> dict[str, Any]:
    """Give what the `retrain` table says where it is not as usual, in the words of the file."""
    usual, found = Retrain(), dict[str, Any]()
    for name in ("every", "examples", "on_drift", "cooldown", "window", "budget", "nproc", "search", "start", "then"):
        key = {"every": "every_us", "cooldown": "cooldown_us", "window": "window_us", "budget": "budget_s"}.get(
            name, name
        )
        value = getattr(retrain, key)
        if value != getattr(usual, key):
            found[name] = duration_text(_us(key, value)) if key != name else value
    return found


def _us(key: str, value: float) -> int:
    return round(value * SECOND_US) if key.endswith("_s") else round(value)


def _stages(pipeline: Pipeline) -> tuple[Stage, ...]:
    def inner(*names: str) -> tuple[str, ...]:
        return tuple(f"{pipeline.name}.{name}" for name in names)

    raw = tuple(dict.fromkeys((pipeline.events.topic, pipeline.labels.topic)))
    key = ".".join(pipeline.events.key or pipeline.events.id or ()) or "the record's position"
    wait = duration_text(pipeline.labels.wait_us) if pipeline.labels.is_declared else ""
    candidates = ", ".join(model.name for model in pipeline.models)
    return (
        Stage("ingest", raw, inner("log", "deadletters"), "decodes and checks records, orders them by partition"),
        *(
            Stage(
                "features" if spec.is_only else f"features, stage {spec.number}",
                inner(spec.reads),
                inner("features", "examples") if spec.is_last else inner(stage_topic(spec.number)),
                _purpose(spec, key, wait) + _bound(spec, pipeline.partitions),
            )
            for spec in stage_specs(pipeline)
        ),
        Stage(
            "learn",
            inner("examples"),
            inner("scores", "control", "decisions"),
            f"predicts, scores and learns: {candidates}",
        ),
        Stage("serve", inner("features", "control"), inner("predictions"), _serving(pipeline)),
        *_training(pipeline, inner("examples"), inner("examples", "decisions")),
        *_selecting(pipeline, inner("scores", "decisions"), inner("decisions", "selection")),
    )


def _training(pipeline: Pipeline, reads: tuple[str, ...], writes: tuple[str, ...]) -> tuple[Stage, ...]:
    """Give the role that archives and trains, if the pipeline has one."""
    if pipeline.archive is None:
        return ()
    keep_us = pipeline.archive.keep_us
    names = ", ".join(model.name for model in pipeline.models if model.retrain is not None)
    purpose = "archives examples" + (f" for {duration_text(keep_us)}" if keep_us is not None else "")
    return (Stage("train", reads, writes, purpose + (f", trains: {names}" if names else "")),)


def _selecting(pipeline: Pipeline, reads: tuple[str, ...], writes: tuple[str, ...]) -> tuple[Stage, ...]:
    """Give the role that chooses the champion, if the pipeline has one."""
    found = pipeline.select
    if found is None:
        return ()
    text = f"chooses the champion by {found.metric.replace('_', ' ')}: alpha {found.alpha:g}"
    text += f", margin {found.margin:g}" if found.margin else ""
    text += f", at least {duration_text(found.span_us)}"
    text += f", {duration_text(found.cooldown_us)} between promotions" if found.cooldown_us else ""
    limits = (
        (found.max_predict_ms, "ms a prediction"),
        (found.max_model_mib, "MiB"),
        (found.max_training_s, "s of training"),
    )
    text += "".join(f", at most {most:g} {unit}" for most, unit in limits if most is not None)
    return (Stage("select", reads, writes, text),)


def _purpose(spec: StageSpec, key: str, wait: str) -> str:
    if spec.entity == ID:
        return f"joins labels within {wait} by their event's id"
    if spec.number == 1:
        return (
            f"joins labels within {wait}, computes the features of {key}" if wait else f"computes the features of {key}"
        )
    if spec.is_last:
        return f"numbers events by {key}, keeps vectors for their labels"
    return f"computes the features of {key if spec.entity == KEY else ' and '.join(spec.entity)}"


def _bound(spec: StageSpec, partitions: int) -> str:
    """Say how long and how many entities are known, if that is bounded."""
    if spec.bound is None:
        return ""
    text = f", known for {duration_text(spec.bound.ttl_us)} after its last row" if spec.bound.ttl_us else ""
    if spec.bound.most:
        text += f", at most {spec.bound.most:,} ({spec.bound.most_in_each(partitions):,} a partition)"
    return text


def _serving(pipeline: Pipeline) -> str:
    purpose = f"answers with {pipeline.serve.champion}"
    if pipeline.serve.redis is None:
        return purpose
    return f"{purpose}, keeps the last of each key in Redis for {duration_text(pipeline.serve.redis_ttl_us)}"
