"""The ledger with a million events that wait: rows a second, and how long a snapshot of them stops the stream."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import numpy as np

from consumers.featurize import FeatureTask
from streams.frames import EVENT, LABEL, Batch
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.bench.feature_state import BATCH_ROWS, Int64s, builder_of, log_batch
from tests.bench.figure import Figure, middle
from tests.bench.kafka import BenchError
from tests.bench.load import START_US
from tests.bench.workplace import BENCH_FILE, DIRECTORY, FULL, Workplace

HALF = BATCH_ROWS // 2
KEYS, EVENT_US = 100_000, 100
WAITING = 512 * HALF  # 1,048,576 events
SNAPSHOTS = 3

FIGURES = (
    Figure("ledger", "rows/s", bound=500_000, scales=True),
    Figure("ledger_pause_ms", "ms", bound=200, is_floor=False),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Fill a task of 16 features with events, then let one come for each that gets its label, in any order."""
    pipeline = msgspec.structs.replace(read_pipeline(BENCH_FILE), state=DIRECTORY / "ledger")
    waiting = WAITING if workplace.size == FULL else WAITING // 16
    task, rows, took_s = FeatureTask(pipeline, 0, 7), 0, 0.0
    for batch in _events(pipeline, waiting):
        task.process(batch)
    for batch in _exchanged(pipeline, waiting):
        began_s = time.perf_counter()
        task.process(batch)
        took_s += time.perf_counter() - began_s
        rows += batch.rows.num_rows
    if task.pending_events() != waiting or task.unaccounted_rows():
        raise BenchError(f"{task.pending_events():,} events wait where {waiting:,} should")
    return {"ledger": rows / took_s, "ledger_pause_ms": 1e3 * middle([_pause_s(task) for _ in range(SNAPSHOTS)])}


def _pause_s(task: FeatureTask) -> float:
    began_s = time.perf_counter()
    task.state()
    return time.perf_counter() - began_s


def _events(pipeline: Pipeline, waiting: int) -> Iterator[Batch]:
    """Give the events that wait."""
    builder, rng = builder_of(pipeline), np.random.default_rng(7)
    for first in range(0, waiting, HALF):
        number = np.arange(first, first + HALF)
        kind = np.full(HALF, EVENT, np.int8)
        yield log_batch(builder, pipeline, rng, kind, START_US + number * EVENT_US, number, _keys(number))


def _exchanged(pipeline: Pipeline, waiting: int) -> Iterator[Batch]:
    """Give as many again, each with the label of one of those that waited; which, nobody can foresee."""
    builder, rng = builder_of(pipeline), np.random.default_rng(8)
    labelled = rng.permutation(waiting)
    kind = np.tile(np.array([EVENT, LABEL], np.int8), HALF)
    for first in range(0, waiting, HALF):
        of_event = np.arange(first, first + HALF) + waiting
        number = np.column_stack([of_event, labelled[first : first + HALF]]).ravel()
        time_us = START_US + np.repeat(of_event, 2) * EVENT_US
        yield log_batch(builder, pipeline, rng, kind, time_us, number, _keys(number))


def _keys(number: Int64s) -> Int64s:
    """Draw keys evenly, the same ones each time: a label has its event's."""
    return number * 2_654_435_761 % KEYS
