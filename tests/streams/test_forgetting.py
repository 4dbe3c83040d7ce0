"""Bounded entities: against plain Python that keeps all rows, in any order, cut and restored anywhere."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams.accounts import EVICTED, EXPIRED, GONE_LABELS
from streams.pipeline import Bound, Feature, Pipeline
from streams.windows import HELD
from tests.feature_reference import Reference, Row
from tests.featurizing import (
    SECOND,
    SOURCE,
    START,
    Clocks,
    assert_same,
    event,
    label,
    mark,
    reference_run,
    run,
    small_pipeline,
)

MINUTE = 60 * SECOND
FEATURES = (
    Feature("n", "count", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", 7 * SECOND),
    Feature("std", "std", "amount", "key", MINUTE),
    Feature("amounts", "distinct", "amount", "key", MINUTE, precision=4),
    Feature("n_exactly", "count", "*", "key", 30 * SECOND, is_exact=True),
    Feature("mean_exactly", "mean", "amount", "key", 13 * SECOND, is_exact=True),
    Feature("last", "last", "amount", "key"),
    Feature("lag", "lag", "amount", "key", k=2),
    Feature("ewm", "ewm_mean", "amount", "key", half_life_us=10 * SECOND),
    Feature("since", "elapsed", "*", "key"),
    Feature("rate", "rate", "label", "key", 600 * SECOND, is_label=True),
    Feature("n_later", "count", "label", "key", 600 * SECOND, is_label=True, delay_us=7 * SECOND),
)
BOUNDS = st.builds(
    Bound,
    st.just("key"),
    st.one_of(st.none(), st.sampled_from([0.5, 5, 20, 90]).map(lambda s: round(s * SECOND))),
    st.one_of(st.none(), st.integers(1, 8)),  # of two partitions
)
Step = tuple[str, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "event", "label", "mark"]),
        st.integers(-15_000_000, 20_000_000),  # from the newest row's time, us
        st.integers(0, 6),  # which key
        st.integers(0, 8),  # how many events back a label's is, how far a mark is behind
    ),
    min_size=1,
    max_size=80,
)


def bounded(bound: Bound, features: tuple[Feature, ...] = FEATURES) -> Pipeline:
    """Labels wait 40 s, and those that do not come count as 0."""
    of = small_pipeline(features, missing=0.0, wait_us=40 * SECOND)
    return msgspec.structs.replace(of, bounds=(bound,))


def rows_of(steps: list[Step]) -> list[Row]:
    """Events of a few keys in any order of time, labels of events before, marks a little behind."""
    rows: list[Row] = []
    events: list[Row] = []
    now = START
    for number, (kind, step, which, other) in enumerate(steps):
        time_us = now + step
        if kind == "event":
            row = event(str(number), 0, f"k {which}" if which else None, amount=other / 4)
            events.append(row)
        elif kind == "label" and events:
            of = events[-1 - other % len(events)]
            row = label(of["id"], 0, float(which % 2), key=of["key"])
        else:
            row = mark(0)
            time_us = now - other * SECOND
        row["time"] = time_us
        now = max(now, time_us)
        rows.append(row)
    return rows


def settled(of: Pipeline, task: FeatureTask, reference: Reference) -> dict[str, int]:
    """Let rows pass until all memory is free that can be, and say what was forgotten and what is held."""
    now = reference.idle_clock
    idle = [{"kind": "mark", "id": None, "key": None, "time": now}] * 80
    run(task, of, idle, [reference.clocks] * len(idle))
    state = task.state()
    counters = state["counters"]
    return {
        "expired": int(counters[EXPIRED]),
        "evicted": int(counters[EVICTED]),
        "gone labels": int(counters[GONE_LABELS]),
        "held": int(state["windows.used"][HELD]),
    }


@given(steps=STEPS, bound=BOUNDS)
@settings(deadline=None)
def test_bounded_entities_equal_brute_force(steps: list[Step], bound: Bound) -> None:
    """Every vector, and what was forgotten, in any order of times."""
    of, rows = bounded(bound), rows_of(steps)
    task, reference = FeatureTask(of, 0, SOURCE), reference_run(of, rows)

    assert_same(run(task, of, rows), reference.out)
    told = {name: reference.tally.get(name, 0) for name in ("expired", "evicted", "gone labels")}
    if of.bounds[0].ttl_us or of.bounds[0].most:
        assert settled(of, task, reference) == {**told, "held": len(reference.entities)}


@given(steps=STEPS, bound=BOUNDS, cuts=st.sets(st.integers(1, 79), max_size=5))
@settings(deadline=None)
def test_cut_and_restored_anywhere_the_vectors_and_counts_are_the_same(
    steps: list[Step], bound: Bound, cuts: set[int]
) -> None:
    """List, free heads and clock lie in the snapshot."""
    of, rows = bounded(bound), rows_of(steps)
    clocks = clocks_of(rows)
    uncut = FeatureTask(of, 0, SOURCE)
    whole = run(uncut, of, rows, clocks)
    task, parts = FeatureTask(of, 0, SOURCE), []
    for start, stop in pairwise([0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]):
        parts += run(task, of, rows[start:stop], clocks[start:stop])
        again = FeatureTask(of, 0, SOURCE)
        again.restore(task.state())
        task = again

    assert [np.array(r["vector"]).tobytes() for _, r in parts] == [np.array(r["vector"]).tobytes() for _, r in whole]
    assert task.state()["counters"].tolist() == uncut.state()["counters"].tolist()
    assert task.state()["windows.used"].tolist() == uncut.state()["windows.used"].tolist()


def clocks_of(rows: list[Row]) -> Clocks:
    """The clocks of whole streams, which marks move, for streams that are cut."""
    high, clocks = -(2**63), []
    for row in rows:
        high = max(high, row["time"]) if row["kind"] == "mark" else high
        clocks.append((high, high))
    return clocks
