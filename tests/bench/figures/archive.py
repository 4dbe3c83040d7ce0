"""The archive alone, in memory: label rows that become Parquet, a second; 16 features, an event row before each."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from streams.archiver import CLOSED_ROWS, Archiver
from streams.building import Builder
from streams.durations import HOUR_US
from streams.features import columns
from streams.frames import EVENT, LABEL, NO_OUTCOME, SET, Batch, examples_schema
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.bench.feature_state import BATCH_ROWS, texts
from tests.bench.figure import Figure
from tests.bench.kafka import BenchError
from tests.bench.load import START_US
from tests.bench.workplace import BENCH_FILE, FULL, Workplace

HALF = BATCH_ROWS // 2
EVENT_US, KEYS = 100, 100_000
SEGMENTS = 8

FIGURES = (Figure("archive", "rows/s", bound=300_000, scales=True), Figure("archive_row_bytes", "bytes"))


def measure(workplace: Workplace) -> dict[str, float]:
    """Give label rows a second, from batches as a worker has them to files, and what a row takes in them."""
    pipeline = read_pipeline(BENCH_FILE)
    made, segments = Archiver(columns(pipeline), (), HOUR_US), SEGMENTS if workplace.size == FULL else 1
    rows, size_bytes, took_s = 0, 0, 0.0
    for batch in _batches(pipeline, segments * CLOSED_ROWS):
        began_s = time.perf_counter()
        closed = made.take(batch)
        took_s += time.perf_counter() - began_s
        rows += sum(one.segment.rows for one in closed)
        size_bytes += sum(len(one.content) for one in closed)
    if rows != segments * CLOSED_ROWS:
        raise BenchError(f"{rows:,} rows were archived where {segments * CLOSED_ROWS:,} should be")
    return {"archive": rows / took_s, "archive_row_bytes": size_bytes / rows}


def _batches(pipeline: Pipeline, events: int) -> Iterator[Batch]:
    """Give events, each with its label row behind it; features are counts, sums of cents, means and times."""
    schema = examples_schema(columns(pipeline))
    builder, rng = Builder(schema.layout, {"source": 1}), np.random.default_rng(7)
    width = len(columns(pipeline))
    for first in range(0, events, HALF):
        number = np.repeat(np.arange(first, first + HALF), 2)
        is_label = np.tile([False, True], HALF)
        vectors = np.where(np.arange(width) % 2, rng.random((HALF, width)), rng.integers(0, 100, (HALF, width)))
        cells = {
            "kind": np.where(is_label, LABEL, EVENT).astype(np.int8),
            "sequence": np.arange(BATCH_ROWS),
            "time": START_US + number * EVENT_US + 1_000_000 * is_label,
            "produced": START_US + number * EVENT_US,
            "number": number,
            "id": texts(b"e", number, 10),
            "key": texts(b"k", number * 2_654_435_761 % KEYS, 7),
            "label": np.where(is_label, 1.0 * (number % 3 == 0), np.nan),
            "outcome": np.where(is_label, SET, NO_OUTCOME).astype(np.int8),
            "vector": vectors.repeat(2, axis=0),
        }
        clock = np.full(BATCH_ROWS, START_US + first * EVENT_US)
        yield Batch(builder.build(cells, BATCH_ROWS), clock, clock)
