"""The kinds of models that Millrace has itself: which tasks each can do, and what may be set in its table.

One entry a kind, the only place that knows its settings: the pipeline file is read by it, and so are the settings of a
learner that is made from a version or in a program. What River's models and users' own take, their constructors know.
"""

from __future__ import annotations

import msgspec

from streams.pipeline import Task, TaskKind
from streams.toml_table import Table

Value = bool | int | float | str | tuple[int, ...]

LABELLED: tuple[TaskKind, ...] = ("binary", "multiclass", "regression")
MOST_ENTRIES = 8  # of a list
MOST_WEIGHTS = 1 << 24  # of categories in one model: 128 MiB, and a version may have twice that


class Setting(msgspec.Struct, frozen=True):
    """One key of `[models.<name>]`.

    The default's type is the key's: a whole number, a number, a word, true or false, a list of whole numbers. `low` and
    `high` bound numbers, both included, but a `low` that `is_open` itself; `options` are all the words. `beside` has
    other defaults, by the word that another setting of the kind then has.
    """

    default: Value
    low: float = 0.0
    high: float = 1e3
    is_open: bool = False
    options: tuple[str, ...] = ()
    beside: dict[str, Value] = {}


class Kind(msgspec.Struct, frozen=True):
    """A kind of model: the tasks it can do, and its settings by name."""

    tasks: tuple[TaskKind, ...] = LABELLED
    settings: dict[str, Setting] = {}


_BITS = Setting(18, 1, 28)  # 262,144 hashed category weights: 2 MiB
_RATE = Setting(0.01)

KMEANS = {
    "n_clusters": Setting(5, 1, 1024),
    "halflife": Setting(0.5, high=1.0, is_open=True),
    "mu": Setting(0.0, -1e6, 1e6),
    "sigma": Setting(1.0, high=1e6),
    "p": Setting(2.0, 1.0, 10.0),
    "seed": Setting(0, 0, 2**32 - 1),
}

KINDS: dict[str, Kind] = {
    "linear": Kind(
        settings={"lr": Setting(0.005, is_open=True), "intercept_lr": _RATE, "l2": Setting(0.0), "bits": _BITS}
    ),
    "mlp": Kind(
        settings={
            "hidden": Setting((64, 32), 1, 1024),
            "activation": Setting("relu", options=("relu", "tanh")),
            "optimizer": Setting("sgd", options=("sgd", "adam")),
            "lr": Setting(0.05, high=1.0, is_open=True, beside={"adam": 0.003}),
            "clip": Setting(5.0, is_open=True),
            "beta_1": Setting(0.9, high=0.9999),
            "beta_2": Setting(0.999, high=0.999999),
            "eps": Setting(1e-8, low=1e-12, high=1.0),
            "bits": Setting(12, 1, 20),  # rows of the first layer's width: 2 MiB of 64 units
            "seed": Setting(0, 0, 2**32 - 1),
        }
    ),
    "naive_bayes": Kind(
        ("binary", "multiclass"), {"smoothing": Setting(1.0, is_open=True), "bits": Setting(16, 1, 24)}
    ),
    "prior": Kind(),
    "last": Kind(),
}
KIND_NAMES = ", ".join([*KINDS, "river:<module>.<Class>"])


def read_settings(table: Table, kind: str, task: Task) -> dict[str, Value]:
    """Give all settings of a kind, those of the file and the defaults of the others; the table is not finished."""
    what = KINDS[kind]
    if task.kind not in what.tasks:
        text = f'"{kind}" is for a label that is {" or ".join(what.tasks)}, this one is {task.kind}'
        table.mistake("kind", text, ", ".join(name for name, one in KINDS.items() if task.kind in one.tasks))
    is_wide = "hidden" in what.settings  # its table has a column for each unit of a layer, whatever the classes
    settings = what.settings if is_wide else _fitted(what.settings, task)
    found = {name: _read(table, name, setting) for name, setting in settings.items()}
    found |= _beside(table, what, found)
    _mistakes_together(found, table)
    return found


def _beside(table: Table, what: Kind, found: dict[str, Value]) -> dict[str, Value]:
    """Give the defaults that other settings' words ask for."""
    absent = [(name, setting) for name, setting in what.settings.items() if name not in table.values]
    return {
        name: default for name, setting in absent for word, default in setting.beside.items() if word in found.values()
    }


def _mistakes_together(found: dict[str, Value], table: Table) -> None:
    """Note settings that are right alone, but not with each other."""
    if _number(found, "lr") * _number(found, "l2") >= 1.0:
        table.mistake("l2", "lr * l2 is 1 or more: weights would swing instead of shrink", "less than 1 / lr")
    hidden, rows = found.get("hidden"), 2 ** int(_number(found, "bits"))
    if isinstance(hidden, tuple) and rows * hidden[0] > MOST_WEIGHTS:
        wrong = f"{rows:,} categories for {hidden[0]} units are more than {MOST_WEIGHTS:,} weights"
        table.mistake("bits", wrong, f"up to {(MOST_WEIGHTS // hidden[0]).bit_length() - 1}")


def _number(found: dict[str, Value], name: str) -> float:
    value = found.get(name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _read(table: Table, name: str, setting: Setting) -> Value:
    default = setting.default
    if isinstance(default, bool):
        return table.boolean(name, default=default)
    if isinstance(default, int):
        return table.integer(name, default, int(setting.low), int(setting.high))
    if isinstance(default, str):
        return table.choice(name, setting.options, default)
    if isinstance(default, tuple):
        return table.integers(name, default, int(setting.low), int(setting.high), MOST_ENTRIES)
    return table.number(name, default, setting.low, setting.high, is_open=setting.is_open)


def _fitted(settings: dict[str, Setting], task: Task) -> dict[str, Setting]:
    """A table of hashed categories has a column for each class, so that of many classes has fewer rows."""
    bits = settings.get("bits")
    if bits is None or task.outputs == 1:
        return settings
    most = (MOST_WEIGHTS // task.outputs).bit_length() - 1
    default = int(_number({"bits": bits.default}, "bits"))
    usual = default if task.outputs < 8 else default - 2
    return settings | {"bits": msgspec.structs.replace(bits, default=min(usual, most), high=min(int(bits.high), most))}
