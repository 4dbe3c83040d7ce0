"""Pipelines without labels: events settle at once, and models that need no labels learn each of them once."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.chain_tasks import LastTask
from consumers.featurize import FeatureTask
from consumers.learn import LearnTask
from consumers.score_records import ScoresRecord
from models.learner import make_learner
from streams.errors import ModelError
from streams.frames import EVENT, LABEL, MISSING, NO_OUTCOME, SET, Batch, Column, build, examples_schema
from streams.pipeline import Feature, Model, Pipeline, Task
from streams.sources import SourceMemory
from tests.aggregate_reference import Row
from tests.chaining import real_stages
from tests.featurizing import SECOND, SOURCE, START, event, mark, run, small_pipeline
from tests.rows import claim_of, control

MEAN = Feature("mean", "mean", "amount", "key", 60 * SECOND)
BY_SHOP = Feature("in_shop", "count", "*", "shop", 60 * SECOND)


def unlabelled(*features: Feature, keep_s: int = 60) -> Pipeline:
    return small_pipeline(
        features, raw=True, topic="events", id=(), key=None, value=(), wait_us=0, keep_us=keep_s * SECOND,
        is_declared=False,
    )  # fmt: skip


def rows_of(count: int) -> list[Row]:
    """Events of three keys, a second apart, with a mark behind every fourth."""
    made: list[Row] = []
    for n in range(count):
        made.append(event(f"e{n}", n, key=f"k{n % 3}", amount=float(n), shop="ab"[n % 2]))
        made += [mark(n)] if n % 4 == 3 else []
    return made


def same(rows: list[tuple[int, Row]]) -> list[str]:
    return [str((cause, {name: np.round(value, 12) if name == "vector" else value for name, value in row.items()}))
            for cause, row in rows]  # fmt: skip


# Features


def test_each_event_is_followed_at_once_by_a_label_row_that_is_missing() -> None:
    """With the event's number, time, names and vector, and without a label."""
    of = unlabelled(MEAN)
    task = FeatureTask(of, 0, SOURCE)
    found = [row for _, row in run(task, of, rows_of(10))]
    events, labels = found[::2], found[1::2]

    assert [row["kind"] for row in found] == [EVENT, LABEL] * 10
    assert [row["outcome"] for row in found] == [NO_OUTCOME, MISSING] * 10
    for one, its in zip(events, labels, strict=True):
        for name in ("number", "time", "id", "key", "source", "produced"):
            assert one[name] == its[name]
        np.testing.assert_array_equal(one["vector"], its["vector"])
        assert math.isnan(its["label"])
    assert events[4]["vector"][-1] == pytest.approx(1.0)  # of the key's events of 1 s so far
    assert task.pending_events() == 0
    assert task.settled_missing() == 10
    assert task.accounts()["events"] == (10, {"settled": 10, "pending": 0, "duplicate": 0})


def test_a_second_event_of_an_id_is_dropped_as_long_as_the_id_is_kept() -> None:
    of = unlabelled(keep_s=20)
    task = FeatureTask(of, 0, SOURCE)
    rows = [event("a", 0), event("a", 1), mark(20), event("a", 5), mark(21), event("a", 22)]
    found = run(task, of, rows)

    assert [(row["id"], row["time"]) for _, row in found] == [
        (name, START + at * SECOND) for name, at in (("a", 0), ("a", 0), ("a", 22), ("a", 22))
    ]
    assert task.accounts()["events"] == (4, {"settled": 2, "pending": 0, "duplicate": 2})


def test_it_is_the_same_wherever_it_is_cut_and_taken_up() -> None:
    of = unlabelled(MEAN)
    rows = rows_of(40)
    whole = run(FeatureTask(of, 0, SOURCE), of, rows)
    found, task = [], FeatureTask(of, 0, SOURCE)
    for start, stop in itertools.pairwise((0, 1, 2, 17, 18, len(rows))):
        clocks = _clocks(rows)[start:stop]
        found += [(start + cause, row) for cause, row in run(task, of, rows[start:stop], clocks)]
        state, task = task.state(), FeatureTask(of, 0, SOURCE)
        task.restore(state)

    assert same(found) == same(whole)


def _clocks(rows: list[Row]) -> list[tuple[int, int]]:
    now, clocks = -(2**63), []
    for row in rows:
        now = max(now, row["time"]) if row["kind"] == "mark" else now
        clocks.append((now, now))
    return clocks


