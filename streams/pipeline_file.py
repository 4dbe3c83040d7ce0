"""The pipeline file: one TOML file read into frozen structs, or every mistake in it, one line each.

A line reads `[table] key: what is wrong; allowed: …; did you mean "…"?`. What a later release brings is refused
with "not available yet", never ignored. docs/pipeline.md describes every table and key.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from streams.durations import HOUR_US, MS_US, SECOND_US
from streams.errors import PipelineError
from streams.kafka_settings import read_settings
from streams.pipeline import Events, Field, FieldKind, FieldPath, Pipeline, Run
from streams.pipeline_bounds import read_bounds
from streams.pipeline_drift import read_drift
from streams.pipeline_features import NAME_FORM as FIELD_NAME_FORM
from streams.pipeline_features import NAME_PATTERN as FIELD_NAME_PATTERN
from streams.pipeline_features import FeatureReader
from streams.pipeline_labels import no_labels, read_labels, refuse_label_features
from streams.pipeline_models import NAME_FORM, NAME_PATTERN, read_models, read_serve
from streams.pipeline_records import check_paths, identity_uses, read_time_unit, read_topic, read_where
from streams.pipeline_retraining import read_archive
from streams.pipeline_selecting import read_select
from streams.pipeline_state import read_state
from streams.pipeline_task import read_task
from streams.toml_table import Table, in_order_of, mistake_line, one_line, shown

TABLES = (
    "pipeline", "kafka", "events", "labels", "task", "features", "entities", "models", "drift", "archive",
    "select", "serve", "run",
)  # fmt: skip
DEFAULT_PARTITIONS = 4
MOST_PARTITIONS = 4_096
MOST_GATHERED_US = 10 * SECOND_US  # learn gathers three times as long, and a request may take a minute
UNLABELLED_KEEP_US = HOUR_US  # how long an id is known, to drop its second event; each takes some 40 bytes

_LATER_PIPELINE = {"shards": "sharding", "sample": "sampling"}
_LATER_EVENTS = {"sample": "sampling", "decoder": "your own decoder", "format": "another format than JSON"}
_READ_AS = {"number": "a number", "category": "text", "boolean": "a boolean"}
_KINDS: tuple[FieldKind, ...] = get_args(FieldKind)


Judge = Callable[[Pipeline, Sequence[str]], list[str]]
"""Finds more mistakes in what was read, given those that are known: then the pipeline is not whole."""


def read_pipeline(path: Path, environment: Mapping[str, str] | None = None, judge: Judge | None = None) -> Pipeline:
    """Read and check a pipeline file.

    Args:
        path: of the file.
        environment: gives the `${ENV}` values; the process's own if None.
        judge: finds more, whose lines come among the others.

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
    if judge is not None:
        mistakes += judge(pipeline, mistakes)
    if mistakes:
        raise PipelineError([one_line(mistake) for mistake in in_order_of(values, mistakes)])
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
        about_labels = Table("labels", tables["labels"], mistakes)
        labels = read_labels(about_labels, name, task, is_keyed="key" in tables["events"])
    else:
        labels = no_labels(events, keep_us)
    key: FieldPath | None = () if "key" in tables["events"] and events.key is None else events.key
    features, has_raw_features = FeatureReader(events.fields, key, mistakes, task).read(tables["features"])
    mistakes += refuse_label_features(features, task, labels)
    bounds = read_bounds(tables["entities"], events, features, mistakes)
    if not features and not (events.fields and has_raw_features) and not mistakes:
        mistakes.append("[features]: nothing to learn from; allowed: [events.fields], or features over the events' key")
    models = read_models(tables["models"], mistakes, task)
    if not models and isinstance(values.get("models", {}), dict):
        mistakes.append('[models]: no model; allowed: at least one, such as [models.logistic] with kind = "linear"')
    drift = read_drift(tables["drift"], models, mistakes, has_labels=labels.is_declared)
    archive = read_archive(tables["archive"] if "archive" in values else None, models, mistakes)
    serve = read_serve(tables["serve"], models, environment, mistakes, is_declared="serve" in values)
    select = read_select(tables["select"], task, mistakes) if "select" in values else None
    if select is not None and len(models) == 1:
        mistakes.append("[select]: there is nobody to choose from; allowed: at least two models")
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
        archive=archive,
        select=select,
    )


def _tables(values: dict[str, Any], mistakes: list[str]) -> dict[str, dict[str, Any]]:
    """Split the file into its tables; a missing one is empty, and complains by its required keys."""
    for name, table in values.items():
        if name not in TABLES:
            mistakes.append(mistake_line(f"[{name}]", "unknown table", ", ".join(TABLES), name, TABLES))
        elif not isinstance(table, dict):
            mistakes.append(f"[{name}]: {shown(table)} is not right; allowed: a table")
    return {name: table if isinstance(table := values.get(name), dict) else {} for name in TABLES}


def _events(table: Table, pipeline: str) -> Events:
    events = Events(
        topic=read_topic(table, pipeline),
        id=table.path("id"),
        time=table.path("time"),
        time_unit=read_time_unit(table),
        key=table.path("key"),
        where=read_where(table),
        fields=_fields(Table("events.fields", table.table("fields"), table.mistakes)),
    )
    table.finish(_LATER_EVENTS)
    uses = identity_uses(events)
    uses += [(f"fields.{field.name}", field.path, _READ_AS[field.kind]) for field in events.fields]
    check_paths(table, uses)
    return events


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
    if wait_us % MS_US or wait_us > MOST_GATHERED_US:
        table.mistake("poll_interval", f"{shown(table.values['poll_interval'])} is not right", "0ms to 10s")
    return wait_us // MS_US
