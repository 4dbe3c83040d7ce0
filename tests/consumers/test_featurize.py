"""The features role as a whole: equal to a reference computed another way, however the log is cut or interrupted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams import frames
from streams.errors import SnapshotError
from streams.pipeline import Feature
from tests.featurizing import (
    SECOND,
    SOURCE,
    assert_accounts,
    assert_same,
    batch,
    event,
    label,
    mark,
    mark_clocks,
    plain,
    random_rows,
    reference_run,
    run,
    small_pipeline,
)

FEATURES = (
    Feature("count_12s", "count", "*", "key", 12 * SECOND),
    Feature("sum_12s", "sum", "amount", "key", 12 * SECOND),
    Feature("mean_12s", "mean", "amount", "key", 12 * SECOND),
    Feature("mean_7s", "mean", "is_new", "key", 7 * SECOND),  # its buckets are no whole number of microseconds
    Feature("since", "elapsed", "*", "key"),
    Feature("hour", "cyclic", "hour"),
    Feature("shops_1m", "count", "shop", "key", 60 * SECOND),
    Feature("sum_1m", "sum", "amount", "key", 60 * SECOND),
    Feature("day", "cyclic", "weekday"),
    Feature("month", "cyclic", "month"),
)
STREAMS = [(seed, {"ids": 25, "keys": 3, "span_s": 12.0}) for seed in range(6)]
STREAMS += [(seed, {"ids": 400, "keys": 2, "span_s": 60.0}) for seed in range(6, 10)]


@pytest.mark.parametrize(("seed", "shape"), STREAMS)
def test_rows_equal_the_reference(seed: int, shape: dict[str, Any]) -> None:
    """Values within 1e-9, rows, order, causes and accounts exactly, over streams with everything that goes wrong."""
    missing = 0.0 if seed % 3 == 0 else None
    amend = "relearn" if seed % 2 else "metrics"
    keep_us = (5 + 10 * seed) * SECOND
    of = small_pipeline(FEATURES, raw=True, wait_us=20 * SECOND, keep_us=keep_us, missing=missing, amend=amend)
    rows, clocks = random_rows(seed, 600, **shape)
    task = FeatureTask(of, 0, SOURCE)

    out = run(task, of, rows, clocks)

    reference = reference_run(of, rows, clocks)
    assert_same(out, reference.out)
    assert_accounts(task, reference)
    assert len(out) > 200


@given(seed=st.integers(0, 1_000), cuts=st.lists(st.integers(0, 151), max_size=8), restarts=st.sets(st.integers(0, 8)))
def test_cuts_and_restarts_change_nothing(seed: int, cuts: list[int], restarts: set[int]) -> None:
    """Any split into batches, with a snapshot and a fresh task at any of them, gives the same bytes and state."""
    of = small_pipeline(FEATURES, raw=True, wait_us=20 * SECOND, keep_us=30 * SECOND, amend="relearn")
    rows, clocks = random_rows(seed, 150, ids=20, keys=3, span_s=12.0)
    whole = FeatureTask(of, 0, SOURCE)
    expected = run(whole, of, rows, clocks)
    task, out, edges = FeatureTask(of, 0, SOURCE), [], [0, *sorted(cuts), len(rows)]
    for turn, (start, stop) in enumerate(itertools.pairwise(edges)):
        if start < stop:
            out += plain(task.process(batch(of, rows[start:stop], clocks[start:stop])), first=start)
        if turn in restarts:
            state, task = task.state(), FeatureTask(of, 0, SOURCE)
            task.restore(state)

    assert repr(out) == repr(expected)
    assert task.accounts() == whole.accounts()


def test_feature_rows_are_the_event_rows_among_the_examples() -> None:
    """P.features has the events with the same number and vector, and counts its own sequence."""
    of = small_pipeline(FEATURES, raw=True)
    rows, clocks = random_rows(3, 300, ids=50, keys=3, span_s=12.0)
    task = FeatureTask(of, 5, SOURCE, examples_partition=2)
    outputs = [
        output
        for start in (0, 100, 200)
        for output in task.process(batch(of, rows[start : start + 100], clocks[start : start + 100]))
    ]

    examples, features = plain(outputs), plain(outputs, "features")
    events = [(cause, row) for cause, row in examples if row["kind"] == frames.EVENT]
    names = set(features[0][1]) - {"sequence"}
    assert repr([(c, {name: row[name] for name in names}) for c, row in features]) == repr(
        [(c, {name: row[name] for name in names}) for c, row in events]
    )
    assert [row["sequence"] for _, row in features] == list(range(len(features)))
    assert [row["sequence"] for _, row in examples] == list(range(len(examples)))
    assert [row["number"] for _, row in features] == list(range(len(features)))
    assert {row["source"] for _, row in examples} == {SOURCE}
    assert {(o.topic, o.partition) for o in outputs} == {("features", 5), ("examples", 2)}


def test_outputs_have_the_declared_schemas() -> None:
    """Readers resolve the schema by its fingerprint, so the batches must be exactly of it."""
    of = small_pipeline(FEATURES, raw=True)
    rows = [event("a", 0), label("a", 1)]
    task = FeatureTask(of, 0, SOURCE)

    features, examples = task.process(batch(of, rows, mark_clocks(rows)))

    assert features.table.to_arrow().schema == frames.features_schema(task.columns).arrow
    assert examples.table.to_arrow().schema == frames.examples_schema(task.columns).arrow


def test_marks_alone_give_no_rows() -> None:
    """A batch that causes nothing gives no output at all."""
    of = small_pipeline()
    task = FeatureTask(of, 0, SOURCE)

    assert task.process(batch(of, [mark(1)], [(5, 5)])) == []
    assert task.process(batch(of, [], [])) == []


def test_a_snapshot_that_does_not_say_what_it_is_of_is_refused() -> None:
    """With what to do; words are never guessed."""
    task = FeatureTask(small_pipeline(FEATURES), 0, SOURCE)
    state = task.state() | {"plan": np.arange(9)}

    with pytest.raises(
        SnapshotError, match=r"does not say what it is of: .*; run `millrace rebuild FILE --role features`"
    ):
        task.restore(state)


def test_a_snapshot_is_a_copy() -> None:
    """The state may be written by another thread while the task goes on."""
    of = small_pipeline(FEATURES)
    rows, clocks = random_rows(1, 200, ids=50, keys=3, span_s=12.0)
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, rows[:100], clocks[:100])
    state = task.state()
    before = {name: array.copy() for name, array in state.items()}

    run(task, of, rows[100:], clocks[100:])

    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_growth_changes_nothing() -> None:
    """Thousands of events, keys, early labels and long ids at once: every table grows several times in one call."""
    of = small_pipeline(FEATURES[:3], wait_us=1_000 * SECOND)
    rows = [event(f"{'x' * (n % 50)}{n}", n * 0.01, f"key-{n % 3_000}") for n in range(6_000)]
    rows += [label(f"early-{n}", 61 + n * 0.01) for n in range(3_000)]
    rows += [label(row["id"], 95, key=row["key"]) for row in rows[:6_000:2]]
    rows.append(mark(1_200))
    task, reference = FeatureTask(of, 0, SOURCE), reference_run(of, rows)

    assert_same(run(task, of, rows), reference.out)
    assert_accounts(task, reference)
