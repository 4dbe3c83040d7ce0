"""The pipeline file: one TOML file read into frozen structs, or every mistake in it, one line each.

A line reads `[table] key: what is wrong; allowed: …; did you mean "…"?`. What a later release brings is refused
with "not available yet", never ignored. docs/pipeline.md describes every table and key.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from streams.durations import HOUR_US, MINUTE_US, MS_US, SECOND_US
from streams.errors import PipelineError
from streams.kafka_settings import read_settings
from streams.pipeline import (
    MOST_PENDING,
    Amend,
    Condition,
    Events,
    Feature,
    Field,
    FieldKind,
    FieldPath,
    Labels,
    Match,
    Pipeline,
    Run,
    Task,
    TimeUnit,
)
from streams.pipeline_bounds import read_bounds
from streams.pipeline_drift import read_drift
from streams.pipeline_features import NAME_FORM as FIELD_NAME_FORM
from streams.pipeline_features import NAME_PATTERN as FIELD_NAME_PATTERN
from streams.pipeline_features import FeatureReader
from streams.pipeline_models import NAME_FORM, NAME_PATTERN, read_models, read_serve
from streams.pipeline_state import read_state
from streams.pipeline_task import read_missing, read_task
from streams.stages import stage_topic
from streams.toml_table import PATH_FORM, Table, flattened, mistake_line, one_line, shown
from streams.topic_specs import INNER_TOPICS

TABLES = ("pipeline", "kafka", "events", "labels", "task", "features", "entities", "models", "drift", "serve", "run")
DEFAULT_PARTITIONS = 4
MOST_PARTITIONS = 4_096
MOST_PENDING_ALLOWED = 200_000_000  # with what is remembered, a partition's ledger has room for 268 million
UNLABELLED_KEEP_US = HOUR_US  # how long an id is known, to drop its second event; each takes some 40 bytes

_LATER_TABLES = {"select": "selecting the champion by evidence"}
_LATER_PIPELINE = {"shards": "sharding", "sample": "sampling"}
_LATER_EVENTS = {"sample": "sampling", "decoder": "your own decoder", "format": "another format than JSON"}
_LATER_LABELS = {
    "sample": "sampling",
}
_TOPIC_PATTERN = "[A-Za-z0-9._-]{1,249}"
_TOPIC_FORM = "letters, digits, ., _ and -, at most 249"
_READ_AS = {"number": "a number", "category": "text", "boolean": "a boolean"}
_KINDS: tuple[FieldKind, ...] = get_args(FieldKind)
_MATCHES: tuple[Match, ...] = get_args(Match)
_AMENDS: tuple[Amend, ...] = get_args(Amend)
_TIME_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)

Use = tuple[str, FieldPath, str]  # a key of the file, the path it names, what is read there


def read_pipeline(path: Path, environment: Mapping[str, str] | None = None) -> Pipeline:
    """Read and check a pipeline file; `environment` (the process's own if None) gives the `${ENV}` values.

    Raises:
        PipelineError: the file cannot be read, or holds mistakes; then all of them are in it.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PipelineError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError([f"{path}: is not TOML: {error}"]) from error
    mistakes: list[str] = []
    pipeline = _pipeline(path, values, os.environ if environment is None else environment, mistakes)
    if mistakes:
        raise PipelineError([one_line(mistake) for mistake in mistakes])
    return pipeline


def _pipeline(path: Path, values: dict[str, Any], environment: Mapping[str, str], mistakes: list[str]) -> Pipeline:
    tables = _tables(values, mistakes)
    head = Table("pipeline", tables["pipeline"], mistakes)
    name = head.text("name", pattern=NAME_PATTERN, allowed=NAME_FORM)
    partitions = head.integer("partitions", DEFAULT_PARTITIONS, 1, MOST_PARTITIONS)
    state, state_url = read_state(head, name, path.absolute().parent, environment)
    head.finish(_LATER_PIPELINE)
    kafka = read_settings(tables["kafka"], environment, mistakes)
    about_events = Table("events", tables["events"], mistakes)
    keep_us = 0 if "labels" in values else about_events.duration("keep", UNLABELLED_KEEP_US, smallest_us=0)
    events = _events(about_events, name)
    task = read_task(Table("task", tables["task"], mistakes))
    if "labels" in values or not task.is_unsupervised:
        labels = _labels(Table("labels", tables["labels"], mistakes), name, task, is_keyed="key" in tables["events"])
    else:
        labels = _no_labels(events, keep_us)
    key: FieldPath | None = () if "key" in tables["events"] and events.key is None else events.key
    features, has_raw_features = FeatureReader(events.fields, key, mistakes, task).read(tables["features"])
    mistakes += _of_labels(features, task, labels)
    bounds = read_bounds(tables["entities"], events, features, mistakes)
    if not features and not (events.fields and has_raw_features) and not mistakes:
        mistakes.append("[features]: nothing to learn from; allowed: [events.fields], or features over the events' key")
    models = read_models(tables["models"], mistakes, task)
    if not models and isinstance(values.get("models", {}), dict):
        mistakes.append('[models]: no model; allowed: at least one, such as [models.logistic] with kind = "linear"')
    drift = read_drift(tables["drift"], models, mistakes)
    serve = read_serve(tables["serve"], models, environment, mistakes)
    run = _run(Table("run", tables["run"], mistakes))
    return Pipeline(
        name=name,
        partitions=partitions,
        state=state,
        kafka=kafka,
        events=events,
        labels=labels,
        task=task,
        features=features,
        raw_features=has_raw_features,
        models=models,
        serve=serve,
        run=run,
        source=path,
        state_url=state_url,
        bounds=bounds,
        drift=drift,
    )


def _tables(values: dict[str, Any], mistakes: list[str]) -> dict[str, dict[str, Any]]:
    """Split the file into its tables; a missing one is empty, and complains by its required keys."""
    for name, table in values.items():
        if name in _LATER_TABLES:
            mistakes.append(f"[{name}]: not available yet ({_LATER_TABLES[name]})")
        elif name not in TABLES:
            mistakes.append(mistake_line(f"[{name}]", "unknown table", ", ".join(TABLES), name, TABLES))
        elif not isinstance(table, dict):
            mistakes.append(f"[{name}]: {shown(table)} is not right; allowed: a table")
    return {name: table if isinstance(table := values.get(name), dict) else {} for name in TABLES}


def _events(table: Table, pipeline: str) -> Events:
    events = Events(
        topic=_topic(table, pipeline),
        id=table.path("id"),
        time=table.path("time"),
        time_unit=_time_unit(table),
        key=table.path("key"),
        where=_where(table),
        fields=_fields(Table("events.fields", table.table("fields"), table.mistakes)),
    )
    table.finish(_LATER_EVENTS)
    uses = _identity_uses(events)
    uses += [(f"fields.{field.name}", field.path, _READ_AS[field.kind]) for field in events.fields]
    _check_paths(table, uses)
    return events


def _labels(table: Table, pipeline: str, task: Task, *, is_keyed: bool) -> Labels:
    topic = _topic(table, pipeline)
    match = _match(table, is_keyed=is_keyed)
    identity = table.path("id", required=match != "key")
    time, time_unit = table.path("time"), _time_unit(table)
    key = table.path("key", required=is_keyed and match != "id")
    if key and not is_keyed:
        table.mistake("key", "the events have no key to match", "declare [events] key too, or leave both out")
    value = table.path("value", required=True) or ()
    where = _where(table)
    within_us = table.duration("within") if match == "key" else 0
    wait_us = table.duration("wait", within_us or None)
    wait_us = min(wait_us, within_us or wait_us)
    labels = Labels(
        topic=topic,
        id=identity,
        time=time,
        time_unit=time_unit,
        key=key,
        value=value,
        where=where,
        wait_us=wait_us,
        keep_us=table.duration("keep", wait_us, smallest_us=0),
        missing=read_missing(table, task),
        most_pending=table.integer("most_pending", MOST_PENDING, 1, MOST_PENDING_ALLOWED),
        amend=table.choice("amend", _AMENDS, "metrics"),
        match=match,
        within_us=within_us,
    )
    table.finish(_LATER_LABELS)
    if task.kind == "clustering":
        table.mistakes.append("[labels]: a cluster is nobody's to know; allowed: no such table for a clustering")
    _check_paths(table, [*_identity_uses(labels), *([("value", labels.value, "a label")] if labels.value else [])])
    return labels


def _no_labels(events: Events, keep_us: int) -> Labels:
    """Give the labels of a pipeline that has none: the topic is the events', and nothing waits."""
    return Labels(events.topic, (), None, "rfc3339", None, (), (), 0, keep_us, None, is_declared=False)


def _match(table: Table, *, is_keyed: bool) -> Match:
    """Say by what labels find their events, and refuse what does not go with it."""
    match = table.choice("match", _MATCHES, "id and key")
    if match != "id and key" and not is_keyed:
        allowed = "leave it out, and labels are matched by id; or declare [events] key"
        table.mistake("match", "the events have no key", allowed)
    if match == "id" and "key" in table.values:
        table.mistake("key", "labels that are matched by id have no key", 'leave it out, or match = "id and key"')
    if match == "key" and "id" in table.values:
        table.mistake("id", "labels that are matched by key name no event", 'leave it out, or match = "id and key"')
    if match == "key" and "amend" in table.values:
        table.mistake("amend", "a label that names no event amends none", 'leave it out, or match = "id and key"')
    if match != "key":
        table.known.append("within")
        if "within" in table.values:
            table.mistake("within", "a label that names its event needs none", 'leave it out, or match = "key"')
    return match


def _of_labels(features: tuple[Feature, ...], task: Task, labels: Labels) -> list[str]:
    """Refuse features that would count with a class as a number, or with labels that there are not."""
    why = "a class is no number" if task.kind == "multiclass" else "there are no labels"
    named = [one for one in features if one.is_label and (task.kind == "multiclass" or not labels.is_declared)]
    return [f"[features] {one.name}: {why}; allowed: a feature of a field" for one in named]


def _identity_uses(part: Events | Labels) -> list[Use]:
    time_as = "text" if part.time_unit == "rfc3339" else "a number"
    found = (("id", part.id, "text"), ("time", part.time, time_as), ("key", part.key, "text"))
    return [(key, path, read_as) for key, path, read_as in found if path]


def _check_paths(table: Table, uses: list[Use]) -> None:
    """A record is decoded once, so a place in it is read as one type, and a value holds no other values."""
    for place, (key, path, read_as) in enumerate(uses):
        for other, other_path, other_as in uses[:place]:
            shared = min(len(path), len(other_path))
            if path == other_path and read_as != other_as:
                table.mistake(key, f"{shown('.'.join(path))} is read as {other_as} already, by {other}", other_as)
            elif path != other_path and path[:shared] == other_path[:shared]:
                both = f"{shown('.'.join(path))} and {shown('.'.join(other_path))} of {other}"
                table.mistake(key, f"{both} lie inside one another", "paths that end at a value")


def _topic(table: Table, pipeline: str) -> str:
    topic = table.text("topic", pattern=_TOPIC_PATTERN, allowed=_TOPIC_FORM)
    is_between_stages = re.fullmatch(rf"{re.escape(pipeline)}\.{stage_topic(0)[:-1]}[0-9]+", topic)
    if is_between_stages or topic in {f"{pipeline}.{inner}" for inner in INNER_TOPICS}:
        table.mistake("topic", f"{shown(topic)} is one of the pipeline's own topics", "another name")
    return topic


def _time_unit(table: Table) -> TimeUnit:
    unit = table.choice("time_unit", _TIME_UNITS, "rfc3339")
    if "time_unit" in table.values and "time" not in table.values:
        table.mistake("time_unit", "there is no time to read", "declare time too")
    return unit


def _where(table: Table) -> tuple[Condition, ...]:
    conditions = []
    for key, value in flattened(table.table("where")).items():
        path = tuple(key.split("."))
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not all(path):
            table.mistake(f"where.{key}", f"{shown(key)} is no path", PATH_FORM)
        elif not isinstance(value, str | bool | int | float) or not is_finite:
            table.mistake(f"where.{key}", f"{shown(value)} is not right", "text, a number, true, false")
        else:
            conditions.append(Condition(path, value))
    _check_paths(table, [(f"where.{'.'.join(condition.path)}", condition.path, "") for condition in conditions])
    return tuple(conditions)


def _fields(table: Table) -> tuple[Field, ...]:
    fields = []
    for name, declared in table.values.items():
        if not re.fullmatch(FIELD_NAME_PATTERN, name):
            table.mistake(name, "is no name for a field", FIELD_NAME_FORM)
        if isinstance(declared, dict):
            inner = Table(table.name, declared, table.mistakes, prefix=f"{name}.")
            inner.get("type", required=True, allowed=", ".join(_KINDS))
            kind = inner.choice("type", _KINDS, "number")
            fields.append(Field(name, kind, inner.path("path") or (name,)))
            inner.finish()
        else:
            fields.append(Field(name, table.choice(name, _KINDS, "number"), (name,)))
    return tuple(fields)


def _run(table: Table) -> Run:
    usual = Run()

    def seconds(key: str, default_s: float, smallest_us: int = 1) -> float:
        return table.duration(key, round(default_s * SECOND_US), smallest_us) / SECOND_US

    run = Run(
        group_protocol=table.choice("group_protocol", ("consumer", "classic"), usual.group_protocol),
        snapshot_every_s=seconds("snapshot_every", usual.snapshot_every_s),
        align_wait_s=seconds("align_wait", usual.align_wait_s, 0),
        idle_s=seconds("idle", usual.idle_s, 0),
        max_skew_s=seconds("max_skew", usual.max_skew_s, 0),
        poll_interval_ms=_poll_interval_ms(table, usual.poll_interval_ms),
        on_gap=table.choice("on_gap", ("stop", "continue"), usual.on_gap),
        max_record_bytes=table.integer("max_record_bytes", usual.max_record_bytes, 64, 1_000_000),
        max_text_bytes=table.integer("max_text_bytes", usual.max_text_bytes, 16, 65_536),
        publish_every_s=seconds("publish_every", usual.publish_every_s),
        keep_versions=table.integer("keep_versions", usual.keep_versions, 2, 10_000),
    )
    table.finish()
    return run


def _poll_interval_ms(table: Table, default_ms: int) -> int:
    wait_us = table.duration("poll_interval", default_ms * MS_US, 0)
    if wait_us % MS_US or wait_us > MINUTE_US:
        table.mistake("poll_interval", f"{shown(table.values['poll_interval'])} is not right", "0ms to 60s")
    return wait_us // MS_US
