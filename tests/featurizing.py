"""Runs of the features role for tests: rows in as dicts, rows out as dicts, cut and interrupted anywhere."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np

from consumers.featurize import FeatureTask
from streams import frames
from streams.frames import BEGINNING, Batch, Rows
from streams.pipeline import Feature, Field, Pipeline
from tests.aggregate_reference import Row
from tests.feature_reference import Reference
from tests.rows import batch_of, events, labels, pipeline

SECOND = 1_000_000
SOURCE = 7
START = 1_700_000_000 * SECOND
Clocks = list[tuple[int, int]]  # after each row: label clock, clock


def small_pipeline(features: tuple[Feature, ...] = (), *, raw: bool = False, **label_changes: Any) -> Pipeline:
    """Fields `amount`, `shop` and `is_new`; labels wait 60 s and are kept 60 s unless changed."""
    fields = (
        Field("amount", "number", ("amount",)),
        Field("shop", "category", ("shop",)),
        Field("is_new", "boolean", ("is_new",)),
    )
    return pipeline(events=events(fields=fields), labels=labels(**label_changes), features=features, raw_features=raw)


def event(id_: str, time_s: float, key: str | None = "k", amount: float | None = 1.0, **fields: Any) -> Row:
    """An event `time_s` seconds after the start of these tests."""
    time_us = START + round(time_s * SECOND)
    values = {f"field.{name}": value for name, value in {"amount": amount, **fields}.items()}
    return {"kind": "event", "id": id_, "key": key, "time": time_us, "produced": time_us + 5, **values}


def label(id_: str, time_s: float, value: float | None = 1.0, key: str | None = "k") -> Row:
    """A label; None takes it back."""
    value = math.nan if value is None else value
    return {"kind": "label", "id": id_, "key": key, "time": START + round(time_s * SECOND), "label": value}


def mark(time_s: float) -> Row:
    """A mark: moves nothing but the clocks."""
    return {"kind": "mark", "id": None, "key": None, "time": START + round(time_s * SECOND)}


def batch(of: Pipeline, rows: list[Row], clocks: Clocks) -> Batch:
    """Rows as the worker hands them over."""
    array = np.array(clocks, np.int64).reshape(-1, 2)
    return Batch(batch_of(frames.log_schema(of), rows), array[:, 0].copy(), array[:, 1].copy())


def mark_clocks(rows: list[Row]) -> Clocks:
    """Clocks that only marks move, both alike."""
    clocks, now = [], int(BEGINNING)
    for row in rows:
        now = max(now, row["time"]) if row["kind"] == "mark" else now
        clocks.append((now, now))
    return clocks


def plain(outputs: list[Rows], topic: str = "examples", first: int = 0) -> list[tuple[int, Row]]:
    """Output rows of a topic as (cause, row); causes count from `first`."""
    rows = []
    for output in outputs:
        if output.topic == topic:
            found = output.table.take(output.picked).to_arrow().to_pylist()
            rows += [(first + int(c), r) for c, r in zip(output.cause, found, strict=True)]
    return rows


def run(
    task: FeatureTask, of: Pipeline, rows: list[Row], clocks: Clocks | None = None, cuts: tuple[int, ...] = ()
) -> list[tuple[int, Row]]:
    """Feed rows, cut at these places; gives P.examples. The accounts must hold after every batch."""
    clocks = mark_clocks(rows) if clocks is None else clocks
    out, edges = [], [0, *sorted(cuts), len(rows)]
    for start, stop in itertools.pairwise(edges):
        if start == stop:
            continue
        out += plain(task.process(batch(of, rows[start:stop], clocks[start:stop])), first=start)
        assert task.unaccounted_rows() == 0
    return out


def assert_same(actual: list[tuple[int, Row]], expected: list[tuple[int, Row]]) -> None:
    """Rows are equal in order, cause and every column; numbers within 1e-9, NaN equal to NaN."""
    brief = [
        (cause, r["kind"], r["outcome"], r["number"], r["time"], r["produced"], r["id"], r["key"])
        for cause, r in actual
    ]
    kinds = {"event": 0, "label": 1}
    wanted = [
        (cause, kinds[r["kind"]], r["outcome"], r["number"], r["time"], r.get("produced", -1), r["id"], r["key"])
        for cause, r in expected
    ]
    assert brief == wanted
    for (_, row), (_, reference) in zip(actual, expected, strict=True):
        np.testing.assert_allclose(row["label"], reference["label"], rtol=0)
        np.testing.assert_allclose(row["vector"], reference["vector"], rtol=1e-9, atol=1e-9)


def reference_run(of: Pipeline, rows: list[Row], clocks: Clocks | None = None) -> Reference:
    """The same rows through the reference."""
    reference = Reference(of)
    for index, (row, (label_clock, clock)) in enumerate(zip(rows, clocks or mark_clocks(rows), strict=True)):
        reference.take(index, row, label_clock, clock)
    return reference


def assert_accounts(task: FeatureTask, reference: Reference) -> None:
    """The accounts name the same numbers as the reference counted."""
    counts, tally = task.accounts(), reference.tally
    states = [known.state for known in reference.known.values()]
    total, became = counts["events"]
    joined, missing = tally.get("joined", 0), tally.get("missing", 0)
    assert total == tally.get("events", 0)
    assert became == {
        "settled": joined + missing,
        "pending": states.count("pending"),
        "duplicate": tally.get("duplicate events", 0),
    }
    total, became = counts["labels"]
    assert total == tally.get("labels", 0)
    assert became == {
        "joined": joined,
        "waiting": states.count("early"),
        "duplicate": tally.get("duplicate labels", 0),
        **{name: tally.get(name.replace("_", " "), 0) for name in ("unknown", "too_late", "amended", "retracted")},
    }
    assert task.settled_missing() == missing
    assert {width: rows for width, rows in task.late_rows().items() if rows} == reference.late


def random_rows(seed: int, count: int, *, ids: int, keys: int, span_s: float) -> tuple[list[Row], Clocks]:
    """A hostile stream: ties, rows far out of order, repeats, early, late, second and retracted labels, gaps, marks."""
    dice = random.Random(seed)
    rows: list[Row] = []
    clocks: Clocks = []
    now, label_clock, clock = 0.0, int(BEGINNING), int(BEGINNING)
    for _ in range(count):
        now += dice.choice([0, 0, 0.25, 0.5, 1, span_s / 20]) if dice.random() < 0.95 else span_s
        at = now - dice.choice([0, 0, 0, 0, 0.25, 1, span_s / 12, span_s / 3, span_s, 2.5 * span_s])
        name = str(dice.randrange(ids))
        key = None if int(name) % 11 == 10 else f"key-{int(name) % keys}"
        draw = dice.random()
        if draw < 0.5:
            amount = None if dice.random() < 0.2 else round(dice.gauss(0, 100), 3)
            shop = dice.choice([None, "", "north", "south-west"])
            rows.append(event(name, at, key, amount, shop=shop, is_new=dice.choice([None, 0.0, 1.0])))
        elif draw < 0.95:
            value = dice.choice([0.0, 1.0, 1.0, None])
            rows.append(label(name, at + dice.choice([0, 0.25, 1, span_s / 3, 3 * span_s]), value, key))
        else:
            rows.append(mark(now))
        if dice.random() < 0.3:
            label_clock = max(label_clock, START + round((now - dice.choice([0, 1, span_s / 2])) * SECOND))
            clock = max(clock, min(label_clock, START + round((now - dice.choice([0, 2, span_s])) * SECOND)))
        clocks.append((label_clock, clock))
    rows.append(mark(now))
    clocks.append((2**63 - 1, 2**63 - 1) if seed % 2 else (label_clock, clock))
    return rows, clocks
