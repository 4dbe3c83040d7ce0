"""Ingest as a whole worker: committed offsets, marks, idle partitions, dead letters, and the order in the log."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import consumers.worker
from consumers.role import Heard
from consumers.worker import Worker
from streams import frames
from streams.errors import SnapshotError
from tests.memory_kafka import MemoryOutbox
from tests.rows import events, labels
from tests.workers import START_S, Office, inbox, key_of

EVENTS0, EVENTS1, LABELS = ("events", 0), ("events", 1), ("labels", 0)
ALL = [EVENTS0, EVENTS1, LABELS]
END = frames.END / 1e6 - START_S


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """A broker with two partitions of events, one of labels, and an empty log of two partitions."""
    return Office(tmp_path)


def run_for(office: Office, worker: Worker, seconds: float, step_s: float = 0.25) -> None:
    """Let the worker go on while the clock moves."""
    for _ in range(int(seconds / step_s)):
        office.now += step_s
        worker.step(0)
    worker._outbox.flush()


def end(office: Office, topic: str, partition: int) -> None:
    """The publisher says that nothing more comes."""
    office.broker.append(topic, partition, None, None, [("millrace-mark", b"end")])


def ids(office: Office) -> list[str]:
    """Events in both partitions of the log, repeats too."""
    return office.ids("p.log", 0) + office.ids("p.log", 1)


def committed(office: Office) -> tuple[int, str]:
    """The position and the raw topic's UUID in the commit of the first partition of events."""
    found = office.commit("ingest", "events", 0)
    assert found is not None
    position, metadata = found
    return position, msgspec.json.decode(metadata, type=Heard).topic_id


# Offsets


def test_ingest_begins_at_the_earliest_record(office: Office) -> None:
    """Without a committed offset, wherever retention has cut the topic."""
    for name in "abc":
        office.event(name)
    office.broker.low[EVENTS0] = 1
    office.worker("ingest", [EVENTS0]).step(0)
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker.stop()

    assert ids(office) == ["b", "c"]


def test_ingest_goes_on_at_its_committed_offset(office: Office) -> None:
    """The commit carries the raw topic's UUID; nothing is saved on disk."""
    office.event("a")
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker.stop()
    office.event("b")
    successor = office.worker("ingest", [EVENTS0])
    successor.step(0)
    successor.stop()

    assert ids(office) == ["a", "b"]
    assert committed(office) == (2, "uuid-events")
    assert not (office.pipeline.state / "snapshots").exists()


