"""The `[labels]` table: where labels come from, how they find their events, and how long an event waits for one."""

from __future__ import annotations

from typing import get_args

from streams.pipeline import MOST_PENDING, Amend, Events, Feature, Labels, Match, Task
from streams.pipeline_records import check_paths, identity_uses, read_time_unit, read_topic, read_where
from streams.pipeline_task import read_missing
from streams.toml_table import Table

MOST_PENDING_ALLOWED = 200_000_000  # with what is remembered, a partition's ledger has room for 268 million

_LATER_LABELS = {"sample": "sampling"}
_MATCHES: tuple[Match, ...] = get_args(Match)
_AMENDS: tuple[Amend, ...] = get_args(Amend)


def read_labels(table: Table, pipeline: str, task: Task, *, is_keyed: bool) -> Labels:
    """Read the table; `is_keyed` says whether the events have a key."""
    topic = read_topic(table, pipeline)
    match = _match(table, is_keyed=is_keyed)
    is_known = "match" not in table.wrong  # else nobody can say what belongs to it
    identity = table.path("id", required=is_known and match != "key")
    time, time_unit = table.path("time"), read_time_unit(table)
    key = table.path("key", required=is_known and is_keyed and match != "id")
    if key and not is_keyed:
        table.mistake("key", "the events have no key to match", "declare [events] key too, or leave both out")
    value = table.path("value", required=True) or ()
    where = read_where(table)
    within_us = table.duration("within") if match == "key" else 0
    has_within = match == "key" and "within" not in table.wrong
    wait_us = table.duration("wait", within_us if has_within else None if match != "key" else 1)
    wait_us = min(wait_us, within_us or wait_us)
    labels = Labels(
        topic=topic,
        id=identity,
        time=time,
        time_unit=time_unit,
        key=key,
        value=value,
        where=where,
        wait_us=wait_us,
        keep_us=table.duration("keep", wait_us, smallest_us=0),
        missing=read_missing(table, task),
        most_pending=table.integer("most_pending", MOST_PENDING, 1, MOST_PENDING_ALLOWED),
        amend=table.choice("amend", _AMENDS, "metrics"),
        match=match,
        within_us=within_us,
    )
    if labels.is_relearned and task.is_unsupervised:
        table.mistake("amend", f"a model of a task that is {task.kind} looks at no label", 'leave it out, or "metrics"')
    table.finish(_LATER_LABELS)
    if task.kind == "clustering":
        table.mistakes.append("[labels]: a cluster is nobody's to know; allowed: no such table for a clustering")
    check_paths(table, [*identity_uses(labels), *([("value", labels.value, "a label")] if labels.value else [])])
    return labels


def no_labels(events: Events, keep_us: int) -> Labels:
    """Give the labels of a pipeline that has none: the topic is the events', and nothing waits."""
    return Labels(events.topic, (), None, "rfc3339", None, (), (), 0, keep_us, None, is_declared=False)


def _match(table: Table, *, is_keyed: bool) -> Match:
    """Say by what labels find their events, and refuse what does not go with it."""
    match = table.choice("match", _MATCHES, "id and key")
    if "match" in table.wrong:
        table.known.append("within")
        return match
    if match != "id and key" and not is_keyed:
        allowed = "leave it out, and labels are matched by id; or declare [events] key"
        table.mistake("match", "the events have no key", allowed)
    if match == "id" and "key" in table.values:
        table.mistake("key", "labels that are matched by id have no key", 'leave it out, or match = "id and key"')
    if match == "key" and "id" in table.values:
        table.mistake("id", "labels that are matched by key name no event", 'leave it out, or match = "id and key"')
    if match == "key" and "amend" in table.values:
        table.mistake("amend", "a label that names no event amends none", 'leave it out, or match = "id and key"')
    if match != "key":
        table.known.append("within")
        if "within" in table.values:
            table.mistake("within", "a label that names its event needs none", 'leave it out, or match = "key"')
    return match


def refuse_label_features(features: tuple[Feature, ...], task: Task, labels: Labels) -> list[str]:
    """Refuse features that would count with a class as a number, or with labels that there are not."""
    why = "a class is no number" if task.kind == "multiclass" else "there are no labels"
    named = [one for one in features if one.is_label and (task.kind == "multiclass" or not labels.is_declared)]
    return [f"[features] {one.name}: {why}; allowed: a feature of a field" for one in named]
