"""The `[task]` table: what the label is, and so what models answer; and what a missing label then stands for."""

from __future__ import annotations

from typing import get_args

from streams.pipeline import LARGEST_LABEL, Task, TaskKind
from streams.toml_table import Table, shown

MOST_CLASSES = 100  # every pending event keeps a probability of each
_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_HIGHEST_ALERT = 0.5  # of half of all events or more an alert says nothing
_CLASSES_FORM = f"2 to {MOST_CLASSES} different texts, or as many different integers"


def read_task(table: Table) -> Task:
    """Read `[task]`; without it labels are yes or no."""
    kind = table.choice("kind", _KINDS, "binary")
    classes: tuple[str, ...] = ()
    if "kind" in table.wrong:
        table.known += ["classes", "threshold", "alert"]  # nobody can say which of them belong to it
        table.finish()
        return Task()
    if kind == "multiclass":
        classes = _classes(table)
    elif table.get("classes") is not None:
        table.mistake("classes", f"a {kind} label has none", 'kind = "multiclass" with classes')
    threshold, alert = _alerting(table, kind)
    table.finish()
    return Task(kind, classes, threshold, alert)


def _alerting(table: Table, kind: TaskKind) -> tuple[float, float | None]:
    """Read from which score on an anomaly is reported: a fixed one, or the one that so large a share reaches."""
    threshold = table.number("threshold", Task().threshold, 0.0, 1.0)
    alert = table.number("alert", 0.0, 0.0, _HIGHEST_ALERT, is_open=True)
    declared = [key for key in ("threshold", "alert") if key in table.values]
    if kind != "anomaly":
        for key in declared:
            table.mistake(key, f"a {kind} task has none", 'kind = "anomaly" with it')
        return Task().threshold, None
    if len(declared) > 1:
        table.mistake("alert", "there is a threshold too", "one of the two")
    return threshold, alert if "alert" in declared else None


def _classes(table: Table) -> tuple[str, ...]:
    found = table.get("classes", required=True, allowed=_CLASSES_FORM)
    if found is None:
        return ()
    problem = _problem(found)
    if problem:
        table.mistake("classes", problem, _CLASSES_FORM)
        return ()
    return tuple(str(value) for value in found)


def _problem(found: object) -> str:
    """Say what is wrong with a list of classes, nothing if it is right."""
    if not isinstance(found, list):
        return f"{shown(found)} is not right"
    if not 2 <= len(found) <= MOST_CLASSES:
        return f"{len(found)} found"
    wrong = next((value for value in found if type(value) is not type(found[0]) or type(value) not in (str, int)), None)
    if wrong is not None:
        return f"{shown(wrong)} beside {shown(found[0])} is not right"
    twice = next((value for place, value in enumerate(found) if value in found[:place]), None)
    if twice is not None:
        return f"{shown(twice)} is there twice"
    reserved = next((value for value in found if value in ("", "drop")), None)
    return "" if reserved is None else f"{shown(reserved)} is no name for a class"


def read_missing(table: Table, task: Task) -> float | None:
    """Read what a label that never came counts as: nothing (None), or a label of the task, by its number."""
    value = table.get("missing")
    if value is None or value == "drop":
        return None
    found = _as_label(value, task)
    if found is None:
        allowed = {"multiclass": "a class", "regression": "a number"}.get(task.kind, '"0", "1"')
        table.mistake("missing", f"{shown(value)} is not right", f'"drop", {allowed}')
    return found


def _as_label(value: object, task: Task) -> float | None:
    if isinstance(value, bool):
        return None
    if task.kind == "multiclass":
        return float(task.classes.index(str(value))) if str(value) in task.classes else None
    if task.is_yes_or_no:
        return float(str(value)) if value in ("0", "1", 0, 1) else None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if abs(number) <= LARGEST_LABEL else None
