"""What is archived of the examples that the features role writes: every label row, with the time of its own event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consumers.archiving import ArchiveTask
from consumers.featurize import FeatureTask
from streams.frames import BEGINNING, EVENT, LABEL, OUTCOME_NAMES, Batch
from streams.pipeline import Feature, Pipeline
from tests.archiving import SMALL_ROWS, Row, make_small, read, tidied
from tests.featurizing import SECOND, SOURCE, batch, plain, random_rows, small_pipeline

FEATURES = (Feature("count_1m", "count", "*", "key", 60 * SECOND), Feature("since", "elapsed", "*", "key"))
STEP_ROWS = 25


def examples(of: Pipeline, seed: int) -> tuple[list[Batch], list[Row]]:
    """P.examples of a hostile stream, as batches and as rows; after each step comes a mark with the role's clock."""
    rows, clocks = random_rows(seed, 1_500, ids=150, keys=5, span_s=30.0)
    task, clock_us = FeatureTask(of, 0, SOURCE), BEGINNING
    batches, found = [], list[Row]()
    for start in range(0, len(rows), STEP_ROWS):
        stop = start + STEP_ROWS
        outputs = task.process(batch(of, rows[start:stop], clocks[start:stop]))
        found += [row for _, row in plain(outputs)]
        for table in [one.table.take(one.picked) for one in outputs if one.topic == "examples"]:
            clock = np.full(table.num_rows, clock_us)
            batches.append(Batch(table, clock, clock))
        clock_us = clocks[min(stop, len(rows)) - 1][1]
    return batches, found


@pytest.mark.parametrize("amend", ["metrics", "relearn"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_label_row_of_a_hostile_stream_has_the_time_of_its_event(
    seed: int, amend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late events, labels at the last moment and corrections at the end of `keep` among them; memory is given back."""
    make_small(monkeypatch)
    of = small_pipeline(FEATURES, raw=True, wait_us=60 * SECOND, keep_us=400 * SECOND, amend=amend)
    batches, rows = examples(of, seed)
    task = ArchiveTask(of, tmp_path)
    for one in batches:
        task.process(one)
    tidied(task)
    events = {row["number"]: row for row in rows if row["kind"] == EVENT}
    labels = [row for row in rows if row["kind"] == LABEL]
    archived = read(tmp_path)

    assert len(archived) == task.rows > len(labels) - SMALL_ROWS
    assert {row["outcome"] for row in archived} == set(OUTCOME_NAMES)
    for row, wanted in zip(archived, labels, strict=False):
        assert (row["number"], row["outcome"]) == (wanted["number"], OUTCOME_NAMES[wanted["outcome"]])
        assert row["time"] == events[wanted["number"]]["time"]
        assert (row["id"], row["label_time"]) == (wanted["id"], wanted["time"])
        np.testing.assert_array_equal(np.array(row["vector"], np.float64), wanted["vector"])
    assert task.archiver.events < len(events) / 2
