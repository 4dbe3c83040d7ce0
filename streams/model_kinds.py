"""The kinds of models that Millrace has itself: which tasks each can do, and what may be set in its table.

One entry a kind, the only place that knows its settings: the pipeline file is read by it, and so are the settings of a
learner that is made from a version or in a program. What River's models and users' own take, their constructors know.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from streams.pipeline import Task, TaskKind
from streams.toml_table import Table

Value = bool | int | float | str

LABELLED: tuple[TaskKind, ...] = ("binary", "multiclass", "regression")
EVERY_TASK: tuple[TaskKind, ...] = get_args(TaskKind)
MOST_WEIGHTS = 1 << 24  # of categories in one model: 128 MiB, and a version may have twice that


class Setting(msgspec.Struct, frozen=True):
    """One key of `[models.<name>]`. The default's type is the key's: a whole number, a number, a word, true or false.

    `low` and `high` bound numbers, both included, but a `low` that `is_open` itself; `options` are all the words.
    """

    default: Value
    low: float = 0.0
    high: float = 1e3
    is_open: bool = False
    options: tuple[str, ...] = ()


class Kind(msgspec.Struct, frozen=True):
    """A kind of model: the tasks it can do, and its settings by name."""

    tasks: tuple[TaskKind, ...] = LABELLED
    settings: dict[str, Setting] = {}


_BITS = Setting(18, 1, 28)  # 262,144 hashed category weights: 2 MiB
_RATE = Setting(0.01)

KINDS: dict[str, Kind] = {
    "linear": Kind(
        settings={"lr": Setting(0.005, is_open=True), "intercept_lr": _RATE, "l2": Setting(0.0), "bits": _BITS}
    ),
    "prior": Kind(EVERY_TASK),
    "last": Kind((*LABELLED, "anomaly")),
}
KIND_NAMES = ", ".join([*KINDS, "river:<module>.<Class>"])


def read_settings(table: Table, kind: str, task: Task) -> dict[str, Value]:
    """Give all settings of a kind, those of the file and the defaults of the others; the table is not finished."""
    what = KINDS[kind]
    if task.kind not in what.tasks:
        text = f'"{kind}" is for a task that is {" or ".join(what.tasks)}, this one is {task.kind}'
        table.mistake("kind", text, ", ".join(name for name, one in KINDS.items() if task.kind in one.tasks))
    found = {name: _read(table, name, _fitted(name, setting, task)) for name, setting in what.settings.items()}
    if float(found.get("lr", 0.0)) * float(found.get("l2", 0.0)) >= 1.0:
        table.mistake("l2", "lr * l2 is 1 or more: weights would swing instead of shrink", "less than 1 / lr")
    return found


def _read(table: Table, name: str, setting: Setting) -> Value:
    default = setting.default
    if isinstance(default, bool):
        return table.boolean(name, default=default)
    if isinstance(default, int):
        return table.integer(name, default, int(setting.low), int(setting.high))
    if isinstance(default, str):
        return table.choice(name, setting.options, default)
    return table.number(name, default, setting.low, setting.high, is_open=setting.is_open)


def _fitted(name: str, setting: Setting, task: Task) -> Setting:
    """A table of hashed categories has a column for each class, so that of many classes has fewer rows."""
    if name != "bits" or not task.classes:
        return setting
    most = (MOST_WEIGHTS // task.outputs).bit_length() - 1
    usual = int(setting.default) if task.outputs < 8 else int(setting.default) - 2
    return msgspec.structs.replace(setting, default=min(usual, most), high=min(int(setting.high), most))
