"""What `[events]` and `[labels]` have in common: topic, time unit, `where`, and paths that do not contradict."""

from __future__ import annotations

import math
import re
from typing import get_args

from streams.pipeline import Condition, Events, FieldPath, Labels, TimeUnit
from streams.stages import stage_topic
from streams.toml_table import PATH_FORM, Table, flattened, shown
from streams.topic_specs import INNER_TOPICS

_TOPIC_PATTERN = "[A-Za-z0-9._-]{1,249}"
_TOPIC_FORM = "letters, digits, ., _ and -, at most 249"
_TIME_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)

Use = tuple[str, FieldPath, str]  # a key of the file, the path it names, what is read there


def identity_uses(part: Events | Labels) -> list[Use]:
    """Say what is read as an id, as a time and as a key."""
    time_as = "text" if part.time_unit == "rfc3339" else "a number"
    found = (("id", part.id, "text"), ("time", part.time, time_as), ("key", part.key, "text"))
    return [(key, path, read_as) for key, path, read_as in found if path]


def check_paths(table: Table, uses: list[Use]) -> None:
    """A record is decoded once, so a place in it is read as one type, and a value holds no other values."""
    for place, (key, path, read_as) in enumerate(uses):
        for other, other_path, other_as in uses[:place]:
            shared = min(len(path), len(other_path))
            if path == other_path and read_as != other_as:
                table.mistake(key, f"{shown('.'.join(path))} is read as {other_as} already, by {other}", other_as)
            elif path != other_path and path[:shared] == other_path[:shared]:
                both = f"{shown('.'.join(path))} and {shown('.'.join(other_path))} of {other}"
                table.mistake(key, f"{both} lie inside one another", "paths that end at a value")


def read_topic(table: Table, pipeline: str) -> str:
    """Read the topic of records, which must not be one of the pipeline's own."""
    topic = table.text("topic", pattern=_TOPIC_PATTERN, allowed=_TOPIC_FORM)
    is_between_stages = re.fullmatch(rf"{re.escape(pipeline)}\.{stage_topic(0)[:-1]}[0-9]+", topic)
    if is_between_stages or topic in {f"{pipeline}.{inner}" for inner in INNER_TOPICS}:
        table.mistake("topic", f"{shown(topic)} is one of the pipeline's own topics", "another name")
    return topic


def read_time_unit(table: Table) -> TimeUnit:
    """Read what `time` counts, RFC 3339 if nothing is said."""
    unit = table.choice("time_unit", _TIME_UNITS, "rfc3339")
    if "time_unit" in table.values and "time" not in table.values:
        table.mistake("time_unit", "there is no time to read", "declare time too")
    return unit


def read_where(table: Table) -> tuple[Condition, ...]:
    """Read which records are meant: values by path, nested or dotted."""
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
    check_paths(table, [(f"where.{'.'.join(condition.path)}", condition.path, "") for condition in conditions])
    return tuple(conditions)