@pytest.mark.parametrize("restores", [False, True])
def test_a_chain_of_stages_numbers_events_and_settles_them_at_once_too(restores: bool) -> None:
    """The label row follows its event through every stage, and no vector waits."""
    of = msgspec.structs.replace(unlabelled(MEAN, BY_SHOP), partitions=1)
    stages = [partitions[0] for partitions in real_stages(of, restores=restores)]
    rows, clocks = rows_of(12), _clocks(rows_of(12))
    for stage in stages:
        made = [row for _, _, row in stage.process(rows, clocks)]
        rows, clocks = made, [(-(2**63), -(2**63))] * len(made)
    last = stages[-1].task
    assert isinstance(last, LastTask)

    assert [(row["kind"], row["number"]) for row in rows] == [(kind, n) for n in range(12) for kind in (EVENT, LABEL)]
    for one, its in zip(rows[::2], rows[1::2], strict=True):
        np.testing.assert_array_equal(one["vector"], its["vector"])
    assert [row["vector"][-1] for row in rows[::2]] == [n // 2 for n in range(12)]
    assert last.pending_events() == last.unknown_rows() == 0


def test_without_labels_the_events_marks_are_the_clock_of_what_is_due() -> None:
    """There are no sources of labels to wait for (PROTOCOL 12)."""
    known = control()
    sources = [
        known.claim(claim_of(stream="ingest", topic_id="e", partition=p, kind="events", siblings=2, is_gapless=False))
        for p in range(2)
    ]
    memory = SourceMemory(known, is_log=True, has_labels=False)
    for source, time in ((sources[0], 4), (sources[1], 9)):
        rows = build(examples_schema(()), {"kind": np.array([2], np.int8), "source": np.array([source], np.int32),
                                           "time": np.array([time])}, 1)  # fmt: skip
        memory.admit(rows)

    assert (memory.label_clock, memory.clock) == (4, 4)


# Learning

COLUMNS = (Column("x", False),)


def examples(label: list[float]) -> Any:
    """Events of one source, each followed by its label row; NaN stands for one that is missing."""
    size = len(label)
    number = np.repeat(np.arange(size), 2)
    labels, is_label = np.repeat(label, 2), np.tile([False, True], size)
    x = np.sin(number.astype(float))[:, None] + np.where(np.repeat(np.array(label) == 1.0, 2), 8.0, 0.0)[:, None]
    columns = {
        "kind": np.where(is_label, LABEL, EVENT).astype(np.int8),
        "source": np.full(2 * size, 5, np.int32),
        "number": number,
        "time": number * SECOND,
        "label": np.where(is_label, labels, np.nan),
        "outcome": np.where(~is_label, NO_OUTCOME, np.where(np.isnan(labels), MISSING, SET)).astype(np.int8),
        "vector": x,
    }
    return build(examples_schema(COLUMNS), columns, 2 * size)


def learned(kind: str, task: Task, label: list[float], cuts: int = 1) -> tuple[LearnTask, list[Any]]:
    model = Model("m", kind, {"window_size": 50, "scale": "minmax"} if "HalfSpace" in kind else {})
    made = LearnTask("m", make_learner(model, COLUMNS, b"k" * 32, task), COLUMNS, task=task)
    table, blocks = examples(label), []
    clock = np.zeros(table.num_rows, np.int64)
    for part in np.array_split(np.arange(table.num_rows), cuts):
        for out in made.process(Batch(table.take(part), clock[part], clock[part])):
            records = [msgspec.json.decode(value, type=ScoresRecord) for value in out.values.unpack()]
            blocks += [block for record in records if record.order == "number" for block in record.blocks]
    return made, blocks


def test_every_event_is_learned_once_and_alerts_are_counted_where_no_label_ever_comes() -> None:
    task = Task("anomaly", alert=0.1)
    made, blocks = learned("river:anomaly.HalfSpaceTrees", task, [math.nan] * 250)
    figures = made.scores.since_start()._asdict()

    assert made.examples_seen == 250
    assert made.board.pending() == 0
    assert (made.board.count("scored"), made.board.count("unlabelled")) == (0, 250)
    assert [block.n for block in blocks] == [0, 0]
    assert figures["labels"] == 250
    assert 0.02 < figures["alert_rate"] < 0.3
    assert math.isnan(figures["rank_loss"])


def test_labels_of_anomalies_are_scored_and_what_has_none_is_learned_all_the_same() -> None:
    """The losses of a block are those of its labelled events; rows cut otherwise give the same."""
    label = [1.0 if n % 25 == 24 else (math.nan if n % 5 == 1 else 0.0) for n in range(300)]
    made, blocks = learned("river:anomaly.HalfSpaceTrees", Task("anomaly"), label)
    again, _ = learned("river:anomaly.HalfSpaceTrees", Task("anomaly"), label, cuts=7)
    known = sum(not math.isnan(value) for value in label)
    losses = np.concatenate([block.values() for block in blocks])

    assert made.examples_seen == 300
    assert (made.board.count("scored"), made.board.count("unlabelled")) == (known, 300 - known)
    assert [block.n for block in blocks] == [80 - 19, 80, 80]  # none before the first anomaly, the 25th event
    assert np.nanmean(losses) == pytest.approx(made.scores.since_start().loss, abs=1e-6)
    assert made.scores.since_start().loss < 0.5  # what a constant score comes to; at first it says 0 of everything
    assert again.scores.since_start() == made.scores.since_start()
    assert {name: value.tobytes() for name, value in again.state().items() if "sealed" not in name} == {
        name: value.tobytes() for name, value in made.state().items() if "sealed" not in name
    }


def test_clusters_have_a_loss_for_every_event() -> None:
    made, blocks = learned("prior", Task("clustering"), [math.nan] * 200)

    assert made.examples_seen == 200
    assert [block.n for block in blocks] == [100, 100]
    assert made.scores.since_start().loss == pytest.approx(1.0, abs=0.1)
    assert (made.board.count("scored"), made.board.count("unlabelled")) == (200, 0)


def test_a_snapshot_goes_on_and_one_of_another_threshold_is_refused() -> None:
    task = Task("anomaly", threshold=0.6)
    made, _ = learned("prior", task, [0.0, 1.0, 0.0])
    other = LearnTask("m", make_learner(Model("m", "prior", {}), COLUMNS, task=task), COLUMNS, task=task)
    other.restore(made.state())
    changed = Task("anomaly", threshold=0.7)
    third = LearnTask("m", make_learner(Model("m", "prior", {}), COLUMNS, task=changed), COLUMNS, task=changed)

    assert other.scores.since_start() == made.scores.since_start()
    with pytest.raises(ModelError, match=r"another task \(anomaly, threshold 0.6; now anomaly, threshold 0.7\)"):
        third.restore(made.state())