def test_ingest_commits_after_flush(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and dead letters are acknowledged before their records count as done."""
    office.event("a")
    office.publish("events", 0, {"no": "id"})
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    flushed: list[int] = []
    commit = inbox(worker).commit

    def look(offsets: dict[tuple[str, int], tuple[int, str]]) -> None:
        assert isinstance(worker._outbox, MemoryOutbox)
        flushed.append(len(worker._outbox.queue))
        commit(offsets)

    monkeypatch.setattr(inbox(worker), "commit", look)
    worker.snapshot()

    assert flushed == [0]
    assert len(office.broker.logs["p.deadletters", 0]) == 1
    assert committed(office) == (2, "uuid-events")


def test_a_crash_repeats_rows_under_the_same_numbers(office: Office) -> None:
    """Every reader drops them: source and sequence come from the raw topic alone."""
    office.event("a")
    office.event("b")
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker._outbox.flush()
    successor = office.worker("ingest", [EVENTS0])
    successor.step(0)
    successor.stop()

    names = [
        (row["source"], row["sequence"], row["id"]) for p in (0, 1) for row in office.rows("p.log", p) if row["id"]
    ]
    assert len(names) == 4
    assert len(set(names)) == 2


def test_a_record_waiting_for_others_is_not_committed(office: Office) -> None:
    """Only what was taken counts; what stands behind a waiting one is read again too."""
    office.event("a", at=1)
    worker = office.worker("ingest", ALL, is_replay=True)
    worker.step(0)
    worker.stop()

    assert ids(office) == []
    assert committed(office) == (0, "uuid-events")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("id", "the topic was recreated: committed for uuid-events, topic is new"),
        ("low", "the input was cut by retention: committed offset 2, earliest is 3"),
        ("high", "the input ends early: committed offset 2, the topic ends at 1"),
    ],
)
def test_a_raw_topic_that_does_not_fit_stops_ingest(office: Office, change: str, problem: str) -> None:
    """With one line; `on_gap = "continue"` goes on at the earliest record."""
    office.event("a")
    office.event("b")
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker.stop()
    if change == "id":
        office.broker.ids["events"] = "new"
    elif change == "low":
        office.broker.low[EVENTS0] = 3
        office.event("c")
    else:
        del office.broker.logs[EVENTS0][1:]

    with pytest.raises(SnapshotError, match=f"events partition 0: {problem}; set .run. on_gap"):
        office.worker("ingest", [EVENTS0])

    run = msgspec.structs.replace(office.pipeline.run, on_gap="continue")
    office.pipeline = msgspec.structs.replace(office.pipeline, run=run)
    assert office.worker("ingest", [EVENTS0]).stations[0].position == office.broker.low[EVENTS0]


def test_a_recreated_topics_rows_have_a_source_of_their_own(office: Office) -> None:
    """Offset 0 of the new topic is no repeat of the old one's."""
    run = msgspec.structs.replace(office.pipeline.run, on_gap="continue")
    office.pipeline = msgspec.structs.replace(office.pipeline, run=run)
    office.event("a")
    first = office.worker("ingest", [EVENTS0])
    office.broker.ids["events"] = "new"
    second = office.worker("ingest", [EVENTS0])

    assert first.stations[0].sources != second.stations[0].sources


def test_one_topic_for_both_has_two_sources(office: Office) -> None:
    """Events and labels of one partition are numbered apart, with the same offsets."""
    where = {"labels": labels(topic="events"), "events": events()}
    office.pipeline = msgspec.structs.replace(office.pipeline, **where)
    office.publish("events", 0, {"id": "a", "key": "k", "at": 5, "y": 1})
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker.stop()

    rows = [row for p in (0, 1) for row in office.rows("p.log", p) if row["id"]]
    assert [(row["kind"], row["sequence"], row["time"]) for row in rows] == [(frames.EVENT, 0, 5), (frames.LABEL, 0, 5)]
    assert rows[0]["source"] != rows[1]["source"]


# Dead letters


def test_dead_letters_leave_at_once_and_nothing_stops(office: Office) -> None:
    """They are written, counted, and the good records around them taken."""
    office.event("a")
    office.publish("events", 0, {"id": "x"})
    office.event("b")
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker.step(0)
    worker.stop()

    (letter,) = office.broker.logs["p.deadletters", 0]
    assert msgspec.json.decode(letter.value_ or b"")["offset"] == 1
    assert letter.key_ == b"k"
    assert ids(office) == ["a", "b"]


# The order in the log


def test_replay_writes_the_log_in_the_order_of_time(office: Office) -> None:
    """Across partitions and topics, however they were published; at a tie the event stands before the label."""
    key = key_of(0)
    for name, partition, at in (("a", 0, 1), ("d", 0, 4), ("b", 1, 2), ("e", 1, 5)):
        office.event(name, partition, at, key)
    office.publish("labels", 0, {"id": "c", "key": key, "at": int((START_S + 4) * 1e6), "y": 1})
    for topic, partition in ALL:
        end(office, topic, partition)
    worker = office.worker("ingest", ALL, is_replay=True)
    for _ in range(4):
        worker.step(0)
    worker.stop()

    rows = [row["id"] for row in office.rows("p.log", 0) if row["id"]]
    assert rows == ["a", "b", "d", "c", "e"]
    assert office.marks("p.log", 0).count(END) == office.marks("p.log", 1).count(END) == 3


# Marks


def test_a_mark_goes_to_every_log_partition_behind_its_rows(office: Office) -> None:
    """Each reader hears how far each raw partition is, also where none of its rows went."""
    office.event("a", at=3, key=key_of(0))
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    worker.stop()

    assert [row["kind"] for row in office.rows("p.log", 0)] == [frames.EVENT, frames.MARK]
    assert (office.marks("p.log", 0), office.marks("p.log", 1)) == ([3.0], [3.0])


def test_live_marks_go_once_a_second(office: Office) -> None:
    """Not with every frame: under low load marks would be most of what is sent."""
    worker = office.worker("ingest", [EVENTS0])
    worker._saver.next_s = office.now + 1_000.0
    for i in range(12):
        office.event(f"e{i}", at=i / 4)
        run_for(office, worker, 0.25)

    assert office.marks("p.log", 0) == [0.0, 1.0, 2.0]


def test_catching_up_marks_go_with_every_batch(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that waits for the others must not wait a second for each batch."""
    monkeypatch.setattr(consumers.worker, "POLL_RECORDS", 1)
    for i in range(4):
        office.event(f"e{i}", at=i, stamp=-100)
    worker = office.worker("ingest", [EVENTS0])
    worker._saver.next_s = office.now + 1_000.0
    for _ in range(3):
        worker.step(0)
    worker._outbox.flush()

    assert office.marks("p.log", 0) == [0.0, 1.0, 2.0]


def test_a_publishers_end_is_sent_before_its_record_is_committed(office: Office) -> None:
    """It would not be read again: without it labels that never come are never settled."""
    office.event("a")
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    end(office, *EVENTS0)
    worker.step(0)
    worker.stop()

    assert committed(office) == (2, "uuid-events")
    assert office.marks("p.log", 0) == [0.0, END]


# Idle partitions


def test_an_idle_partitions_mark_follows_the_clock(office: Office) -> None:
    """Its largest time + what has passed since that record, less 5 s for what is still on its way."""
    office.event("a", at=-2, stamp=0)
    worker = office.worker("ingest", [EVENTS0])
    run_for(office, worker, 10)

    marks = office.marks("p.log", 0)
    assert marks[0] == -2.0
    assert marks == sorted(marks)
    assert marks[-1] == pytest.approx(-2 + 10 - 5, abs=1.0)


def test_history_published_today_does_not_jump_to_the_present(office: Office) -> None:
    """A year ago plus three seconds is a year ago."""
    year = 365 * 86_400.0
    office.event("a", at=-year, stamp=0)
    worker = office.worker("ingest", [EVENTS0])
    run_for(office, worker, 8)

    assert office.marks("p.log", 0)[-1] == pytest.approx(-year + 3, abs=1.0)


def test_a_partition_not_heard_of_takes_the_smallest_of_its_topic(office: Office) -> None:
    """Two partitions have records, a third none: it goes with the slower one."""
    office.counts["events"] = 3
    office.event("a", 0, at=-1, stamp=0)
    office.event("b", 1, at=-7, stamp=0)
    worker = office.worker("ingest", [EVENTS0, EVENTS1, ("events", 2)])
    run_for(office, worker, 20)

    silent = worker.stations[2].inlet.mark() / 1e6 - START_S
    assert silent == pytest.approx(-7 + 20 - 5, abs=1.0)


def test_a_partition_not_heard_of_takes_the_smallest_of_other_workers_too(office: Office) -> None:
    """One worker has the partitions with records, the other only the silent one, as in a group that was scaled up."""
    office.counts["events"] = 3
    office.event("a", 0, at=-1, stamp=0)
    office.event("b", 1, at=-7, stamp=0)
    worker = office.worker("ingest", [EVENTS0, EVENTS1])
    other = office.worker("ingest", [("events", 2)])
    run_for(office, worker, 2)
    run_for(office, other, 18)

    silent = other.stations[0].inlet.mark() / 1e6 - START_S
    assert silent == pytest.approx(-7 + 20 - 5, abs=1.0)


def test_the_smallest_counts_though_another_partition_of_ours_was_heard_of(office: Office) -> None:
    """Ours is ahead of the other worker's."""
    office.counts["events"] = 3
    office.event("a", 0, at=-1, stamp=0)
    office.event("b", 1, at=-7, stamp=0)
    worker = office.worker("ingest", [EVENTS1])
    other = office.worker("ingest", [EVENTS0, ("events", 2)])
    run_for(office, worker, 2)
    run_for(office, other, 18)

    heard, silent = (station.inlet.mark() / 1e6 - START_S for station in other.stations)
    assert heard == pytest.approx(-1 + 20 - 5, abs=1.0)
    assert silent == pytest.approx(-7 + 20 - 5, abs=1.0)


def test_a_partition_is_still_heard_of_after_a_restart(office: Office) -> None:
    """Its commit remembers its largest time, though no record comes any more."""
    office.event("a", 0, at=-2, stamp=0)
    worker = office.worker("ingest", [EVENTS0])
    run_for(office, worker, 2)
    worker.stop()
    successor = office.worker("ingest", [EVENTS0])
    run_for(office, successor, 8)

    assert successor.stations[0].inlet.mark() / 1e6 - START_S == pytest.approx(-2 + 10 - 5, abs=1.0)


def test_a_topic_nobody_has_heard_of_has_no_mark(office: Office) -> None:
    """Events say nothing of labels that may still come."""
    office.event("a", at=0, stamp=0)
    worker = office.worker("ingest", ALL)
    run_for(office, worker, 20)

    assert worker.stations[2].inlet.mark() == frames.BEGINNING


def test_a_partition_that_is_not_read_to_its_end_is_not_idle(office: Office) -> None:
    """Records that lie there must not be late by our own mark."""
    office.event("a", at=0, stamp=0)
    worker = office.worker("ingest", [EVENTS0])
    worker.step(0)
    inbox(worker).held_back.add(EVENTS0)
    office.event("b", at=1, stamp=1)
    run_for(office, worker, 60)

    assert worker.stations[0].inlet.mark() / 1e6 - START_S == 0.0


def test_replay_never_goes_by_the_clock(office: Office) -> None:
    """A demo gives the same twice, however fast it runs."""
    office.event("a", at=0, stamp=0)
    worker = office.worker("ingest", [EVENTS0], is_replay=True)
    run_for(office, worker, 60)

    assert office.marks("p.log", 0) == [0.0]


def test_a_record_from_the_future_does_not_move_idle_time(office: Office) -> None:
    """A dead letter raises no mark, neither now nor later (PROTOCOL 13)."""
    office.event("a", at=0, stamp=0)
    office.event("b", at=10_000, stamp=0)
    worker = office.worker("ingest", [EVENTS0])
    run_for(office, worker, 10)

    assert office.marks("p.log", 0)[-1] == pytest.approx(5.0, abs=1.0)
    assert len(office.broker.logs["p.deadletters", 0]) == 1
