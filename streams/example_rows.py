"""Label rows of P.examples as rows that people and trainings read: own columns first, then one for each feature.

Datasets of `millrace backfill` and the archive have these columns in common.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streams.frames import BEGINNING, OUTCOME_NAMES, Column
from streams.tables import Table

CLASSES = b"millrace.classes"  # in the metadata of the schema: a JSON list
MOMENT = pa.timestamp("us", tz="UTC")
OUTCOMES = pa.array(OUTCOME_NAMES)
UNKNOWN_US = BEGINNING  # the time of an event that nobody remembers; null in a row
Own = tuple[tuple[str, pa.DataType], ...]
OWN: Own = (
    ("id", pa.string()),
    ("key", pa.string()),
    ("time", MOMENT),
    ("number", pa.int64()),
    ("produced", MOMENT),
    ("label", pa.float64()),
    ("outcome", pa.string()),
    ("label_time", MOMENT),
)
"""Columns beside the features. Those of the label are null where there is none (yet)."""


def feature_names(columns: Sequence[Column], taken: Collection[str]) -> list[str]:
    """Name the columns of features; one that is named like a column that is there already becomes `feature.<name>`."""
    return [f"feature.{column.name}" if column.name in taken else column.name for column in columns]


def example_schema(columns: Sequence[Column], classes: Sequence[str], own: Own, folders: str) -> pa.Schema:
    """Name the columns; `folders` is the column that readers make of the names of folders.

    The label of a multiclass task is the name of its class; the schema's metadata has all of them.
    """
    names = feature_names(columns, {folders, *(name for name, _ in own)})
    fields = [*own, *((name, pa.float64()) for name in names)]
    if not classes:
        return pa.schema(fields)
    named = [("label", pa.string()) if name == "label" else (name, kind) for name, kind in fields]
    return pa.schema(named, metadata={CLASSES: json.dumps(list(classes))})


def example_rows(
    schema: pa.Schema, rows: Table, time_us: npt.NDArray[np.int64], *others: npt.NDArray[Any], is_settled: bool = True
) -> pa.RecordBatch:
    """Turn label rows of P.examples, each with the time of its event, into rows of a schema.

    Args:
        schema: of `example_schema`.
        rows: the label rows.
        time_us: of their events, or UNKNOWN_US.
        others: the columns that the schema has between those of OWN and the features.
        is_settled: whether labels have settled these events, not only the end of the log.
    """
    arrow, vectors_BF = rows.to_arrow(), rows.matrix()
    size = rows.num_rows
    label = rows.numbers("label")
    of_label: list[Any] = [pa.nulls(size, field.type) for field in schema if field.name in ("label", "outcome")]
    label_time = pa.nulls(size, MOMENT)
    if is_settled:
        of_label = [_labels(schema, label), OUTCOMES.take(pa.array(rows.numbers("outcome")))]
        label_time = _moments(rows.numbers("time"))
    own = [arrow.column("id"), arrow.column("key"), _moments(time_us), arrow.column("number")]
    beside = [_moments(rows.numbers("produced")), *of_label, label_time, *map(pa.array, others)]
    features = [pa.array(np.ascontiguousarray(vectors_BF[:, place])) for place in range(vectors_BF.shape[1])]
    return pa.record_batch([*own, *beside, *features], schema=schema)


def within(rows: pa.RecordBatch, start_us: int | None, stop_us: int | None) -> pa.RecordBatch:
    """Keep the rows of events at or after `start_us` and before `stop_us`."""
    time = rows.column("time")
    for limit_us, holds in ((start_us, pc.greater_equal), (stop_us, pc.less)):
        if limit_us is not None:
            rows = rows.filter(holds(time, pa.scalar(limit_us, MOMENT)))
            time = rows.column("time")
    return rows


def _labels(schema: pa.Schema, label_B: npt.NDArray[np.float64]) -> pa.Array:
    labels = pa.array(label_B, mask=np.isnan(label_B))
    if not schema.metadata:
        return labels
    return pa.array(json.loads(schema.metadata[CLASSES]), pa.string()).take(labels.cast(pa.int64()))


def _moments(time_us: npt.NDArray[np.int64]) -> pa.Array:
    is_unknown_B = time_us == UNKNOWN_US
    return pa.array(time_us, mask=is_unknown_B if is_unknown_B.any() else None).cast(MOMENT)
