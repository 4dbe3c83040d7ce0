"""Changes of the feature list for tests: a run that goes on under another list, and runs to compare it with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from consumers.featurize import FeatureTask
from streams.features import columns
from streams.pipeline import Feature, Field, Pipeline
from tests.aggregate_reference import Row
from tests.featurizing import SOURCE, Clocks, event, label, mark_clocks, run
from tests.rows import events, labels, pipeline

AFTER = "is_after"  # true from the change on, in rows that `marked` has marked
FIELDS = (
    Field("amount", "number", ("amount",)),
    Field("shop", "category", ("shop",)),
    Field("is_new", "boolean", ("is_new",)),
    Field("amount_after", "number", ("amount_after",)),
    Field(AFTER, "boolean", (AFTER,)),
)
Made = list[tuple[int, Row]]  # rows put out, by what caused them


def listed(features: Iterable[Feature], *, raw: bool = False, **of: Any) -> Pipeline:
    """A pipeline with these features; labels wait 60 s and are kept 60 s unless changed."""
    return pipeline(events=events(fields=FIELDS), labels=labels(**of), features=tuple(features), raw_features=raw)


def marked(rows: list[Row], at: int) -> list[Row]:
    """Say in every event whether it comes after the change; `amount_after` is missing before."""
    return [
        {**row, "field.amount_after": row.get("field.amount") if place >= at else None, f"field.{AFTER}": place >= at}
        if row["kind"] == "event"
        else row
        for place, row in enumerate(rows)
    ]


def late(feature: Feature) -> Feature:
    """Declare a feature that counts nothing from before the change, though it sees all rows."""
    if feature.operation == "lag":
        return msgspec.structs.replace(feature, of="amount_after")
    where = AFTER if feature.where is None else f"({feature.where}) and {AFTER}"
    return msgspec.structs.replace(feature, where=where)


def whole_run(of: Pipeline, rows: list[Row], clocks: Clocks) -> Made:
    """All rows under one list."""
    return run(FeatureTask(of, 0, SOURCE), of, rows, clocks)


def changed_run(lists: list[Pipeline], rows: list[Row], clocks: Clocks, ends: list[int]) -> tuple[Made, list[str]]:
    """Rows up to each end under one list after the other; gives what was put out and what was told."""
    made: Made = []
    told: list[str] = []
    state, start = None, 0
    for of, end in zip(lists, [*ends, len(rows)], strict=True):
        task = FeatureTask(of, 0, SOURCE, tell=told.append)
        if state is not None:
            task.restore(state)
        made += [(start + cause, row) for cause, row in run(task, of, rows[start:end], clocks[start:end])]
        state, start = task.state(), end
    return made, told


def column(of: Pipeline, made: Made, name: str, kind: int = 0, since: int = 0) -> list[bytes]:
    """The bits of one column, in rows of a kind that were caused from a place on."""
    place = [one.name for one in columns(of)].index(name)
    return [np.float64(row["vector"][place]).tobytes() for cause, row in made if row["kind"] == kind and cause >= since]


def plain_rows(count: int, keys: int = 3) -> tuple[list[Row], Clocks]:
    """Events in order, a second apart, each with a label 2.5 s after it."""
    rows = [
        event(f"e{n}", n, f"k{n % keys}", float(n % 7), shop=f"s{n % 2}", is_new=float(n % 3 == 0))
        for n in range(count)
    ]
    rows += [label(f"e{n}", n + 2.5, float(n % 4 == 0), f"k{n % keys}") for n in range(count)]
    rows.sort(key=lambda row: row["time"])
    return rows, mark_clocks(rows)
