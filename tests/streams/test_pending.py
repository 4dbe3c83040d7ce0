"""Events that wait, by the million: their tables in files, and a limit to how many there may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consumers.featurize import FeatureTask
from streams.accounts import PENDING_EVICTED
from streams.deadlines import SLOTS
from streams.frames import MISSING, SET
from streams.metrics import RoleMetrics
from streams.pipeline import Feature, Pipeline
from streams.scratch import Scratch
from tests.aggregate_reference import Row
from tests.featurizing import (
    SOURCE,
    Clocks,
    assert_accounts,
    assert_same,
    event,
    label,
    random_rows,
    reference_run,
    run,
    small_pipeline,
)

WAIT_US = 300_000_000
MEAN = Feature("mean", "mean", "amount", "key", 12_000_000)


def in_files(of: Pipeline, directory: Path) -> FeatureTask:
    """A task that keeps in a file whatever can lie in one."""
    task = FeatureTask(of, 0, SOURCE)
    task._scratch = Scratch(directory, smallest_bytes=1)
    return task


def long_stream(seed: int) -> tuple[list[Row], Clocks]:
    """More events wait than the first tables hold, so that all of them grow several times."""
    return random_rows(seed, 1_500, ids=2_000, keys=40, span_s=6)


@pytest.mark.parametrize("seed", range(3))
def test_tables_in_files_change_no_row(seed: int, tmp_path: Path) -> None:
    """Whether cut anywhere, and snapshots of either kind taken up by either kind of task."""
    of = small_pipeline((MEAN,), raw=True, wait_us=WAIT_US)
    rows, clocks = long_stream(seed)
    reference = reference_run(of, rows, clocks)
    task = in_files(of, tmp_path)

    out = run(task, of, rows[:700], clocks[:700], cuts=(90, 333))
    assert task.pending_events() > 150
    middle = FeatureTask(of, 0, SOURCE)
    middle.restore(task.state())
    out += [(700 + cause, row) for cause, row in run(middle, of, rows[700:1_100], clocks[700:1_100])]
    last = in_files(of, tmp_path)
    last.restore(middle.state())
    out += [(1_100 + cause, row) for cause, row in run(last, of, rows[1_100:], clocks[1_100:], cuts=(1, 200))]

    assert_same(out, reference.out)
    assert_accounts(last, reference)


LATE = Feature("late", "rate", "label", "key", 600_000_000, is_label=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("missing", [None, 0.0])
def test_where_too_many_wait_the_first_due_are_settled_as_missing(seed: int, missing: float | None) -> None:
    """After each row, whatever came in which order, and however batches are cut; all of it is counted."""
    of = small_pipeline((MEAN, LATE), wait_us=WAIT_US, missing=missing, most_pending=37)
    rows, clocks = long_stream(seed)
    reference = reference_run(of, rows, clocks)
    task = FeatureTask(of, 0, SOURCE)

    out = run(task, of, rows, clocks, cuts=(5, 200, 201, 1_000))

    assert_same(out, reference.out)
    assert_accounts(task, reference)
    evicted = reference.tally["evicted events"]
    assert evicted > 300
    assert told_evicted(task) == evicted
    assert task.pending_events() <= 37


def test_a_lower_cap_holds_from_the_next_row_on() -> None:
    """All that is too much leaves at once, in the order of deadlines; a batch has room for it."""
    rows: list[Row] = [event(f"event-{n:04}", (n * 7) % 500) for n in range(500)]
    before = FeatureTask(small_pipeline(wait_us=WAIT_US, raw=True), 0, SOURCE)
    run(before, small_pipeline(wait_us=WAIT_US, raw=True), rows)
    capped = small_pipeline(wait_us=WAIT_US, raw=True, most_pending=10)
    after = FeatureTask(capped, 0, SOURCE)
    after.restore(before.state())

    out = [row for _, row in run(after, capped, [label("event-0000", 1), event("new", 600)])]

    assert [row["kind"] for row in out] == [*[1] * 490, 0, 1]
    assert (out[0]["id"], out[0]["outcome"]) == ("event-0000", SET)
    evicted = out[1:490] + out[491:]
    assert [row["time"] for row in evicted] == sorted(row["time"] for row in evicted)
    assert evicted[0]["id"] == "event-0143"  # 143 * 7 = 1,001, a second behind event-0000, which had its label
    assert {row["outcome"] for row in evicted} == {MISSING}
    assert after.pending_events() == 10


def test_a_label_of_an_event_that_made_way_is_too_late() -> None:
    """It was settled, and is so once only."""
    of = small_pipeline(wait_us=WAIT_US, raw=True, most_pending=1)
    task = FeatureTask(of, 0, SOURCE)

    out = run(task, of, [event("a", 0), event("b", 1), label("a", 2), event("a", 3), label("b", 4)])

    assert [(row["kind"], row["id"], row["outcome"]) for _, row in out] == [
        (0, "a", -1), (0, "b", -1), (1, "a", MISSING), (1, "b", SET),
    ]  # fmt: skip
    assert task.accounts()["labels"][1]["too_late"] == 1
    assert task.accounts()["events"][1]["duplicate"] == 1


def test_a_snapshot_from_before_there_was_a_cap_goes_on() -> None:
    """It has fewer counters; what it does not count begins at 0."""
    of = small_pipeline(wait_us=WAIT_US, raw=True, most_pending=1)
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, [event("a", 0)])
    state = task.state()
    state["counters"] = state["counters"][:PENDING_EVICTED]
    later = FeatureTask(of, 0, SOURCE)
    later.restore(state)

    run(later, of, [event("b", 1)])

    assert later.state()["counters"][PENDING_EVICTED] == 1


def told_evicted(task: FeatureTask) -> float:
    """What /metrics says of events that made way."""
    metrics = RoleMetrics("features", "p")
    task._noted["pending_evicted"] = 0
    task.measure(metrics)
    labels = {"pipeline": "p", "role": "features", "candidate": "", "what": "pending_evicted"}
    return metrics.registry.get_sample_value("millrace_incidents_total", labels) or 0.0


def test_a_snapshot_stays_as_it_was_taken_while_the_stream_goes_on(tmp_path: Path) -> None:
    """It is written in another thread: nothing of it may be what later rows write to."""
    of = small_pipeline(raw=True, wait_us=WAIT_US)
    rows, clocks = long_stream(4)
    task = in_files(of, tmp_path)
    run(task, of, rows[:700], clocks[:700])
    state = task.state()
    before = {name: array.tobytes() for name, array in state.items()}

    run(task, of, rows[700:], clocks[700:])

    assert {name: array.tobytes() for name, array in state.items()} == before
    assert any(array.tobytes() != before[name] for name, array in task.state().items())
    assert np.array_equal(state["pending.rows"], np.frombuffer(before["pending.rows"], np.int64).reshape(-1, 7))


def test_slots_are_used_again_once_a_snapshot_is_written(tmp_path: Path) -> None:
    """While one is read, what comes is written behind it; afterwards memory is what waiting events need."""
    of = small_pipeline(raw=True, wait_us=WAIT_US)
    task = in_files(of, tmp_path)
    rows: list[Row] = [row for n in range(40) for row in (event(f"e{n}", n), label(f"e{n}", n))]
    run(task, of, rows)
    slots = task._stage.pending.waiting.sizes[SLOTS]
    state = task.state()

    run(task, of, [row for n in range(40, 240) for row in (event(f"e{n}", n), label(f"e{n}", n))])
    grown = task._stage.pending.waiting.sizes[SLOTS]
    del state
    run(task, of, [row for n in range(240, 440) for row in (event(f"e{n}", n), label(f"e{n}", n))])

    assert slots == 1
    assert grown == 201
    assert task._stage.pending.waiting.sizes[SLOTS] == 201
    assert task.accounts()["events"] == (440, {"settled": 440, "pending": 0, "duplicate": 0})
