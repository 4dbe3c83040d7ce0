"""A kind of model and its settings: what the tables of model_kinds.py and batch_kinds.py are made of."""

from __future__ import annotations

from typing import get_args

import msgspec

from streams.pipeline import TaskKind

Value = bool | int | float | str | tuple[int, ...]

LABELLED: tuple[TaskKind, ...] = ("binary", "multiclass", "regression")
MOST_ENTRIES = 8  # of a list
EVERY_TASK: tuple[TaskKind, ...] = get_args(TaskKind)
MOST_WEIGHTS = 1 << 24  # of categories in one model: 128 MiB, and a version may have twice that


class Setting(msgspec.Struct, frozen=True):
    """One key of `[models.<name>]`.

    `low` and `high` bound numbers, both included, but a `low` that `is_open` itself; `options` are all the words.
    `only` says of which tasks, or of which words of settings before it, the setting is: of any if nothing is said. A
    word in `usual` brings a default of its own. A setting that is `per_class` counts rows of a table with a column for
    each class, so that of many classes there are fewer.
    """

    default: Value
    low: float = 0.0
    high: float = 1e3
    is_open: bool = False
    options: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    usual: dict[str, Value] = {}
    per_class: bool = False


class Kind(msgspec.Struct, frozen=True):
    """A kind of model: the tasks it can do, its settings by name, and whether several can become one (merging.py)."""

    tasks: tuple[TaskKind, ...] = LABELLED
    settings: dict[str, Setting] = {}
    can_merge: bool = False
