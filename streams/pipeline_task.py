"""The `[task]` table: what the label is, and so what models answer; and what a missing label then stands for."""

from __future__ import annotations

import math
from typing import get_args

from streams.pipeline import Task, TaskKind
from streams.toml_table import Table, shown

MOST_CLASSES = 100  # every pending event keeps a probability of each
_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_LATER_KINDS = ("anomaly", "clustering")
_CLASSES_FORM = f"2 to {MOST_CLASSES} different texts, or as many different integers"


def read_task(table: Table) -> Task:
    """Read `[task]`; without it labels are yes or no."""
    if table.values.get("kind") in _LATER_KINDS:
        table.not_yet("kind", shown(table.get("kind")), ", ".join(_KINDS))
        return Task()
    kind = table.choice("kind", _KINDS, "binary")
    classes: tuple[str, ...] = ()
    if kind == "multiclass":
        classes = _classes(table)
    elif table.get("classes") is not None:
        table.mistake("classes", f"a {kind} label has none", 'kind = "multiclass" with classes')
    table.finish()
    return Task(kind, classes)


def _classes(table: Table) -> tuple[str, ...]:
    found = table.get("classes", required=True, allowed=_CLASSES_FORM)
    is_list = isinstance(found, list) and 2 <= len(found) <= MOST_CLASSES
    kinds = {type(value) for value in found} if is_list else set()
    if not is_list or kinds not in ({str}, {int}) or len(set(found)) < len(found):
        if found is not None:
            table.mistake("classes", f"{shown(found)} is not right", _CLASSES_FORM)
        return ()
    return tuple(str(value) for value in found)


def read_missing(table: Table, task: Task) -> float | None:
    """Read what a label that never came counts as: nothing (None), or a label of the task, by its number."""
    value = table.get("missing")
    if value is None or value == "drop":
        return None
    found = _as_label(value, task)
    if found is None:
        allowed = {"binary": '"0", "1"', "multiclass": "a class", "regression": "a number"}[task.kind]
        table.mistake("missing", f"{shown(value)} is not right", f'"drop", {allowed}')
    return found


def _as_label(value: object, task: Task) -> float | None:
    if isinstance(value, bool):
        return None
    if task.kind == "multiclass":
        return float(task.classes.index(str(value))) if str(value) in task.classes else None
    if task.kind == "binary":
        return float(str(value)) if value in ("0", "1", 0, 1) else None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
