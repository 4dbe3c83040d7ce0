"""The worker loop over Kafka in memory: where it begins, what it commits, and how it gives partitions up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

import consumers.saving
from consumers.worker import Worker
from streams import frames
from streams.snapshots import SnapshotStore, Witness
from tests.memory_kafka import MemoryOutbox
from tests.workers import Office, inbox

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


def store(office: Office, partition: int = 0) -> SnapshotStore:
    """The snapshots of a partition."""
    return SnapshotStore(office.pipeline.state / "snapshots" / "copy" / f"log-p{partition}")


# Start offsets


def test_a_new_worker_begins_at_the_earliest_row(office: Office) -> None:
    """Also where retention has cut the topic already."""
    office.broker.low[LOG0] = 2
    worker = office.worker(partitions=[LOG0, LOG1])
    worker.step(0)
    worker.stop()

    assert office.ids("p.features", 0) == ["e2", "e3", "e4"]


def test_a_worker_goes_on_where_the_snapshot_was_taken(office: Office) -> None:
    """Position, memory and counters come back together; the copy's numbers go on without gap."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.stop()
    source = office.source()
    for i in (4, 5):
        office.log(0, [{"kind": "event", "source": source, "sequence": i, "time": i, "id": f"e{i}", "key": "k"}])
    successor = office.worker(partitions=[LOG0])
    successor.step(0)
    successor.stop()

    rows = office.rows("p.features", 0)
    assert [(row["id"], row["sequence"]) for row in rows] == [(f"e{i}", i) for i in range(6)]
    assert len({row["source"] for row in rows}) == 1


