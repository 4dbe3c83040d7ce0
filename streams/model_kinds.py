"""The kinds of models that Millrace has itself: which tasks each can do, and what may be set in its table.

One entry a kind, the only place that knows its settings: the pipeline file is read by it, and so are the settings of a
learner that is made from a version or in a program. What River's models and users' own take, their constructors know.
"""

from __future__ import annotations

import re

import msgspec

from streams.batch_kinds import BATCH_KINDS
from streams.model_setting import EVERY_TASK, LABELLED, MOST_ENTRIES, MOST_WEIGHTS, Kind, Setting, Value
from streams.pipeline import Task
from streams.toml_table import Table

_BITS = Setting(18, 1, 28, per_class=True)  # 262,144 hashed category weights: 2 MiB
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
    "mlp": Kind(
        settings={
            "hidden": Setting((64, 32), 1, 1024),
            "activation": Setting("relu", options=("relu", "tanh")),
            "optimizer": Setting("sgd", options=("sgd", "adam")),
            "lr": Setting(0.05, high=1.0, is_open=True, usual={"adam": 0.003}),
            "clip": Setting(5.0, is_open=True),
            "beta_1": Setting(0.9, high=0.9999, only=("adam",)),
            "beta_2": Setting(0.999, high=0.999999, only=("adam",)),
            "eps": Setting(1e-8, low=1e-12, high=1.0, only=("adam",)),
            "bits": Setting(12, 1, 20),  # rows of the first layer's width: 2 MiB of 64 units
            "seed": Setting(0, 0, 2**32 - 1),
        }
    ),
    "naive_bayes": Kind(
        ("binary", "multiclass"),
        {"smoothing": Setting(1.0, is_open=True), "bits": Setting(16, 1, 24, per_class=True)},
    ),
    "hoeffding_tree": Kind(
        tasks=("binary", "multiclass"),
        settings={
            "grace_period": Setting(200, 1, 10**6),
            "max_depth": Setting(980, 0, 980),  # as deep as River's own recursion goes
            "split_criterion": Setting("info_gain", options=("info_gain", "gini", "hellinger")),
            "delta": Setting(1e-7, 0.0, 1.0, is_open=True),
            "tau": Setting(0.05),
            "leaf_prediction": Setting("nba", options=("mc", "nb", "nba")),
            "nb_threshold": Setting(0, 0, 10**6),
            "n_splits": Setting(10, 1, 1000),
            "binary_split": Setting(default=False),
            "min_branch_fraction": Setting(0.01, 0.0, 1.0),
            "max_share_to_split": Setting(0.99, 0.0, 1.0),
            "max_size": Setting(100.0, 0.0, 1024.0, is_open=True),
        },
    ),
    "half_space_trees": Kind(
        ("anomaly",),
        {
            "n_trees": Setting(10, 1, 1000),
            "height": Setting(8, 1, 18),
            "window_size": Setting(250, 1, 10**6),
            "seed": Setting(0, 0, 2**31 - 1),
        },
    ),
    "kmeans": Kind(
        ("clustering",),
        {
            "n_clusters": Setting(5, 1, 1024),
            "halflife": Setting(0.5, high=1.0, is_open=True),
            "mu": Setting(0.0, -1e6, 1e6),
            "sigma": Setting(1.0, high=1e6),
            "p": Setting(2.0, 1.0, 10.0),
            "seed": Setting(0, 0, 2**32 - 1),
        },
    ),
    "prior": Kind(EVERY_TASK, can_merge=True),
    "last": Kind((*LABELLED, "anomaly")),
}
ONLINE_KINDS = tuple(KINDS)  # compiled: they learn from every label
KINDS |= BATCH_KINDS
KIND_NAMES = ", ".join([*KINDS, "river:<module>.<Class>", "sklearn:<module>.<Class>", "<your.module>:<Class>"])
RESERVED_WORDS = ("river", "torch", "sklearn", "anomaly", "clustering")  # no module of a user's own
_OWN = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def is_own(kind: str) -> bool:
    """Say whether a kind is a user's own learner, `my_package.my_module:MyLearner`.

    >>> is_own("shop.models:Ridge"), is_own("river:tree.HoeffdingTreeClassifier")
    (True, False)
    """
    found = _OWN.fullmatch(kind)
    return found is not None and found[1] not in RESERVED_WORDS


def is_batch(kind: str) -> bool:
    """Say whether models of a kind are trained in batches from the archive, and frozen in between.

    >>> is_batch("torch:mlp"), is_batch("sklearn:ensemble.HistGradientBoostingClassifier"), is_batch("mlp")
    (True, True, False)
    """
    return kind.partition(":")[0] in ("torch", "sklearn")


def read_settings(table: Table, kind: str, task: Task) -> dict[str, Value]:
    """Give all settings of a kind, those of the file and the defaults of the others; the table is not finished."""
    what = KINDS[kind]
    if task.kind not in what.tasks:
        text = f'"{kind}" is for a task that is {" or ".join(what.tasks)}, this one is {task.kind}'
        table.mistake("kind", text, ", ".join(name for name, one in KINDS.items() if task.kind in one.tasks))
    words, found = [str(task.kind)], dict[str, Value]()
    choices = {name for name, setting in what.settings.items() if setting.options}
    for name, setting in what.settings.items():
        if setting.only and not set(setting.only) & set(words):
            if name in table.values:
                table.known.append(name)
                if not table.wrong & choices:  # else nobody can say whether it belongs to the choice
                    table.mistake(name, f"is for {' or '.join(setting.only)}, not for {' and '.join(words)}")
            continue
        found[name] = _read(table, name, _fitted(setting, task, words))
        words += [str(found[name])] if setting.options else []
    _judge_penalties(table, found)
    _judge_width(table, found)
    return found


def _judge_penalties(table: Table, found: dict[str, Value]) -> None:
    """Refuse penalties that would make weights swing, or that nobody has defined together."""
    optimizer, (lr, l1, l2) = found.get("optimizer", "sgd"), (_number(found, name) for name in ("lr", "l1", "l2"))
    if optimizer == "sgd" and lr * l2 >= 1.0:
        table.mistake("l2", "lr * l2 is 1 or more: weights would swing instead of shrink", "less than 1 / lr")
    if optimizer != "ftrl" and l1 > 0.0 and l2 > 0.0:
        table.mistake("l1", "cannot be used together with l2", 'one of the two, or optimizer = "ftrl"')


def _judge_width(table: Table, found: dict[str, Value]) -> None:
    """Refuse more weights of categories than one model may have."""
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


def _fitted(setting: Setting, task: Task, words: list[str]) -> Setting:
    """Take the default that a chosen word brings, and fewer rows where there are many classes."""
    for word in words:
        setting = msgspec.structs.replace(setting, default=setting.usual.get(word, setting.default))
    if not setting.per_class or not task.classes:
        return setting
    kept = task.outputs * max(_KEPT.get(word, 1) for word in words)
    most, default = (MOST_WEIGHTS // kept).bit_length() - 1, int(_number({"rows": setting.default}, "rows"))
    usual = default if task.outputs < 8 else default - 2
    return msgspec.structs.replace(setting, default=min(usual, most), high=min(int(setting.high), most))
