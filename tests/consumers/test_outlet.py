"""Rows that no answer waits for are held a moment and sent together; marks, snapshots and full frames do not wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.outlet import MOST_HELD
from consumers.worker import Worker
from streams import frames
from streams.features import columns
from streams.frames import MARK
from streams.records import Records
from tests.memory_kafka import MemoryOutbox
from tests.workers import START_S, Office, inbox

LOG0 = ("p.log", 0)
HOLD_S = 0.02


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """A broker with an empty log."""
    made = Office(tmp_path)
    made.broker.counts["p.examples"] = 2
    return made


@pytest.fixture
def worker(office: Office) -> Worker:
    """A features worker of one partition."""
    made = office.worker("features", [LOG0], hold_s=HOLD_S)
    made.step(0)
    office.now += 0.01  # a mark has just been due
    return made


def take(office: Office, worker: Worker, first: int, rows: int = 1) -> None:
    """Let the worker take some events."""
    source, time_us = office.source(), int(office.now * 1e6)
    made = [
        {"kind": "event", "source": source, "sequence": i, "time": time_us, "id": f"e{i}", "key": "k"}
        for i in range(first, first + rows)
    ]
    office.log(0, made)
    worker.step(0)
    worker._outbox.flush()


def frames_of(office: Office, kind: str) -> list[list[int]]:
    """The numbers of the rows in each frame of an inner topic, marks left out."""
    of = columns(office.pipeline)
    schema = frames.features_schema(of) if kind == "features" else frames.examples_schema(of)
    found = []
    for record in office.broker.logs[f"p.{kind}", 0]:
        rows = frames.decode(record.value_ or b"", schema)
        is_row = rows.numbers("kind") != MARK
        found.append(rows.numbers("sequence")[is_row].tolist())
    return [rows for rows in found if rows]


def test_examples_of_several_steps_leave_in_one_frame(office: Office, worker: Worker) -> None:
    take(office, worker, 0)
    take(office, worker, 1)
    assert frames_of(office, "features") == [[0], [1]]
    assert frames_of(office, "examples") == []

    office.now += 1.5 * HOLD_S
    worker.step(0)
    worker._outbox.flush()

    assert frames_of(office, "examples") == [[0, 1]]

    take(office, worker, 2)  # the clock begins anew
    assert frames_of(office, "examples") == [[0, 1]]


def test_an_idle_worker_is_back_when_held_rows_are_due(
    office: Office, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def poll(wanted: object, timeout_s: float) -> list[Records]:
        waited.append(timeout_s)
        return []

    take(office, worker, 0)
    monkeypatch.setattr(inbox(worker), "poll", poll)
    worker.step(0.05)
    office.now += 1.5 * HOLD_S
    for _ in range(2):
        worker.step(0.05)
    assert waited == [HOLD_S, HOLD_S, 0.05]


def test_a_clock_that_is_set_back_holds_nothing(office: Office, worker: Worker) -> None:
    take(office, worker, 0)
    office.now -= 3_600
    worker.step(0)
    worker._outbox.flush()
    assert frames_of(office, "examples") == [[0]]


def test_a_full_frame_does_not_wait(office: Office, worker: Worker) -> None:
    take(office, worker, 0, MOST_HELD - 1)
    assert frames_of(office, "examples") == []
    take(office, worker, MOST_HELD - 1)
    assert frames_of(office, "examples") == [list(range(MOST_HELD))]


def test_a_snapshot_leaves_nothing_behind(office: Office, worker: Worker) -> None:
    take(office, worker, 0)
    worker.snapshot()
    assert frames_of(office, "examples") == [[0]]
    assert office.commit("features", *LOG0) is not None

    take(office, worker, 1)
    assert isinstance(worker._outbox, MemoryOutbox)
    worker._outbox.queue.clear()  # power loss
    successor = office.worker("features", [LOG0], hold_s=HOLD_S)
    successor.step(0)
    successor.stop()
    assert frames_of(office, "examples") == [[0], [1]]


def test_a_mark_takes_the_rows_before_it_along(office: Office, worker: Worker) -> None:
    take(office, worker, 0)
    for kind in ("events", "labels"):
        mark = {"kind": "mark", "source": office.source(kind), "sequence": -1, "time": int((START_S + 1) * 1e6)}
        office.log(0, [mark])
    worker._next_marks = 0.0
    worker.step(0)
    worker._outbox.flush()

    last = office.broker.logs["p.examples", 0][-1]
    rows = frames.decode(last.value_ or b"", frames.examples_schema(columns(office.pipeline)))
    assert rows.numbers("kind").tolist()[-1] == MARK
    assert frames_of(office, "examples") == [[0]]


def test_a_worker_that_has_lost_its_partition_keeps_nothing_back(office: Office, worker: Worker) -> None:
    take(office, worker, 0)
    worker._lose([LOG0])
    worker._outbox.flush()
    assert frames_of(office, "examples") == [[0]]