def test_the_snapshot_decides_not_the_committed_offset(office: Office) -> None:
    """The commit is only the witness: rows since the snapshot are read again."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.snapshot()
    office.broker.commits["p.copy", *LOG0] = (1, office.broker.commits["p.copy", *LOG0][1])

    assert office.worker(partitions=[LOG0]).stations[0].position == 5


def test_a_crash_before_the_first_commit_begins_at_the_first_snapshot(office: Office) -> None:
    """A manifest is written before the first output, so a generation is never begun twice."""
    worker = office.worker(partitions=[LOG0])
    first = store(office).find()
    worker.step(0)
    crash(worker)

    assert first.manifest is not None
    assert (first.manifest.position, first.manifest.generation) == (0, 0)
    assert office.commit("copy", "p.log", 0) is None
    assert office.worker(partitions=[LOG0]).stations[0].position == 0


def test_rows_of_partitions_that_are_not_ours_are_left_alone(office: Office) -> None:
    """A poll may still give messages of a partition that was just taken away."""
    worker = office.worker(partitions=[LOG0])
    inbox(worker).positions[LOG1] = 0
    office.broker.logs[LOG1] = office.broker.logs[LOG0]
    worker._drop([LOG0])
    worker.step(0)

    assert worker.stations == []


# Commits


def test_the_commit_names_the_manifest_and_its_digest(office: Office) -> None:
    """The witness that state and position belong together (PROTOCOL 21)."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.snapshot()
    said = witness(office)

    path = office.pipeline.state / "snapshots" / "copy" / "log-p0" / said.manifest
    assert office.broker.commits["p.copy", *LOG0][0] == 5
    assert said.number == 2
    assert said.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_outputs_then_snapshot_then_commit(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order, or rows could be lost."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    seen: list[tuple[str, int, int, bool]] = []

    def look(name: str) -> None:
        newest = store(office).find().newest_number
        is_committed = office.commit("copy", "p.log", 0) is not None
        seen.append((name, len(office.broker.logs["p.features", 0]), newest, is_committed))

    monkeypatch.setattr(consumers.saving, "fail_point", look)
    worker.snapshot()

    assert seen == [
        ("before_flush", 0, 1, False),
        ("after_flush", 1, 1, False),
        ("after_snapshot", 1, 2, False),
        ("after_commit", 1, 2, True),
    ]


class Later:
    """A writer that writes when it is told to."""

    def __init__(self) -> None:
        self.begun: list[tuple[Callable[[], tuple[int, str]], Future[tuple[int, str]]]] = []

    def __call__(self, write: Callable[[], tuple[int, str]]) -> Future[tuple[int, str]]:
        self.begun.append((write, Future()))
        return self.begun[-1][1]

    def write(self) -> None:
        """Write the first that was begun."""
        write, done = self.begun.pop(0)
        done.set_result(write())


def saving(office: Office) -> tuple[Worker, Later]:
    """A worker that has taken all five rows and begun a snapshot of them."""
    later = Later()
    worker = office.worker(partitions=[LOG0], writer=later)
    worker.step(0)
    office.now += 1_000
    worker.step(0)
    return worker, later


def test_the_stream_goes_on_while_a_snapshot_is_written(office: Office) -> None:
    """Rows taken meanwhile belong to the next one: what is committed is the position at which the state was copied."""
    worker, later = saving(office)
    office.log(0, [{"kind": "event", "source": office.source(), "sequence": 5, "time": 5, "id": "e5", "key": "k"}])
    worker.step(0)

    assert len(later.begun) == 1
    assert office.commit("copy", "p.log", 0) is None
    assert worker.stations[0].reached == 6

    later.write()
    worker.step(0)
    found = store(office).find().manifest

    assert found is not None
    assert found.position == 5
    assert witness(office).number == found.number
    assert office.broker.commits["p.copy", *LOG0][0] == 5


def test_what_came_while_a_snapshot_was_written_is_in_the_next(office: Office) -> None:
    """Stopping waits for the one that is being written, and then saves again."""
    worker, later = saving(office)
    office.log(0, [{"kind": "event", "source": office.source(), "sequence": 5, "time": 5, "id": "e5", "key": "k"}])
    worker.step(0)
    later.write()
    worker.stop()

    assert office.broker.commits["p.copy", *LOG0][0] == 6


def test_a_snapshot_of_a_partition_that_was_lost_is_not_committed(office: Office) -> None:
    """It stands, and whoever has the partition now may go by it."""
    worker, later = saving(office)
    worker._lose([LOG0])
    later.write()
    worker.step(0)

    assert office.commit("copy", "p.log", 0) is None
    assert store(office).find().newest_number == 2


def test_a_fenced_commit_is_not_the_end(office: Office) -> None:
    """The group has moved on: the snapshot stands, and if the partition is still ours the next commit is made."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    inbox(worker).is_fenced = True
    worker.snapshot()
    before = office.commit("copy", "p.log", 0)
    inbox(worker).is_fenced = False
    worker.snapshot()

    assert before is None
    assert office.broker.commits["p.copy", *LOG0][0] == 5


def test_nothing_new_is_not_saved_again(office: Office) -> None:
    """An idle worker leaves disk and group alone."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.snapshot()
    worker.step(0)
    worker.snapshot()

    assert store(office).find().newest_number == 2


def test_rows_taken_without_new_messages_are_saved(office: Office) -> None:
    """Rows that waited for another partition are taken later: the position has moved all the same."""
    worker = office.worker(partitions=[LOG0, LOG1], is_replay=True)
    worker.step(0)
    worker.snapshot()
    before = office.broker.commits["p.copy", *LOG0][0]
    events, labels = office.source(), office.source("labels")
    office.log(1, [{"kind": "mark", "source": one, "time": frames.END} for one in (events, labels)])
    worker.step(0)
    worker.step(0)
    worker.snapshot()

    assert (before, office.broker.commits["p.copy", *LOG0][0]) == (0, 5)


def test_snapshots_come_at_their_interval(office: Office) -> None:
    """Every `snapshot_every_s`, counted from the last one."""
    worker = office.worker(partitions=[LOG0], snapshot_every_s=10.0)
    commits = []
    for seconds in (0, 9.9, 0.2):
        office.now += seconds
        worker.step(0)
        commits.append(office.commit("copy", "p.log", 0) is not None)

    assert commits == [False, False, True]


def test_partitions_take_turns_with_their_snapshots(office: Office) -> None:
    """Each has one every `snapshot_every_s`, and the stream never stops for two at once."""
    worker = office.worker(partitions=[LOG0, LOG1], snapshot_every_s=10.0)
    sources = [office.source(partition=partition) for partition in (0, 1)]
    saved = []
    for turn in range(1, 6):
        for partition, source in enumerate(sources):
            row = {"kind": "event", "source": source, "sequence": 9 + turn, "time": turn, "id": "e", "key": "k"}
            office.log(partition, [row])
        before = [office.commit("copy", "p.log", partition) for partition in (0, 1)]
        office.now += 5.0
        worker.step(0)
        saved.append([p for p in (0, 1) if office.commit("copy", "p.log", p) != before[p]])

    assert saved == [[], [0], [1], [0], [1]]


def test_snapshots_take_at_most_a_twentieth_of_the_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one that took 2 s the next comes no earlier than 40 s later."""
    worker = office.worker(partitions=[LOG0], snapshot_every_s=10.0)
    worker.step(0)
    monkeypatch.setattr(worker._outbox, "flush", lambda: setattr(office, "now", office.now + 2.0))
    worker.snapshot()

    assert worker._saver.next_s == office.now + 40.0


# Giving partitions up


def test_revoke_flushes_saves_and_commits_before_the_partition_goes(office: Office) -> None:
    """So that outputs stay gapless and the successor repeats nothing (PROTOCOL 7)."""
    worker = office.worker(partitions=[LOG0, LOG1])
    worker.step(0)
    inbox(worker).withdraw([LOG0])
    successor = office.worker(partitions=[LOG0])

    assert office.ids("p.features", 0) == [f"e{i}" for i in range(5)]
    assert [(s.topic, s.partition) for s in worker.stations] == [LOG1]
    assert successor.stations[0].position == 5


def test_lost_partitions_are_dropped_without_a_commit(office: Office) -> None:
    """They are someone else's already: neither snapshot nor offset."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    inbox(worker).on_lost([LOG0])
    worker.snapshot()

    assert worker.stations == []
    assert office.commit("copy", "p.log", 0) is None
    assert store(office).find().newest_number == 1


def test_a_graceful_stop_leaves_nothing_to_repeat(office: Office) -> None:
    """Outputs are flushed, the snapshot committed, the group left."""
    worker = office.worker(partitions=[LOG0])
    worker.step(0)
    worker.stop()

    assert office.ids("p.features", 0) == [f"e{i}" for i in range(5)]
    assert office.broker.commits["p.copy", *LOG0][0] == 5
    assert inbox(worker).is_closed
    assert worker.stations == []


def test_rows_read_but_not_taken_are_left_to_the_next_worker(office: Office) -> None:
    """The position is the first frame not wholly taken, not what was delivered."""
    worker = office.worker(partitions=[LOG0, LOG1], is_replay=True)
    worker.step(0)
    worker.stop()

    assert office.ids("p.features", 0) == []
    assert office.broker.commits["p.copy", *LOG0][0] == 0


@pytest.mark.parametrize("seed", range(10))
def test_a_crash_anywhere_loses_and_doubles_nothing(office: Office, seed: int) -> None:
    """What the copy's reader sees without repeats is each row once, in order."""
    rng = random.Random(seed)
    worker = office.worker(partitions=[LOG0])
    inbox(worker).rng = rng
    for _ in range(rng.randrange(4)):
        if rng.random() < 0.5:
            worker.snapshot()
        worker.step(0)
        assert isinstance(worker._outbox, MemoryOutbox)
        worker._outbox.deliver_some(rng)
    crash(worker)
    successor = office.worker(partitions=[LOG0])
    successor.step(0)
    successor.stop()

    once = {(row["source"], row["sequence"]): row["id"] for row in office.rows("p.features", 0) if row["kind"] == 0}
    assert [once[key] for key in sorted(once)] == [f"e{i}" for i in range(5)]
