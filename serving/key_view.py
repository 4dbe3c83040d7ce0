"""What `millrace key` prints: the features and the prediction that the online store holds for a key."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from serving.redis_door import RedisDoor, Stored
from serving.table import console, duration, grid
from streams.durations import SECOND_US
from streams.errors import MillraceError, PipelineError
from streams.features import columns
from streams.pipeline import Pipeline

DAY_S = 86_400.0


def show_key(pipeline: Pipeline, key: str) -> None:
    """Print what is stored for a key.

    Raises:
        PipelineError: the pipeline has no online store.
        StoreError: the store cannot be asked.
        MillraceError: nothing is stored for the key.
    """
    stored = read_key(pipeline, key)
    if stored is None:
        kept = age(pipeline.serve.redis_ttl_us / SECOND_US)
        raise MillraceError(f"nothing is stored for the key {key!r}: no event of it was answered in the last {kept}")
    out = console()
    out.print(Text(f"{pipeline.name}, key {key}:", style="bold"))
    out.print(_prediction(pipeline, stored))
    out.print(_features(pipeline, stored))


def read_key(pipeline: Pipeline, key: str) -> Stored | None:
    """Ask the online store for a key; None if it holds nothing.

    Raises:
        PipelineError: the pipeline has no online store.
        StoreError: the store cannot be asked.
    """
    if pipeline.serve.redis is None:
        hint = 'declare one, such as redis = "redis://127.0.0.1:6379/0"'
        raise PipelineError([f"[serve] redis is missing: the pipeline has no online store; {hint}"])
    door = RedisDoor(pipeline.serve.redis)
    try:
        return door.read(pipeline.name, key)
    finally:
        door.close()


def _prediction(pipeline: Pipeline, stored: Stored) -> RenderableType:
    answer: dict[str, Any] = msgspec.json.decode(stored.fields["prediction"])
    event_s = int(stored.fields["time_us"]) / SECOND_US
    rows = [
        ("event", str(answer["id"])),
        ("time", f"{_moment(event_s)}, {age(time.time() - event_s)} ago"),
        ("prediction", _said(answer)),
        ("by", f"{answer['model']} {answer['version']}"),
        ("name", f"generation {answer['generation']}, partition {answer['partition']}, number {answer['number']}"),
        ("kept", _kept(pipeline, stored)),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))  # ids and classes may hold what rich takes for markup
    return table


def _said(answer: dict[str, Any]) -> str:
    """Say a prediction with its probability, where it has one."""
    said, shares = str(answer["prediction"]), answer.get("probabilities", {})
    probability = answer.get("probability", shares.get(said))
    return said if probability is None else f"{said} with probability {probability}"


def _kept(pipeline: Pipeline, stored: Stored) -> str:
    if stored.lives_s is None:
        return "for ever"
    written_s = pipeline.serve.redis_ttl_us / SECOND_US - stored.lives_s
    since = f"written {age(written_s)} ago, " if written_s >= 0 else ""  # below 0: it was written under a longer time
    return f"{since}for another {age(stored.lives_s)}"


def _features(pipeline: Pipeline, stored: Stored) -> RenderableType:
    is_category = {column.name: column.is_category for column in columns(pipeline)}
    table = grid("feature", ">value", "")
    for name, value in msgspec.json.decode(stored.fields["features"]).items():
        if value is None:
            table.add_row(Text(name), "-", "missing")
        elif is_category.get(name, False):
            table.add_row(Text(name), f"{value:.0f}", "category, as a hash")
        else:
            table.add_row(Text(name), f"{value:.10g}", "" if name in is_category else "not in the file any more")
    return table


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def age(seconds: float) -> str:
    """Write how long something has been, in days from two days on.

    >>> age(0.25), age(3_000), age(604_800)
    ('250 ms', '50 min', '7 days')
    """
    hours = seconds / 3_600
    if hours < 2:
        return duration(max(0.0, seconds))
    return f"{seconds / DAY_S:.0f} days" if seconds >= 2 * DAY_S else f"{hours:.0f} h"
