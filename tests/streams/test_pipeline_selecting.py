"""The `[select]` table: what it may say, what it says if it says nothing, and a line for each mistake."""

from __future__ import annotations

from typing import Any

import pytest

from streams.durations import DAY_US, HOUR_US
from streams.pipeline import Task, TaskKind
from streams.pipeline_selecting import read_select
from streams.selecting import METRICS, Select


def read(values: dict[str, Any], kind: TaskKind = "binary") -> tuple[Select, list[str]]:
    mistakes: list[str] = []
    return read_select(values, Task(kind), mistakes), mistakes


def test_without_a_setting_all_is_as_usual() -> None:
    assert read({}) == (Select("log_loss", 0.05, 0.0, DAY_US, DAY_US), [])


def test_every_setting_arrives() -> None:
    values = {
        "metric": "brier",
        "alpha": 0.01,
        "margin": 0.002,
        "span": "7d",
        "max_age": "2h",
        "max_predict_ms": 1,
        "max_model_mib": 256,
        "max_training_s": 600.5,
        "cooldown": "6h",
        "web": "localhost:6066",
    }
    gates, cooldown = (1.0, 256.0, 600.5), 6 * HOUR_US
    expected = Select("brier", 0.01, 0.002, 7 * DAY_US, 2 * HOUR_US, *gates, cooldown, web=("localhost", 6066))

    assert read(values) == (expected, [])


@pytest.mark.parametrize("kind", METRICS)
def test_the_metric_is_the_loss_of_the_task(kind: TaskKind) -> None:
    found, _ = read({"cap": 3.0} if kind in ("regression", "clustering") else {}, kind)

    assert found.metric == METRICS[kind][0]


@pytest.mark.parametrize(("metric", "kind"), [("mae", "regression"), ("inertia", "clustering")])
def test_a_loss_without_a_largest_value_needs_a_declared_one(metric: str, kind: TaskKind) -> None:
    found, mistakes = read({"cap": 120}, kind)

    assert (found.cap, found.largest_loss, mistakes) == (120.0, 120.0, [])
    assert read({}, kind)[1] == [f"[select] cap: missing; allowed: the largest {metric} that counts, such as 100.0"]


LARGE = "allowed: a number above 0 up to 1e+09"
DURATION = 'allowed: a whole number with ms, s, m, h or d, such as "36h"'
KEYS = "alpha, cap, cooldown, margin, max_age, max_model_mib, max_predict_ms, max_training_s, metric, span, web"
MISTAKES: list[tuple[TaskKind, dict[str, Any], str]] = [
    (
        "binary",
        {"metric": "logloss"},
        'metric: "logloss" is unknown; allowed: log_loss, brier; did you mean "log_loss"?',
    ),
    ("multiclass", {"metric": "brier"}, 'metric: "brier" is unknown; allowed: log_loss'),
    ("binary", {"alpha": 0}, "alpha: 0 is not right; allowed: a number from 1e-06 to 0.5"),
    ("binary", {"alpha": 0.6}, "alpha: 0.6 is not right; allowed: a number from 1e-06 to 0.5"),
    ("binary", {"margin": -0.1}, "margin: -0.1 is not right; allowed: a number from 0 to 1e+30"),
    ("binary", {"margin": 7}, "margin: 7.0 can not be proven; allowed: less than the largest loss, 6.908"),
    ("regression", {"margin": 5, "cap": 5}, "margin: 5.0 can not be proven; allowed: less than the largest loss, 5"),
    ("binary", {"span": "0s"}, 'span: "0s" is too short; allowed: at least 1s'),
    ("binary", {"span": 3}, f"span: 3 is no duration; {DURATION}"),
    ("binary", {"max_age": "10s"}, 'max_age: "10s" is too short; allowed: at least 1m'),
    ("binary", {"cooldown": "soon"}, f'cooldown: "soon" is no duration; {DURATION}'),
    ("binary", {"max_predict_ms": 0}, f"max_predict_ms: 0 is not right; {LARGE}"),
    ("binary", {"max_model_mib": "1"}, f'max_model_mib: "1" is not right; {LARGE}'),
    ("binary", {"max_training_s": True}, f"max_training_s: true is not right; {LARGE}"),
    ("binary", {"cap": 5.0}, 'cap: metric = "log_loss" has a largest loss itself; allowed: no cap'),
    ("regression", {"cap": 0}, "cap: 0 is not right; allowed: a number above 0 up to 1e+30"),
    ("binary", {"web": 6066}, 'web: 6066 is not right; allowed: host and port, such as "127.0.0.1:8080"'),
    (
        "binary",
        {"web": "0.0.0.0:6066"},
        'web: "0.0.0.0" can be reached from other machines; allowed: 127.0.0.1, with a port',
    ),
    ("anomaly", {"alfa": 0.1}, f'alfa: unknown key; allowed: {KEYS}; did you mean "alpha"?'),
]


@pytest.mark.parametrize(("kind", "values", "line"), MISTAKES)
def test_a_mistake_is_one_line(kind: TaskKind, values: dict[str, Any], line: str) -> None:
    assert read(values, kind)[1] == [f"[select] {line}"]


def test_all_mistakes_are_told_at_once() -> None:
    assert len(read({"metric": "mae", "alpha": 1, "span": "", "cap": 1, "beta": 2})[1]) == 5
