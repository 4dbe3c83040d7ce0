"""Features of labels: each label counts from its own time on, plus a delay, and never for an event before that."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.featurize import FeatureTask
from streams.pipeline import Feature
from tests.aggregate_reference import Row
from tests.featurizing import SECOND, SOURCE, START, assert_same, event, label, mark, reference_run, run, small_pipeline

MINUTE = 60 * SECOND


def rate(delay_s: float = 0, window_us: int = MINUTE) -> Feature:
    """The share of true labels."""
    return Feature("late", "rate", "label", "key", window_us, is_label=True, delay_us=round(delay_s * SECOND))


def values(feature: Feature, *rows: Row, **changes: Any) -> list[float]:
    """One feature's value for each event, in the order of the log."""
    of = small_pipeline((feature,), **changes)
    out = run(FeatureTask(of, 0, SOURCE), of, list(rows))
    return [row["vector"][0] for _, row in out if row["kind"] == 0]


def test_a_label_counts_from_its_own_time_on() -> None:
    """Events before it, also those that the log has later, know nothing of it."""
    rows = [event("a", 0), event("b", 5), label("a", 10), event("c", 9.5), event("d", 10), event("e", 11)]

    found = values(rate(), *rows)

    assert [math.isnan(value) for value in found] == [True, True, True, False, False]
    assert found[3:] == [1.0, 1.0]


def test_a_label_leaves_with_its_window() -> None:
    """By the label's time, not the event's."""
    rows = [event("a", 0), label("a", 50), event("b", 100), event("c", 104.9), event("d", 130)]

    found = values(rate(), *rows)

    assert found[1] == 1.0
    assert found[2] == 1.0
    assert math.isnan(found[3])


def test_a_delay_holds_labels_back() -> None:
    """As where fraud is known a week later: a label counts from its time + delay on."""
    rows = [event("a", 0), label("a", 5), event("b", 24), event("c", 25), event("d", 26)]

    found = values(rate(delay_s=20), *rows)

    assert [math.isnan(value) for value in found] == [True, True, False, False]
    assert found[2:] == [1.0, 1.0]


def test_a_label_that_never_came_counts_at_its_deadline_if_it_has_a_value() -> None:
    """`missing = "0"` is a label like any other; `missing = "drop"` is none."""
    rows = [event("a", 0), mark(100), event("b", 59), event("c", 60), event("d", 61)]

    counted, dropped = (values(rate(), *rows, missing=missing) for missing in (0.0, None))

    assert [math.isnan(value) for value in counted] == [True, True, False, False]
    assert counted[2:] == [0.0, 0.0]
    assert all(math.isnan(value) for value in dropped)


def test_labels_of_other_keys_and_of_none_do_not_count() -> None:
    """Each entity has its own."""
    rows = [event("a", 0), event("x", 0, key="other"), event("y", 0, key=None)]
    rows += [label("x", 1, 1.0, key="other"), label("y", 1, 1.0, key=None), label("a", 2, 0.0), event("b", 3)]

    assert values(rate(), *rows)[3:] == [0.0]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "label", "mark"]),
        st.integers(-15_000_000, 20_000_000),  # from the newest row's time, us
        st.integers(0, 3),  # which key, or how many events back
        st.integers(0, 8),
    ),
    min_size=1,
    max_size=60,
)


def rows_of(steps: list[tuple[str, int, int, int]]) -> list[Row]:
    """Events of a few keys, labels of events before and after, marks."""
    rows, now, events = [], START, []
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
            time_us = now - 2_000_000
        row["time"] = time_us
        now = max(now, time_us)
        rows.append(row)
    return rows


EVERYTHING = (
    Feature("rate", "rate", "label", "key", MINUTE, is_label=True),
    Feature("n", "count", "label", "key", MINUTE, is_label=True),
    Feature("n_later", "count", "label", "key", MINUTE, is_label=True, delay_us=7 * SECOND),
    Feature("std_later", "std", "label", "key", 600 * SECOND, is_label=True, delay_us=7 * SECOND),
    Feature("max", "max", "label", "key", 600 * SECOND, is_label=True),
    Feature("smooth", "target", "label", "key", MINUTE, is_label=True, prior=0.25, weight=3.0),
    Feature("smooth_later", "target", "label", "key", 600 * SECOND, is_label=True, delay_us=7 * SECOND),
    Feature("events", "count", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", MINUTE),
)


@given(steps=STEPS, missing=st.sampled_from([None, 0.0]))
@settings(deadline=None)
def test_label_features_equal_brute_force(steps: list[tuple[str, int, int, int]], missing: float | None) -> None:
    """Whatever comes late, early, twice or never."""
    of, rows = small_pipeline(EVERYTHING, missing=missing, wait_us=40 * SECOND), rows_of(steps)

    assert_same(run(FeatureTask(of, 0, SOURCE), of, rows), reference_run(of, rows).out)


@given(steps=STEPS, cuts=st.sets(st.integers(1, 59), max_size=4))
@settings(deadline=None)
def test_cut_and_restored_anywhere_the_vectors_are_the_same_bits(
    steps: list[tuple[str, int, int, int]], cuts: set[int]
) -> None:
    """Labels that are held lie in the snapshot."""
    of, rows = small_pipeline(EVERYTHING, missing=0.0, wait_us=40 * SECOND), rows_of(steps)
    clocks = [(row["time"], row["time"]) if row["kind"] == "mark" else (-(2**63), -(2**63)) for row in rows]
    high = (-(2**63), -(2**63))
    clocks = [high := max(high, clock) for clock in clocks]
    whole = run(FeatureTask(of, 0, SOURCE), of, rows, clocks)
    task, parts, start = FeatureTask(of, 0, SOURCE), [], 0
    for stop in [*sorted(cut for cut in cuts if cut < len(rows)), len(rows)]:
        parts += run(task, of, rows[start:stop], clocks[start:stop])
        again = FeatureTask(of, 0, SOURCE)
        again.restore(task.state())
        task, start = again, stop

    assert [np.array(r["vector"]).tobytes() for _, r in parts] == [np.array(r["vector"]).tobytes() for _, r in whole]
    assert task.unaccounted_rows() == 0


def test_many_labels_are_held_and_released_at_once() -> None:
    """More than the tables have room for at first."""
    of = small_pipeline((rate(delay_s=1_000), Feature("n", "count", "label", "key", 7_200 * SECOND, is_label=True)))
    rows = [event(f"e{n}", n / 100, f"k {n % 50}") for n in range(3_000)]
    rows += [label(f"e{n}", 30 + n / 100, float(n % 3 == 0), f"k {n % 50}") for n in range(3_000)]
    rows += [event(f"f{n}", 2_000, f"k {n}") for n in range(50)]

    assert_same(run(FeatureTask(of, 0, SOURCE), of, rows), reference_run(of, rows).out)


def test_a_clock_that_goes_back_within_a_batch_leaves_room_for_all_it_has_settled() -> None:
    """A new source takes the clocks back to the beginning: what was due before it still has to have room."""
    of = small_pipeline((rate(),))
    rows = [*(event(f"e{n}", n / 100) for n in range(500)), mark(10_000), mark(0)]
    clocks = [(-(2**63), -(2**63)), (rows[-2]["time"], rows[-2]["time"]), (-(2**63), -(2**63))]
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, rows[:500], [clocks[0]] * 500)

    out = run(task, of, rows[500:], clocks[1:])

    assert len(out) == 500
    assert task.settled_missing() == 500
