"""The `retrain` table of a candidate, and `[archive]`: when models are trained anew, and from what."""

from __future__ import annotations

from typing import Any, get_args

from streams.durations import DAY_US, HOUR_US, SECOND_US
from streams.pipeline import Model, Task
from streams.retraining import Archive, Retrain, Start, Then
from streams.toml_table import Table

COOLDOWN_US = DAY_US  # unless the file says otherwise; no longer than `every`, which it would override unseen
LEAST_EXAMPLES = 100  # fewer say nothing about a split into three
MOST_EXAMPLES = 1_000_000_000
MOST_PROCESSES = 64
MOST_TRIALS = 1_000
LEARNS_ON = "torch:mlp"  # the only network that has a compiled twin
_START: tuple[Start, ...] = get_args(Start)
_THEN: tuple[Then, ...] = get_args(Then)


def read_retrain(table: Table, kind: str, task: Task) -> Retrain:
    """Read when a candidate is trained; without the table, only when a person asks for it."""
    inner = Table(table.name, table.table("retrain"), table.mistakes, prefix="retrain.")
    usual = Retrain()
    every_us, window_us = _duration(inner, "every", HOUR_US), _duration(inner, "window", DAY_US)
    examples = inner.integer("examples", LEAST_EXAMPLES, LEAST_EXAMPLES, MOST_EXAMPLES)
    then = inner.choice("then", _THEN, usual.then)
    if then == "learn" and (kind != LEARNS_ON or task.kind not in ("binary", "multiclass", "regression")):
        inner.mistake("then", f'"learn" is for kind = "{LEARNS_ON}"', '"freeze"')
    nproc = inner.integer("nproc", usual.nproc, 1, MOST_PROCESSES)
    if kind.startswith("sklearn:"):
        for key in ("nproc", "search", "start"):
            if key in inner.values:
                inner.mistake(key, 'is for kind = "torch:…"')
    found = Retrain(
        every_us=every_us,
        examples=examples if "examples" in inner.values else None,
        on_drift=inner.boolean("on_drift", default=False),
        cooldown_us=inner.duration("cooldown", min(COOLDOWN_US, every_us or COOLDOWN_US), 0),
        window_us=window_us,
        budget_s=inner.duration("budget", round(usual.budget_s * SECOND_US), SECOND_US) / SECOND_US,
        nproc=nproc,
        search=inner.integer("search", usual.search, 0, MOST_TRIALS),
        start=inner.choice("start", _START, usual.start),
        then=then,
    )
    inner.finish()
    return found


def read_archive(values: dict[str, Any] | None, models: tuple[Model, ...], mistakes: list[str]) -> Archive | None:
    """Read how long settled examples are kept; they are if the table, or a model trained from them, is there."""
    table = Table("archive", values or {}, mistakes)
    keep_us = _duration(table, "keep", DAY_US)
    table.finish()
    for model in models:
        window_us = model.retrain.window_us if model.retrain else None
        if keep_us is not None and window_us is not None and window_us > keep_us:
            inner = Table(f"models.{model.name}", {}, mistakes, prefix="retrain.")
            inner.mistake("window", "is longer than [archive] keep", "at most as long")
    is_needed = values is not None or any(model.retrain for model in models)
    return Archive(keep_us) if is_needed else None


def _duration(table: Table, key: str, smallest_us: int) -> int | None:
    """Give a duration that may be left out."""
    return None if table.get(key) is None else table.duration(key, 0, smallest_us)
