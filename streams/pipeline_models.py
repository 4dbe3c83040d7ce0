"""The `[models.*]` tables and `[serve]`: which candidates learn, which one answers, and who keeps its answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from streams.drift import RELEARN_ROWS, OnDrift
from streams.durations import DAY_US
from streams.model_kinds import KIND_NAMES, KINDS, is_batch, is_own, read_settings
from streams.pipeline import Model, Serve, Task
from streams.pipeline_http import read_http
from streams.pipeline_retraining import read_retrain
from streams.served import SERVED
from streams.toml_table import Table, shown
from streams.variables import expanded

NAME_PATTERN = "[a-z0-9_-]{1,100}"
NAME_FORM = "small letters, digits, _ and -, at most 100"
REDIS_FORM = "redis://, rediss:// or unix://, such as redis://127.0.0.1:6379/0"
REDIS_TTL_US = 7 * DAY_US
PLAIN_FORM = "numbers, texts, true, false, and lists and tables of them"

MOST_SHARDS = 64  # threads of one process
_RIVER = re.compile(r"river:[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*\.[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = (SERVED,)  # the stream that scores what was really answered
_SKLEARN = re.compile(r"sklearn:[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*\.[A-Za-z_][A-Za-z0-9_]*")
# Of any candidate, whoever wrote its class.
_OUR_KEYS = ("kind", "sample", "shards", "on_drift", "relearn_rows", "retrain")
_ON_DRIFT: tuple[OnDrift, ...] = get_args(OnDrift)
MOST_RELEARN_ROWS = 100_000  # in memory and in every snapshot, 8 bytes for each column
_LATER_SERVE = {
    "shadow": "shadow serving",
}


def read_models(values: dict[str, Any], mistakes: list[str], task: Task | None = None) -> tuple[Model, ...]:
    """Give the candidates in the file's order, for the task."""
    table = Table("models", values, mistakes)
    models = []
    for name, inner in values.items():
        if not re.fullmatch(NAME_PATTERN, name):
            table.mistake(name, "is no name for a model", NAME_FORM)
        elif name in _RESERVED:
            table.mistake(name, "is a name that Millrace uses itself", "another name")
        if isinstance(inner, dict):
            models.append(_model(Table(f"models.{name}", inner, mistakes), name, task or Task()))
        else:
            table.mistake(name, f"{shown(inner)} is not right", f"a table with kind = {KIND_NAMES}")
    return tuple(models)


def read_serve(
    values: dict[str, Any],
    models: tuple[Model, ...],
    environment: Mapping[str, str],
    mistakes: list[str],
    *,
    is_declared: bool = True,
) -> Serve:
    """Give the champion, the first model unless the file names one."""
    table = Table("serve", values, mistakes)
    names = tuple(model.name for model in models)
    champion = table.choice("champion", names, names[0]) if names else str(table.get("champion"))
    start = table.choice("start", ("earliest", "latest"), "earliest")
    redis = _redis(table, environment)
    ttl_us = table.duration("redis_ttl", REDIS_TTL_US)
    if "redis_ttl" in values and "redis" not in values:
        table.mistake("redis_ttl", "there is no store to forget anything", "declare redis too")
    http, token = read_http(table, environment)
    split, split_to = _split(table, names)
    is_explained = table.boolean("explain", default=False)
    table.finish(_LATER_SERVE)
    start_at: Literal["earliest", "latest"] = "latest" if start == "latest" else "earliest"
    return Serve(champion, start_at, redis, ttl_us, http, token, split, split_to, is_explained, is_declared)


def _split(table: Table, names: tuple[str, ...]) -> tuple[float, str | None]:
    """Read which share of the keys another candidate answers."""
    share = table.number("split", 0.0, 0.0, 1.0, is_open=True)
    other = table.choice("split_to", names, names[0]) if names else str(table.get("split_to"))
    if ("split" in table.values) != ("split_to" in table.values):
        has, lacks = ("split", "split_to") if "split" in table.values else ("split_to", "split")
        table.mistake(has, "says only half of it", f"declare {lacks} too")
    return share, other if "split_to" in table.values else None


def _redis(table: Table, environment: Mapping[str, str]) -> str | None:
    """Give the store's URL. It may hold a password, so that no message shows it."""
    value = table.get("redis")
    if value is None:
        return None
    mistakes_before = len(table.mistakes)
    url = expanded("[serve] redis", value, environment, table.mistakes) if isinstance(value, str) else ""
    if len(table.mistakes) == mistakes_before and not is_redis_url(url):
        table.mistake("redis", "is not right", REDIS_FORM)
    return url


def is_redis_url(text: str) -> bool:
    """Whether a text is the URL of a Redis: its scheme, a host with a sound port, a database by number."""
    try:
        parts = urlsplit(text)
        has_sound_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if parts.scheme == "unix":
        return len(parts.path) > 1
    is_number = parts.path in ("", "/") or parts.path[1:].isdecimal()
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and has_sound_port and is_number


