"""The `[select]` table: how the champion is chosen."""

from __future__ import annotations

from typing import Any

from streams.durations import DAY_US, MINUTE_US, SECOND_US
from streams.pipeline import Task
from streams.pipeline_http import address, is_loopback
from streams.selecting import LARGEST, METRICS, Metric, Select
from streams.toml_table import Table, shown

LEAST_ALPHA = 1e-6  # of the order of what simulations can still see
MOST_ALPHA = 0.5  # more would promote by chance
MOST_LOSS = 1e30  # as large as a label may be


def read_select(values: dict[str, Any], task: Task, mistakes: list[str]) -> Select:
    """Read `[select]`; what it leaves out is as usual for the task."""
    table = Table("select", values, mistakes)
    usual, metrics = Select(), METRICS[task.kind]
    metric = table.choice("metric", metrics, metrics[0])
    cap = _cap(table, metric)
    found = Select(
        metric=metric,
        alpha=table.number("alpha", usual.alpha, LEAST_ALPHA, MOST_ALPHA),
        margin=table.number("margin", usual.margin, 0.0, MOST_LOSS),
        span_us=table.duration("span", DAY_US, SECOND_US),
        max_age_us=table.duration("max_age", DAY_US, MINUTE_US),
        max_predict_ms=_most(table, "max_predict_ms"),
        max_model_mib=_most(table, "max_model_mib"),
        max_training_s=_most(table, "max_training_s"),
        cooldown_us=table.duration("cooldown", usual.cooldown_us, 0),
        cap=cap,
        web=_web(table),
    )
    if found.margin >= found.largest_loss:
        form = f"less than the largest loss, {found.largest_loss:.4g}"
        table.mistake("margin", f"{shown(found.margin)} can not be proven", form)
    table.finish()
    return found


def _web(table: Table) -> tuple[str, int] | None:
    """Give where the selector shows itself: to this machine only, for nobody is asked there who he is."""
    found = address(table, "web")
    if found is not None and not is_loopback(found[0]):
        table.mistake("web", f"{shown(found[0])} can be reached from other machines", "127.0.0.1, with a port")
        return None
    return found


def _cap(table: Table, metric: Metric) -> float | None:
    """Give the largest loss, for a metric that has none itself."""
    if metric in LARGEST:
        if table.get("cap") is not None:
            table.mistake("cap", f'metric = "{metric}" has a largest loss itself', "no cap")
        return None
    table.get("cap", required=True, allowed=f"the largest {metric} that counts, such as 100.0")
    return table.number("cap", 1.0, 0.0, MOST_LOSS, is_open=True)


def _most(table: Table, key: str) -> float | None:
    return None if table.get(key) is None else table.number(key, 1.0, 0.0, 1e9, is_open=True)
