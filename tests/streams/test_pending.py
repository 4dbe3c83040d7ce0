"""Events that wait, by the million: their tables in files, and a limit to how many there may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consumers.featurize import FeatureTask
from streams.pipeline import Feature, Pipeline
from streams.scratch import Scratch
from tests.feature_reference import Row
from tests.featurizing import (
    SOURCE,
    Clocks,
    assert_accounts,
    assert_same,
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
