"""What `millrace check` prints for a good file: the topics, stages, features and models it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from serving.table import console, grid
from streams.durations import duration_text
from streams.pipeline import Pipeline
from streams.pipeline_description import describe
from streams.topic_specs import FOREVER_MS, TopicSpec


def show(pipeline: Pipeline, file: Path) -> None:
    """Print a pipeline in five tables."""
    out = console()
    found = describe(pipeline)
    out.print(Text(f"{file} is right. Pipeline {found.name}:", style="bold"))
    topics = grid("topic", ">partitions", "kept", "")
    for topic in found.topics:
        topics.add_row(topic.name, str(topic.partitions), _kept(topic), "yours" if topic.is_user_topic else "")
    stages = grid("stage", "reads", "writes", "what it does", wrap=("reads", "writes", "what it does"))
    for stage in found.stages:
        stages.add_row(stage.role, "\n".join(stage.reads), "\n".join(stage.writes), stage.purpose)
    declared = grid("table", "what holds in it", wrap=("what holds in it",))
    for one in found.declared:
        declared.add_row(Text(f"[{one.table}]"), Text(_settings(one.values) or "none: an event is settled as it comes"))
    features = grid("feature", "kind", ">columns", "meaning", wrap=("meaning",))
    for feature in found.features:
        kind = "category" if feature.is_category else "number"
        features.add_row(feature.name, kind, str(len(feature.columns)), feature.meaning)
    models = grid("candidate", "kind", "parameters", "", wrap=("parameters",))
    for model in found.models:
        params = _settings(model.params)
        models.add_row(model.name, model.kind, params, "champion: answers" if model.is_champion else "")
    for table in (topics, stages, declared, features, models):
        out.print(table)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_written(value)}" for name, value in values.items())


def _written(value: Any) -> str:
    """Write a value as the pipeline file has it."""
    if isinstance(value, Mapping):
        return f"{{ {_settings(value)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _kept(topic: TopicSpec) -> str:
    if topic.is_compacted:
        return "newest of each key"
    return "for ever" if topic.retention_ms == FOREVER_MS else duration_text(topic.retention_ms * 1_000)
