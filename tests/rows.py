"""Small pipelines, rows and sources for tests, written as one would say them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streams import frames
from streams.control import Claim, Control
from streams.decoding import texts
from streams.frames import EVENT, LABEL, MARK, RETRACTED, SET, Column, FrameSchema
from streams.layouts import Text
from streams.pipeline import Events, Field, Labels, Model, Pipeline, Run, Serve, Task
from streams.tables import Table

COLUMNS = (Column("amount", is_category=False), Column("shop", is_category=True))
KINDS = {"event": EVENT, "label": LABEL, "mark": MARK}


def pipeline(**changes: Any) -> Pipeline:
    """A pipeline `p` with one number, one category and one boolean, by id and key; `changes` replace its parts."""
    parts: dict[str, Any] = {
        "name": "p",
        "partitions": 2,
        "state": Path("state"),
        "kafka": {},
        "events": events(),
        "labels": labels(),
        "task": Task(),
        "features": (),
        "raw_features": True,
        "models": (Model("prior", "prior", {}),),
        "serve": Serve("prior"),
        "run": Run(),
    }
    return Pipeline(**{**parts, **changes})


def events(**changes: Any) -> Events:
    """What an event is in `pipeline`."""
    fields = (
        Field("amount", "number", ("amount",)),
        Field("shop", "category", ("shop",)),
        Field("is_new", "boolean", ("is_new",)),
        Field("miles", "number", ("route", "miles")),
    )
    parts: dict[str, Any] = {
        "topic": "events",
        "id": ("id",),
        "time": ("at",),
        "time_unit": "us",
        "key": ("key",),
        "where": (),
        "fields": fields,
    }
    return Events(**{**parts, **changes})


def labels(**changes: Any) -> Labels:
    """What a label is in `pipeline`."""
    parts: dict[str, Any] = {
        "topic": "labels",
        "id": ("id",),
        "time": ("at",),
        "time_unit": "us",
        "key": ("key",),
        "value": ("y",),
        "where": (),
        "wait_us": 60_000_000,
        "keep_us": 60_000_000,
        "missing": None,
    }
    return Labels(**{**parts, **changes})


def log_rows(rows: list[dict[str, Any]]) -> Table:
    """Log rows from dicts: `kind` by name, any other column by its own; what is left out gets its default."""
    return batch_of(_log_schema(), rows)


@functools.cache
def _log_schema() -> FrameSchema:
    return frames.log_schema(pipeline())


def batch_of(schema: FrameSchema, rows: list[dict[str, Any]]) -> Table:
    """Rows of a schema from dicts."""
    columns: dict[str, Any] = {}
    for field in schema.arrow:
        if not any(field.name in row for row in rows):
            continue
        values = [row.get(field.name) for row in rows]
        if field.name == "kind":
            values = [KINDS[value] if isinstance(value, str) else value for value in values]
        if field.type == pa.string():
            columns[field.name] = texts(values)
        elif field.name == "vector":
            columns[field.name] = np.array([[np.nan] * field.type.list_size if v is None else v for v in values])
        else:
            default = np.nan if field.type == pa.float64() else -1
            columns[field.name] = np.array([default if v is None else v for v in values], field.type.to_pandas_dtype())
    if "outcome" in schema.arrow.names and "outcome" not in columns:
        values = [row.get("label", np.nan) for row in rows]
        outcome = np.where(np.isnan(np.array(values, np.float64)), RETRACTED, SET)
        is_label = np.array([row["kind"] in ("label", LABEL) for row in rows])
        columns["outcome"] = np.where(is_label, outcome, frames.NO_OUTCOME)
    return frames.build(schema, columns, len(rows))


class ControlList:
    """P.control as a list."""

    def __init__(self) -> None:
        self.records: list[tuple[int, str, bytes | None]] = []
        self.given = 0

    def append(self, key: str, value: bytes) -> None:
        self.records.append((len(self.records), key, value))

    def read_new(self) -> list[tuple[int, str, bytes | None]]:
        new, self.given = self.records[self.given :], len(self.records)
        return new


def control() -> Control:
    """An empty P.control."""
    return Control(ControlList())


def claim_of(**changes: Any) -> Claim:
    """A gapless source of a stage, partition 0 of 1."""
    parts: dict[str, Any] = {
        "stream": "features",
        "topic_id": "log-1",
        "partition": 0,
        "kind": "rows",
        "generation": 0,
        "siblings": 1,
        "is_gapless": True,
    }
    return Claim(**{**parts, **changes})


def text_of(values: Sequence[str]) -> Text:
    """Give a column of text without nulls."""
    data = [one.encode() for one in values]
    ends = np.cumsum([0, *map(len, data)]).astype(np.int32)
    return Text(ends, np.frombuffer(b"".join(data), np.uint8), np.empty(0, np.uint8))
