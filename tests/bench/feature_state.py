"""Input for the features role alone, in memory: batches of log rows as a worker hands them over, and a large state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from streams import frames
from streams.building import Builder
from streams.frames import EVENT, LABEL, NO_OUTCOME, SET, Batch
from streams.layouts import NO_BITMAP, Text
from streams.pipeline import Feature, Pipeline
from tests.bench.load import START_US

BATCH_ROWS = 4_096
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
WINDOWS_US = (10 * MINUTE_US, HOUR_US, 6 * HOUR_US, DAY_US)  # of the large state
CATEGORIES = 100
FIELDS = ("amount", "distance")
Int64s = npt.NDArray[np.int64]


def batches(pipeline: Pipeline, keys: int, events: int, event_us: int, *, with_labels: bool = True) -> Iterator[Batch]:
    """Give events of evenly drawn keys, `event_us` apart; each is followed by the label of one 2,048 before it."""
    rng, builder = np.random.default_rng(7), builder_of(pipeline)
    half = BATCH_ROWS // 2
    before = np.zeros(0, np.int64)
    for first in range(0, events, half):
        key = rng.integers(0, keys, half)
        number, whose = np.arange(first, first + half), key
        time, kind = START_US + number * event_us, np.full(half, EVENT, np.int8)
        if with_labels and before.size:
            number = np.column_stack([number, number - half]).ravel()
            whose = np.column_stack([key, before]).ravel()
            time, kind = np.repeat(time, 2), np.tile(np.array([EVENT, LABEL], np.int8), half)
        before = key
        yield log_batch(builder, pipeline, rng, kind, time, number, whose)


def builder_of(pipeline: Pipeline) -> Builder:
    """Give what builds batches of the log."""
    return Builder(frames.log_schema(pipeline).layout, {"source": 1})


def log_batch(
    builder: Builder,
    pipeline: Pipeline,
    rng: np.random.Generator,
    kind: npt.NDArray[np.int8],
    time: Int64s,
    number: Int64s,
    whose: Int64s,
) -> Batch:
    """Give rows of these kinds and times, of the events of these numbers and keys; a label follows from its number."""
    is_label = kind == LABEL
    columns = {
        "kind": kind,
        "sequence": np.arange(kind.size),
        "time": time,
        "produced": time,
        "id": texts(b"e", number, 10),
        "key": texts(b"k", whose, 7),
        "label": np.where(is_label, 1.0 * (number % 3 == 0), np.nan),
        "outcome": np.where(is_label, SET, NO_OUTCOME).astype(np.int8),
        **{
            f"field.{field.name}": texts(b"c", whose % CATEGORIES, 2)
            for field in pipeline.events.fields
            if field.kind == "category"
        },
        **{f"field.{field.name}": rng.random(kind.size) for field in pipeline.events.fields if field.kind == "number"},
    }
    clock = np.full(kind.size, time[0] - 1)
    return Batch(builder.build(columns, kind.size), clock, clock)


def large_features() -> tuple[Feature, ...]:
    """Give 20 features over four windows."""
    found = []
    for number, width in enumerate(WINDOWS_US):
        found.append(Feature(f"n_{number}", "count", "*", "key", width))
        for field in FIELDS:
            found += [Feature(f"{how}_{field}_{number}", how, field, "key", width) for how in ("sum", "mean")]
    return tuple(found)


def texts(prefix: bytes, numbers: Int64s, digits: int) -> Text:
    """Write numbers with leading zeros behind a letter."""
    size = 1 + digits
    letters = np.empty((numbers.size, size), np.uint8)
    letters[:, 0] = prefix[0]
    for place in range(digits):
        letters[:, size - 1 - place] = 48 + numbers // 10**place % 10
    return Text(np.arange(0, (numbers.size + 1) * size, size, dtype=np.int32), letters.ravel(), NO_BITMAP)
