"""Topics of examples for tests of the archive, and what the archive must hold of them, row by row in Python."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.archiving import ArchiveTask
from streams import archiver
from streams.archive import Segment, read_rows
from streams.durations import DAY_US, HOUR_US
from streams.example_rows import UNKNOWN_US
from streams.features import columns
from streams.frames import (
    AMENDED,
    BEGINNING,
    COMMAND,
    EVENT,
    LABEL,
    MARK,
    MISSING,
    OUTCOME_NAMES,
    RETRACTED,
    SET,
    VERSION,
    Batch,
    examples_schema,
)
from streams.pipeline import Pipeline
from streams.retraining import Archive
from streams.state_folder import Place
from tests import rows as parts

Row = dict[str, Any]

START_US = 1_357_000_000 * 1_000_000  # 2013-01-01T00:26:40Z
WAIT_US, KEEP_US = 12 * HOUR_US, 6 * HOUR_US
SMALL_ROWS = 40  # in a segment, for tests


def pipeline(**changes: Any) -> Pipeline:
    """A pipeline with an archive, and labels that are waited for half a day."""
    of = parts.pipeline(labels=parts.labels(wait_us=WAIT_US, keep_us=KEEP_US), archive=Archive())
    return Pipeline(**{name: getattr(of, name) for name in of.__struct_fields__} | changes)


def topic(seed: int, events: int, days: float = 4.0) -> list[Row]:
    """Rows of P.examples: two sources, events out of order, labels in any; corrections, and rows that are no examples.

    `clock` is the clock as it stands at the row.
    """
    rng = random.Random(seed)
    made: list[tuple[float, Row]] = []  # when a row comes, and the row
    width = len(columns(pipeline()))
    counts = {3: 5, 8: 0}  # source 3 was joined in its middle
    for place in range(events):
        come_us = START_US + place * days * DAY_US / events
        source = rng.choice([3, 8])
        time_us = round(come_us - rng.random() * HOUR_US)
        own = {"source": source, "number": counts[source], "id": f"e{place}", "key": rng.choice(["a", "b", None])}
        own |= {"produced": time_us + 5, "vector": [rng.choice([rng.random(), np.nan]) for _ in range(width)]}
        counts[source] += 1
        made.append((come_us, own | {"kind": EVENT, "time": time_us}))
        made += _labels(rng, come_us, time_us, own)
        if rng.random() < 0.05:
            kind = rng.choice([MARK, VERSION, COMMAND])
            made.append((come_us, {"kind": kind, "source": -1, "number": -1, "time": time_us}))
    rows, clock = [], BEGINNING
    for come_us, row in sorted(made, key=lambda one: one[0]):
        clock = max(clock, round(come_us - HOUR_US))
        rows.append(row | {"clock": clock})
    return rows


def _labels(rng: random.Random, come_us: float, time_us: int, own: Row) -> Iterator[tuple[float, Row]]:
    """The label row of an event, and at times one that corrects it, without its key and vector."""
    if rng.random() < 0.1:
        return  # it waits
    label, delay_us = float(rng.random() < 0.3), round(rng.random() * WAIT_US)
    outcome = SET if rng.random() < 0.8 else MISSING
    if outcome == MISSING:
        label, delay_us = np.nan, WAIT_US
    first = own | {"kind": LABEL, "outcome": outcome, "label": label, "time": time_us + delay_us}
    yield come_us + delay_us, first
    if rng.random() < 0.2:
        outcome, label = rng.choice([(AMENDED, 1.0), (RETRACTED, np.nan)])
        later_us = delay_us + round(rng.random() * KEEP_US)
        bare = first | {"outcome": outcome, "label": label, "time": time_us + later_us, "key": None}
        yield come_us + later_us, bare | {"vector": [np.nan] * len(own["vector"])}


def batches(of: Pipeline, rows: Sequence[Row], cuts: Sequence[int]) -> Iterator[Batch]:
    """The rows as a worker hands them over, cut before these places."""
    schema = examples_schema(columns(of))
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        part = rows[start:stop]
        if part:
            table = parts.batch_of(schema, [{k: v for k, v in row.items() if k != "clock"} for row in part])
            clock = np.array([row["clock"] for row in part], np.int64)
            yield Batch(table, clock, clock)


def expected(rows: Sequence[Row], keep_us: int = WAIT_US + KEEP_US) -> list[Row]:
    """What the archive holds once everything is closed: one row for each label row, as `found` gives them."""
    times: dict[tuple[int, int], int] = {}
    made: list[Row] = []
    for row in rows:
        name = row["source"], row["number"]
        if row["kind"] == EVENT:
            times[name] = row["time"]
        if row["kind"] != LABEL:
            continue
        time_us = times.get(name)
        is_known = time_us is not None and row["clock"] <= time_us + keep_us
        kept = {what: row[what] for what in ("id", "key", "number", "produced", "source")}
        label = None if np.isnan(row["label"]) else row["label"]
        told = {"label": label, "outcome": OUTCOME_NAMES[row["outcome"]], "label_time": row["time"]}
        vector = tuple(None if np.isnan(value) else value for value in row["vector"])
        made.append(kept | told | {"time": time_us if is_known else None, "row": len(made), "vector": vector})
    return made


def found(tables: Sequence[Any]) -> list[Row]:
    """Rows of the archive as dicts, in their order, times in us and NaN as None."""
    made = []
    for table in tables:
        for row in table.to_pylist():
            own = {what: row.pop(what) for what in table.schema.names[:10]}
            for what in ("time", "produced", "label_time"):
                own[what] = own[what] and round(own[what].timestamp() * 1e6)
            vector = tuple(None if value is None or np.isnan(value) else value for value in row.values())
            made.append(own | {"vector": vector})
    return made


def read(state: Place, from_us: int | None = None, to_us: int | None = None, known_us: int | None = None) -> list[Row]:
    """The archive's rows as it is read."""
    return found(list(read_rows(state, from_us, to_us, known_us)))


def closed_rows(rows: Sequence[Row]) -> int:
    """How many of the expected rows are closed: those before the last cut."""
    day, cut, count = UNKNOWN_US, 0, 0
    for place, row in enumerate(rows):
        is_newer = row["time"] is not None and row["time"] // DAY_US > day
        if is_newer:
            day = row["time"] // DAY_US
        if (is_newer and count) or count == SMALL_ROWS:
            cut, count = place, 0
        count += 1
    return len(rows) if count == SMALL_ROWS else cut


def written(of: Pipeline, state: Place, rows: Sequence[Row], cuts: Sequence[int] = ()) -> ArchiveTask:
    """A task that has taken all rows."""
    task = ArchiveTask(of, state)
    for batch in batches(of, rows, cuts):
        task.process(batch)
    return task


def tidied(task: ArchiveTask) -> list[Segment]:
    """The segments once nothing more is due."""
    while task.tick():
        pass
    return task.store.segments


def files(directory: Path) -> dict[str, bytes]:
    """All files below a directory by their path."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let segments be small, and not wait for the disk."""
    monkeypatch.setattr(archiver, "CLOSED_ROWS", SMALL_ROWS)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def rows_in(segments: Sequence[Segment]) -> int:
    """How many rows segments hold."""
    return sum(segment.rows for segment in segments)
