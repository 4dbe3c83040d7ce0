"""Feature rows as a Parquet dataset, `partition=N/part-00000.parquet`: what pandas, DuckDB and others read.

A file has its name only when it is whole: until then the name begins with a dot, which readers of datasets skip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streams.errors import PipelineError, UnavailableError
from streams.frames import OUTCOME_NAMES, Column
from streams.tables import Table

GROUP_ROWS = 100_000  # of a row group: small enough to hold, large enough to compress and to be read by itself
FILE_GROUPS = 10
CLASSES = b"millrace.classes"  # in the metadata of the schema: a JSON list
MOMENT = pa.timestamp("us", tz="UTC")
OUTCOMES = pa.array(OUTCOME_NAMES)
OWN = (
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


def dataset_schema(columns: Sequence[Column], classes: Sequence[str] = ()) -> pa.Schema:
    """Name the columns; a feature named like a column of ours, or like the partition, becomes `feature.<name>`.

    The label of a multiclass task is the name of its class; the schema's metadata has all of them.
    """
    taken = {"partition", *(name for name, _ in OWN)}
    names = [f"feature.{one.name}" if one.name in taken else one.name for one in columns]
    fields = [*OWN, *((name, pa.float64()) for name in names)]
    if not classes:
        return pa.schema(fields)
    named = [("label", pa.string()) if name == "label" else (name, kind) for name, kind in fields]
    return pa.schema(named, metadata={CLASSES: json.dumps(list(classes))})


def dataset_rows(schema: pa.Schema, rows: Table, time_us: npt.NDArray[np.int64], *, is_settled: bool) -> pa.RecordBatch:
    """Turn label rows of P.examples, each with the time of its event, into rows of the dataset."""
    arrow, vectors_BF = rows.to_arrow(), rows.matrix()
    size = rows.num_rows
    label = rows.numbers("label")
    of_label: list[Any] = [pa.nulls(size, field.type) for field in schema if field.name in ("label", "outcome")]
    label_time = pa.nulls(size, MOMENT)
    if is_settled:
        of_label = [_labels(schema, label), OUTCOMES.take(pa.array(rows.numbers("outcome")))]
        label_time = _moments(rows.numbers("time"))
    own = [arrow.column("id"), arrow.column("key"), _moments(time_us), arrow.column("number")]
    features = [pa.array(np.ascontiguousarray(vectors_BF[:, place])) for place in range(vectors_BF.shape[1])]
    return pa.record_batch([*own, _moments(rows.numbers("produced")), *of_label, label_time, *features], schema=schema)


def _labels(schema: pa.Schema, label_B: npt.NDArray[np.float64]) -> pa.Array:
    labels = pa.array(label_B, mask=np.isnan(label_B))
    if not schema.metadata:
        return labels
    return pa.array(json.loads(schema.metadata[CLASSES]), pa.string()).take(labels.cast(pa.int64()))


def within(rows: pa.RecordBatch, start_us: int | None, stop_us: int | None) -> pa.RecordBatch:
    """Keep the rows of events at or after `start_us` and before `stop_us`."""
    time = rows.column("time")
    for limit_us, holds in ((start_us, pc.greater_equal), (stop_us, pc.less)):
        if limit_us is not None:
            rows = rows.filter(holds(time, pa.scalar(limit_us, MOMENT)))
            time = rows.column("time")
    return rows


class PartitionFiles:
    """Writes the rows of one partition: row groups of about 100,000 rows, in each the rows in the order of numbers."""

    def __init__(self, out: Path, partition: int, schema: pa.Schema) -> None:
        self._directory = out / f"partition={partition}"
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._groups = self._files = 0
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows; they are written once there are enough for a row group."""
        if not rows.num_rows:
            return  # a narrow period leaves nothing of most steps
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.rows += rows.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._write()

    def close(self) -> None:
        """Write the rest. A partition without rows has one file without rows, so that its columns are known."""
        if self._waiting_rows or not self._groups:
            self._write()
        self._finish()

    def _write(self) -> None:
        writer = self._writer or self._open()
        group = pa.Table.from_batches(self._waiting, self._schema).sort_by("number")
        writer.write_table(group, row_group_size=max(1, group.num_rows))
        self._waiting, self._waiting_rows = [], 0
        self._groups += 1
        if self._groups % FILE_GROUPS == 0:
            self._finish()

    def _open(self) -> pq.ParquetWriter:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._path("."), self._schema, compression="zstd")
        return self._writer

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._path(".").rename(self._path())
            self._writer = None
            self._files += 1

    def _path(self, mark: str = "") -> Path:
        return self._directory / f"{mark}part-{self._files:05}.parquet"


def clear(out: Path, *, is_forced: bool) -> None:
    """Make the directory of a new dataset; of one that is there only the files of an earlier dataset are removed.

    Raises:
        PipelineError: it is not empty, and `is_forced` is not given.
        UnavailableError: it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not is_forced:
            raise PipelineError([f"{out} is not empty; name another directory, or --force to replace the dataset"])
        for path in _earlier(out):
            path.unlink()
    except OSError as error:
        raise UnavailableError(f"{out} cannot be written: {error.strerror}; name another directory") from None


def _earlier(out: Path) -> Iterable[Path]:
    return [*out.glob("partition=*/part-*.parquet"), *out.glob("partition=*/.part-*.parquet")]


def _moments(time_us: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(time_us).cast(MOMENT)