def _model(table: Table, name: str, task: Task) -> Model:
    kind = table.text("kind", allowed=KIND_NAMES)
    if is_batch(kind):
        return _batch_model(table, name, kind, task)
    if "retrain" in table.values:
        table.known.append("retrain")
        table.mistake("retrain", f"models of kind {shown(kind)} learn from every label", "torch:… and sklearn:… kinds")
    sample = table.number("sample", 1.0, 0.0, 1.0, is_open=True)
    on_drift, relearn_rows = _on_drift(table)
    shards = _shards(table, kind, task)
    params: dict[str, Any] = {}
    if kind in KINDS:
        params = dict(read_settings(table, kind, task))
        table.finish()
    elif _RIVER.fullmatch(kind) or is_own(kind):
        params = _foreign_params(table)
    elif kind:
        _refuse(table, kind)
    return Model(name, kind, params, sample, shards, on_drift, relearn_rows)


def _batch_model(table: Table, name: str, kind: str, task: Task) -> Model:
    """Read a candidate that is trained from the archive."""
    retrain = read_retrain(table, kind, task)
    for key in ("sample", "shards", "on_drift", "relearn_rows"):
        if key in table.values:
            allowed = "retrain = { on_drift = true }" if key == "on_drift" else ""
            table.mistake(key, "is for models that learn from every label", allowed)
            table.known.append(key)
    params: dict[str, Any] = {}
    if kind in KINDS:
        params = dict(read_settings(table, kind, task))
        table.finish()
    elif _SKLEARN.fullmatch(kind):
        params = _foreign_params(table)
    else:
        _refuse(table, kind)
    return Model(name, kind, params, on_drift="retrain" if retrain.on_drift else "none", retrain=retrain)


def _on_drift(table: Table) -> tuple[OnDrift, int]:
    """Read what an alarm does to the model, and from how many examples it is then relearned."""
    on_drift = table.choice("on_drift", _ON_DRIFT, "none")
    rows = table.integer("relearn_rows", RELEARN_ROWS, 1, MOST_RELEARN_ROWS)
    if "relearn_rows" in table.values and on_drift != "relearn" and "on_drift" not in table.wrong:
        table.mistake("relearn_rows", "nothing is relearned", 'on_drift = "relearn" with it')
    return on_drift, rows


def _shards(table: Table, kind: str, task: Task) -> int:
    shards = table.integer("shards", 1, 1, MOST_SHARDS)
    merging = [name for name, one in KINDS.items() if one.can_merge]
    if shards > 1 and kind and kind not in merging:
        table.mistake("shards", f"models of kind {shown(kind)} cannot become one", f"1, or kind = {', '.join(merging)}")
    if shards > 1 and task.is_unsupervised:
        table.mistake("shards", f"models of a task that is {task.kind} learn alone", "1")
    if shards > 1 and table.values.get("optimizer", "sgd") != "sgd":
        table.mistake("shards", "only models that learn by sgd can become one", '1, or optimizer = "sgd"')
    if shards > 1 and table.values.get("on_drift") in ("reset", "relearn"):
        table.mistake("shards", "a model that begins anew on drift learns alone", '1, or on_drift = "none"')
    return shards


def _foreign_params(table: Table) -> dict[str, Any]:
    """Whatever is not Millrace's own goes to the class's constructor, which alone knows what it takes."""
    params: dict[str, Any] = {}
    for key, value in table.values.items():
        if key in _OUR_KEYS:
            continue
        if (wrong := _not_plain(value, key)) is None:
            params[key] = value
        else:
            table.mistake(wrong[0], f"{shown(wrong[1])} is not right", PLAIN_FORM)
    return params


def _not_plain(value: Any, path: str) -> tuple[str, Any] | None:
    """Find what a version's record could not carry, and where it lies."""
    if isinstance(value, dict):
        found = [_not_plain(inner, f"{path}.{key}") for key, inner in value.items()]
    elif isinstance(value, list):
        found = [_not_plain(inner, f"{path}.{place}") for place, inner in enumerate(value)]
    elif isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    elif isinstance(value, int):
        return None if abs(value) < 2**63 else (path, value)
    else:
        return None if isinstance(value, str) else (path, value)
    return next((one for one in found if one is not None), None)


def _refuse(table: Table, kind: str) -> None:
    word = kind.partition(":")[0]
    if word == "river":
        example = 'river:<module>.<Class>, such as "river:tree.HoeffdingTreeClassifier"'
        table.mistake("kind", f"{shown(kind)} names no class", example)
    elif word == "sklearn":
        example = 'sklearn:<module>.<Class>, such as "sklearn:ensemble.HistGradientBoostingClassifier"'
        table.mistake("kind", f"{shown(kind)} names no class", example)
    else:
        options = [known for known in KINDS if known.startswith("torch:") == kind.startswith("torch:")]
        found = kind if kind.startswith("torch:") else word
        table.mistake("kind", f"{shown(kind)} is unknown", KIND_NAMES, found, (*options, "river"))
