"""The worker loop at its limits: bounded buffers, slow roles, and input or state that does not fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import consumers.worker
from consumers.worker import Worker
from streams import frames
from streams.errors import FrameError, SnapshotError
from streams.snapshots import Witness
from tests.memory_kafka import MemoryOutbox
from tests.rows import batch_of
from tests.workers import CopyRole, CopyTask, Office, inbox

LOG0, LOG1 = ("p.log", 0), ("p.log", 1)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """A broker whose P.log has events e0 … e4 in five frames of partition 0."""
    made = Office(tmp_path)
    source = made.source()
    for i in range(5):
        made.log(0, [{"kind": "event", "source": source, "sequence": i, "time": i, "id": f"e{i}", "key": "k"}])
    return made


def crash(worker: Worker) -> None:
    """Power loss: what was not flushed is gone."""
    assert isinstance(worker._outbox, MemoryOutbox)
    worker._outbox.queue.clear()


def witness(office: Office, role: str = "copy", topic: str = "p.log", partition: int = 0) -> Witness:
    """The witness in the group's commit."""
    committed = office.commit(role, topic, partition)
    assert committed is not None
    return msgspec.json.decode(committed[1], type=Witness)


def folder(office: Office) -> Path:
    """Where the snapshots of partition 0 lie."""
    return office.pipeline.state / "snapshots" / "copy" / "log-p0"


# Bounded buffers


