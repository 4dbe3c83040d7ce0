"""Feature rows as a Parquet dataset, `partition=N/part-00000.parquet`: what pandas, DuckDB and others read.

A file has its name only when it is whole: until then the name begins with a dot, which readers of datasets skip.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import PipelineError, UnavailableError
from streams.example_rows import OWN, example_schema
from streams.frames import Column

GROUP_ROWS = 100_000  # of a row group: small enough to hold, large enough to compress and to be read by itself
FILE_GROUPS = 10


def dataset_schema(columns: Sequence[Column], classes: Sequence[str] = ()) -> pa.Schema:
    """Name the columns; a feature named like one of OWN, or like the partition, becomes `feature.<name>`."""
    return example_schema(columns, classes, OWN, "partition")


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
