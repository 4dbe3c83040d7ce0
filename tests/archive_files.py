"""An archive as plain Parquet files, and what reads it, for tests of what stands on archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streams.state_folder import Folder

MOMENT = pa.timestamp("us", tz="UTC")


class Segment(NamedTuple):
    """What is asked of a segment here."""

    name: str
    rows: int
    from_us: int
    to_us: int


def write_archive(state: Path, rows: pa.Table, files: int = 3) -> None:
    """Write archive rows, in their order, as so many files."""
    (state / "archive").mkdir(parents=True, exist_ok=True)
    size = -(-rows.num_rows // files)
    for first in range(0, rows.num_rows, size):
        part = rows.slice(first, size)
        pq.write_table(part, state / "archive" / f"{first:012}-{first + part.num_rows:012}.parquet")


def segments_of(state: Folder) -> list[Segment]:
    """Give the segments in order."""
    return [_segment(path) for path in _paths(state)]


def read_rows(state: Folder, from_us: int | None, to_us: int | None, known_us: int | None) -> Iterator[pa.Table]:
    """Yield the rows of events in a period."""
    assert known_us is None
    for path in _paths(state):
        table = pq.read_table(path)
        for limit_us, holds in ((from_us, pc.greater_equal), (to_us, pc.less)):
            if limit_us is not None:
                table = table.filter(holds(table.column("time"), pa.scalar(limit_us, MOMENT)))
        yield table


def _paths(state: Folder) -> list[Path]:
    assert state.local is not None
    return sorted((state.local / "archive").glob("*.parquet"))


def _segment(path: Path) -> Segment:
    time_us = pq.read_table(path, columns=["time"]).column(0).cast(pa.int64()).drop_null().to_numpy()
    return Segment(path.name, time_us.size, int(np.min(time_us)), int(np.max(time_us)))