def test_a_partition_far_ahead_is_not_read_until_it_may_go_on(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for another its rows must not fill the memory."""
    monkeypatch.setattr(CopyRole, "most_rows", 4)
    worker = office.worker(partitions=[LOG0, LOG1], is_replay=True)
    worker.step(0)
    worker.step(0)
    wanted = [set(inbox(worker).wanted)]
    events, labels = office.source(), office.source("labels")
    for time in (2, 4):
        office.log(1, [{"kind": "mark", "source": one, "time": time} for one in (events, labels)])
        worker.step(0)
        worker.step(0)
        wanted.append(set(inbox(worker).wanted))

    assert wanted == [{LOG1}, {LOG1}, {LOG0, LOG1}]
    assert worker.stations[0].intake.rows == 0


def test_many_partitions_are_all_read_in_short_steps(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a partition's share of a step is."""
    monkeypatch.setattr(CopyRole, "most_rows", 4)
    office.broker.counts["p.log"] = office.broker.counts["p.features"] = 12
    source = office.source()
    for partition in range(1, 12):
        rows = [{"kind": "event", "source": source, "sequence": i, "time": i, "id": f"e{i}"} for i in range(5)]
        office.log(partition, rows)
    worker = office.worker(partitions=[("p.log", partition) for partition in range(12)])
    for _ in range(100):
        worker.step(0)
    worker.stop()

    assert [office.ids("p.features", partition) for partition in range(12)] == [[f"e{i}" for i in range(5)]] * 12


# Input that does not fit


def test_a_foreign_message_stops_the_worker(office: Office) -> None:
    """Only Millrace may write to an inner topic."""
    office.broker.append("p.log", 0, b"hello")

    with pytest.raises(FrameError, match=r"p.log partition 0 offset 5: not a frame \(no millrace-schema header\)"):
        office.worker(partitions=[LOG0]).step(0)


def test_frames_of_another_topic_stop_the_worker(office: Office) -> None:
    """They are nobody's rows here."""
    schema = frames.features_schema((frames.Column("x", is_category=False),))
    worker = office.worker(partitions=[LOG0])
    worker.shop.control.announce(schema)
    office.broker.append("p.log", 0, b"", None, [(frames.SCHEMA_HEADER, schema.fingerprint.encode())])

    with pytest.raises(FrameError, match=r"p.log partition 0 offset 5: a frame of features, not of log"):
        worker.step(0)


def test_frames_of_another_list_of_fields_are_read_by_name(office: Office) -> None:
    """Between and behind frames of the reader's own, in order."""
    fields = office.pipeline.events.fields
    other = msgspec.structs.replace(
        office.pipeline, events=msgspec.structs.replace(office.pipeline.events, fields=(fields[1], fields[0]))
    )
    schema, source = frames.log_schema(other), office.source()
    worker = office.worker(partitions=[LOG0])
    worker.shop.control.announce(schema)
    for at, name in [(5, "then"), (6, "and then")]:
        row = {"kind": "event", "source": source, "sequence": at, "time": at, "id": name, "field.shop": "north"}
        headers = [(frames.SCHEMA_HEADER, schema.fingerprint.encode())]
        office.broker.append("p.log", 0, batch_of(schema, [row]).message(), None, headers)
    office.log(0, [{"kind": "event", "source": source, "sequence": 7, "time": 7, "id": "last"}])

    worker.step(0)
    worker.stop()

    assert office.ids("p.features", 0) == [*(f"e{i}" for i in range(5)), "then", "and then", "last"]


def test_a_lost_state_directory_stops_the_worker(office: Office) -> None:
    """The witness remembers what the disk forgot."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.stop()
    for path in folder(office).iterdir():
        path.unlink()

    with pytest.raises(SnapshotError, match="the snapshots are gone: the group commit names"):
        office.worker(partitions=[LOG0])


def test_going_on_after_a_loss_is_decided_once(office: Office) -> None:
    """The next generation's first manifest stands before its first output: a crash before its commit is no loss."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.stop()
    for path in folder(office).iterdir():
        path.unlink()
    run = office.pipeline.run
    office.pipeline = msgspec.structs.replace(office.pipeline, run=msgspec.structs.replace(run, on_gap="continue"))
    crash(office.worker(partitions=[LOG0]))
    office.pipeline = msgspec.structs.replace(office.pipeline, run=run)
    successor = office.worker(partitions=[LOG0])
    successor.step(0)
    successor.stop()

    assert successor.stations == []
    assert witness(office).generation == 1
    assert office.ids("p.features", 0) == [f"e{i}" for i in range(5)] * 2
    assert len({row["source"] for row in office.rows("p.features", 0)}) == 2


def test_foreign_commits_are_told_in_one_line(office: Office) -> None:
    """Somebody's tool has moved the group's offsets."""
    office.broker.commits["p.copy", *LOG0] = (3, "by hand")

    with pytest.raises(SnapshotError, match="was not made by Millrace: its metadata is 'by hand'; run `millrace"):
        office.worker(partitions=[LOG0])


# Steps


def test_a_slow_role_takes_fewer_rows_a_step(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping, snapshots and the group wait for a step, so it must not last long."""
    process = CopyTask.process

    def slow(self: CopyTask, batch: frames.Batch) -> list[frames.Rows]:
        office.now += 1.0 * batch.rows.num_rows
        return process(self, batch)

    monkeypatch.setattr(CopyTask, "process", slow)
    monkeypatch.setattr(consumers.worker, "LEAST_ROWS", 1)
    worker = office.worker(partitions=[LOG0])
    worker._most_rows = 2
    steps = [worker.step(0) for _ in range(4)]
    task = worker.stations[0].task

    assert steps == [True] * 4
    assert isinstance(task, CopyTask)
    assert task.steps == [2, 1, 1, 1]


def test_a_fast_role_takes_more_rows_a_step(office: Office) -> None:
    """Large frames cost less per row; a step may grow as long as it is short."""
    worker = office.worker(partitions=[LOG0])
    worker._most_rows = 1
    while worker.step(0):
        pass
    task = worker.stations[0].task

    assert isinstance(task, CopyTask)
    assert task.steps == [1, 2, 2]


def test_who_sees_the_end_may_read_all_that_was_made_before_it(office: Office) -> None:
    """Whoever waits for the mark of the end reads the outputs next: by then they are acknowledged."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    office.now += 2
    worker.step(0)
    before = len(office.broker.logs["p.features", 0])
    ends = [{"kind": "mark", "source": office.source(kind), "time": frames.END} for kind in ("events", "labels")]
    office.log(0, ends)
    office.now += 2
    worker.step(0)

    assert worker.stations[0].inlet.mark() == frames.END
    assert (before, len(office.broker.logs["p.features", 0])) == (0, 2)  # the rows, the mark behind them


def test_the_role_ticks_by_the_clock(office: Office) -> None:
    """About every 50 ms, however often the loop turns."""
    worker = office.worker(partitions=[LOG0])
    for _ in range(10):
        office.now += 0.02
        worker.step(0)

    assert len(getattr(worker.shop.role, "ticks", ())) == 4
