"""The kinds of models that Millrace has itself: which tasks each can do, and what may be set in its table.

One entry a kind, the only place that knows its settings: the pipeline file is read by it, and so are the settings of a
learner that is made from a version or in a program. What River's models and users' own take, their constructors know.
"""

from __future__ import annotations

import msgspec

from streams.pipeline import Task, TaskKind
from streams.toml_table import Table

Value = bool | int | float | str

LABELLED: tuple[TaskKind, ...] = ("binary", "multiclass", "regression")
MOST_WEIGHTS = 1 << 24  # of categories in one model: 128 MiB, and a version may have twice that


class Setting(msgspec.Struct, frozen=True):
    """One key of `[models.<name>]`. The default's type is the key's: a whole number, a number, a word, true or false.

    `low` and `high` bound numbers, both included, but a `low` that `is_open` itself; `options` are all the words.
    `only` says of which tasks, or of which words of settings before it, the setting is: of any if nothing is said. A
    word in `usual` brings a default of its own.
    """

    default: Value
    low: float = 0.0
    high: float = 1e3
    is_open: bool = False
    options: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    usual: dict[str, Value] = {}


class Kind(msgspec.Struct, frozen=True):
    """A kind of model: the tasks it can do, its settings by name, and whether several can become one (merging.py)."""

    tasks: tuple[TaskKind, ...] = LABELLED
    settings: dict[str, Setting] = {}
    can_merge: bool = False


_BITS = Setting(18, 1, 28)  # 262,144 hashed category weights: 2 MiB
_RATE = Setting(0.01)
_STEPS = ("sgd", "adagrad", "adam")  # optimisers with a step size; of ftrl it follows from alpha and beta
_KEPT = {"adagrad": 2, "adam": 3, "ftrl": 3}  # numbers that an optimiser keeps for each weight, with the weight

_LINEAR = {
    "optimizer": Setting("sgd", options=(*_STEPS, "ftrl")),
    "lr": Setting(0.005, is_open=True, only=_STEPS, usual={"adagrad": 0.1, "adam": 0.1}),
    "eps": Setting(1e-8, 1e-12, 1.0, only=("adagrad", "adam")),
    "beta_1": Setting(0.9, high=0.9999, only=("adam",)),
    "beta_2": Setting(0.999, high=0.999999, only=("adam",)),
    "alpha": Setting(0.05, is_open=True, only=("ftrl",)),
    "beta": Setting(1.0, 1e-6, only=("ftrl",)),
    "intercept_lr": _RATE,
    "l1": Setting(0.0, only=("binary", "regression", "ftrl")),
    "l2": Setting(0.0, usual={"ftrl": 1.0}),
    "loss": Setting("squared", options=("squared", "huber", "quantile"), only=("regression",)),
    "epsilon": Setting(0.1, high=1e12, is_open=True, only=("huber",)),
    "quantile": Setting(0.5, 0.001, 0.999, only=("quantile",)),
    "weight_pos": Setting(1.0, only=("binary",)),
    "weight_neg": Setting(1.0, only=("binary",)),
    "bits": _BITS,
}

KINDS: dict[str, Kind] = {
    "linear": Kind(settings=_LINEAR, can_merge=True),
    "prior": Kind(can_merge=True),
    "last": Kind(),
}
KIND_NAMES = ", ".join([*KINDS, "river:<module>.<Class>"])


def read_settings(table: Table, kind: str, task: Task) -> dict[str, Value]:
    """Give all settings of a kind, those of the file and the defaults of the others; the table is not finished."""
    what = KINDS[kind]
    if task.kind not in what.tasks:
        text = f'"{kind}" is for a label that is {" or ".join(what.tasks)}, this one is {task.kind}'
        table.mistake("kind", text, ", ".join(name for name, one in KINDS.items() if task.kind in one.tasks))
    words, found = [str(task.kind)], dict[str, Value]()
    for name, setting in what.settings.items():
        if setting.only and not set(setting.only) & set(words):
            if name in table.values:
                table.mistake(name, f"is for {' or '.join(setting.only)}, not for {' and '.join(words)}")
                table.known.append(name)
            continue
        found[name] = _read(table, name, _fitted(name, setting, task, words))
        words += [str(found[name])] if setting.options else []
    _judge_penalties(table, found)
    return found


def _judge_penalties(table: Table, found: dict[str, Value]) -> None:
    """Refuse penalties that would make weights swing, or that nobody has defined together."""
    optimizer, l1, l2 = found.get("optimizer", "sgd"), float(found.get("l1", 0.0)), float(found.get("l2", 0.0))
    if optimizer == "sgd" and float(found.get("lr", 0.0)) * l2 >= 1.0:
        table.mistake("l2", "lr * l2 is 1 or more: weights would swing instead of shrink", "less than 1 / lr")
    if optimizer != "ftrl" and l1 > 0.0 and l2 > 0.0:
        table.mistake("l1", "cannot be used together with l2", 'one of the two, or optimizer = "ftrl"')


def _read(table: Table, name: str, setting: Setting) -> Value:
    default = setting.default
    if isinstance(default, bool):
        return table.boolean(name, default=default)
    if isinstance(default, int):
        return table.integer(name, default, int(setting.low), int(setting.high))
    if isinstance(default, str):
        return table.choice(name, setting.options, default)
    return table.number(name, default, setting.low, setting.high, is_open=setting.is_open)


def _fitted(name: str, setting: Setting, task: Task, words: list[str]) -> Setting:
    """Take the default that a chosen word brings.

    A table of hashed categories has a column for each class, so that of many classes has fewer rows.
    """
    for word in words:
        setting = msgspec.structs.replace(setting, default=setting.usual.get(word, setting.default))
    if name != "bits" or task.outputs == 1:
        return setting
    kept = task.outputs * max(_KEPT.get(word, 1) for word in words)
    most = (MOST_WEIGHTS // kept).bit_length() - 1
    usual = int(setting.default) if task.outputs < 8 else int(setting.default) - 2
    return msgspec.structs.replace(setting, default=min(usual, most), high=min(int(setting.high), most))
