"""An archive of examples that follow a known rule, written by the archive's own files, to train models from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from models.examples import Matrix, Times, Vector
from streams.archive import Segment, archive_of, folder_and_name, record_name, segment_name
from streams.archive_file import archive_schema, digest_of, encode
from streams.durations import DAY_US, HOUR_US, MINUTE_US
from streams.example_rows import MOMENT
from streams.frames import Column
from streams.pipeline import Task

COLUMNS = (Column("delay", False), Column("distance", False), Column("carrier", True))
START_US = 1_357_000_000 * 1_000_000 // DAY_US * DAY_US
CARRIERS = np.array([7.0, 11.0, 4_503_599_627_370_495.0, 23.0])
EFFECTS = np.array([-1.0, 0.0, 0.5, 1.5])


def examples(size: int, task: Task, seed: int = 0, shift: float = 0.0) -> tuple[Matrix, Vector]:
    """Draw features and labels of a weighted sum of two numbers, one sometimes missing, and a carrier.

    `shift` makes yes rarer.
    """
    rng = np.random.default_rng(seed)
    X_BF = np.column_stack([rng.normal(5.0, 3.0, size), rng.normal(1000.0, 200.0, size), np.zeros(size)])
    carrier_B = rng.integers(0, len(CARRIERS), size)
    X_BF[:, 2] = CARRIERS[carrier_B]
    logit_B = (X_BF[:, 0] - 5.0) - (X_BF[:, 1] - 1000.0) / 200.0 + EFFECTS[carrier_B] + shift
    X_BF[rng.random(size) < 0.05, 1] = np.nan
    if task.kind == "regression":
        return X_BF, 100.0 + 10.0 * logit_B + rng.normal(0.0, 1.0, size)
    if task.kind == "multiclass":
        return X_BF, np.digitize(logit_B + rng.normal(0.0, 0.3, size), [-1.0, 1.0]).astype(float)
    return X_BF, (rng.random(size) < 1.0 / (1.0 + np.exp(-2.0 * logit_B))).astype(float)


def write_archive(state: Path, size: int, task: Task | None = None, days: int = 4, shift: float = 0.0) -> list[Segment]:
    """Write a segment for each day; events come at equal distances, and each label about an hour later."""
    task = task or Task()
    X_BF, y_B = examples(size, task, shift=shift)
    time_B = START_US + np.arange(size) * days * DAY_US // size
    written = []
    for day in range(days):
        first, stop = day * size // days, (day + 1) * size // days
        part = slice(first, stop)
        written.append(_write(state, X_BF[part], y_B[part], time_B[part], first, task))
    return written


def _write(state: Path, X_BF: Matrix, y_B: Vector, time_B: Times, first: int, task: Task) -> Segment:
    size, known_B = len(y_B), time_B + HOUR_US + MINUTE_US * (np.arange(len(y_B)) % 7)
    label = pa.array([task.classes[int(y)] for y in y_B]) if task.classes else pa.array(y_B)
    own = {
        "id": pa.array([f"e{first + i}" for i in range(size)]),
        "key": pa.array(["k"] * size),
        "time": pa.array(time_B, MOMENT),
        "number": pa.array(np.arange(first, first + size)),
        "produced": pa.array(time_B + 5, MOMENT),
        "label": label,
        "outcome": pa.array(["set"] * size),
        "label_time": pa.array(known_B, MOMENT),
        "source": pa.array(np.zeros(size, np.int32)),
        "row": pa.array(np.arange(first, first + size)),
    }
    features = {column.name: pa.array(X_BF[:, place]) for place, column in enumerate(COLUMNS)}
    schema = archive_schema(COLUMNS, task.classes)
    content = encode(pa.table({**own, **features}).select(schema.names).cast(schema))
    day = str(np.datetime64(int(time_B[0]), "us").astype("datetime64[D]"))
    name = segment_name(day, first, first + size)
    spans = int(time_B.min()), int(time_B.max()), int(known_B.max())
    digest = digest_of(content)
    segment = Segment(
        name, first, first + size, day, size, len(content), digest, COLUMNS, task.classes, *spans, labelled=size
    )
    folder, file = folder_and_name(archive_of(state), name)
    folder.publish(file, content)
    folder.publish(record_name(name), msgspec.json.encode(segment))
    return segment
