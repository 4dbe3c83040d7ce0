"""The role that scores what was served, as a whole worker: killed anywhere, its topics read by independent clocks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from consumers.served import PATIENCE_US, ServedTask
from consumers.served_figures import read_served
from consumers.served_role import ServedRole, Tails
from consumers.station import Shop
from consumers.worker import Settings, Worker
from streams import frames
from streams.control import Claim, Control
from streams.errors import UnavailableError
from streams.frames import END, EVENT, MARK, SCHEMA_HEADER
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline
from streams.records import Records
from streams.snapshots import SnapshotStore
from streams.state_folder import state_of
from streams.tables import Stack
from tests.answering import CANDIDATES, PLACES, SCHEMA, World, answer, expected, world
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox, held
from tests.rows import events, labels, pipeline
from tests.workers import START_S, EagerInbox

PARTITION = ("p.examples", 0)
AWAY = 0.3  # the chance of that when a tail is to begin


class MemoryTail:
    """A topic in memory, of which a reader finds as much as chance has it; now and then the broker is away."""

    def __init__(self, broker: Broker, topic: str, partitions: int, chance: random.Random) -> None:
        self.partitions = partitions
        self._broker, self._topic, self._chance = broker, topic, chance
        self._at: dict[int, int] = {}

    def begin(self, positions: Mapping[int, int]) -> dict[int, int]:
        if self._chance.random() < AWAY:
            raise UnavailableError("Kafka is away")
        lows = {partition: self._broker.low[self._topic, partition] for partition in range(self.partitions)}
        self._at = {partition: max(low, positions.get(partition, low)) for partition, low in lows.items()}
        return dict(self._at)

    def take(self, partition: int, most: int) -> Records | None:
        start = self._at[partition]
        found = self._broker.logs[self._topic, partition][start : start + self._chance.randint(0, min(most, 90))]
        self._at[partition] += len(found)
        return held(found) if found else None

    def end(self, partition: int) -> int:
        return len(self._broker.logs[self._topic, partition])

    def close(self) -> None:
        self._at.clear()


class Place:
    """A broker with all topics as they are in the end, and workers on it."""

    def __init__(self, directory: Path, found: World) -> None:
        models = tuple(Model(name, "prior", {}) for name in CANDIDATES)
        self.pipeline: Pipeline = pipeline(
            state=directory, models=models, events=events(fields=()), labels=labels(keep_us=10**9), partitions=3
        )
        self.now = START_S
        self.broker = Broker(lambda: self.now, {"p.examples": 1, "p.predictions": 3})
        self._claim()
        for start in range(0, found.rows.num_rows, 50):
            stop = min(start + 50, found.rows.num_rows)
            for frame in frames.encode(Stack([found.rows]), np.arange(start, stop)):
                self.append(frame.message())
        for partition, told in found.answers.items():
            source = next(source for source, place in PLACES.items() if place[0] == partition)
            for value in [*told, answer((source, 10**6), 0.5, "linear", "9.9", "binary")]:
                self.broker.append("p.predictions", partition, value)
        for record in found.scores:
            self.broker.append("p.scores", 0, msgspec.json.encode(record))

    def append(self, payload: bytes) -> None:
        self.broker.append(*PARTITION, payload, None, [(SCHEMA_HEADER, SCHEMA.fingerprint.encode())])

    def end(self) -> None:
        """Say that nothing more comes."""
        columns = {"kind": np.full(3, MARK), "source": np.array(list(PLACES)), "time": np.full(3, END)}
        self.append(frames.build(SCHEMA, columns, 3).message())

    def _claim(self) -> None:
        control = Control(MemoryControlLog(self.broker, "p.control"))
        for number in range(10):
            self.broker.append("p.control", 0, b"0", f"nothing/{number}".encode())
        for source, (partition, generation) in PLACES.items():
            claim = Claim("features", "log", partition, "rows", generation, 3, is_gapless=True)
            assert control.claim(claim) == source

    def worker(self, chance: random.Random) -> Worker:
        """Start a worker; the one before was killed."""
        control, metrics = Control(MemoryControlLog(self.broker, "p.control")), RoleMetrics("learn", "p").of("served")

        def tails() -> Tails:
            answers = MemoryTail(self.broker, "p.predictions", 3, chance)
            return Tails(answers, MemoryTail(self.broker, "p.scores", 1, chance))

        role = ServedRole(self.pipeline, control, metrics, tails)
        inbox = EagerInbox(self.broker, "p.learn.served")
        shop = Shop(role, self.pipeline, inbox, control, self.broker, None, state_of(self.pipeline) / "snapshots")
        worker = Worker(shop, MemoryOutbox(self.broker), metrics, Settings(snapshot_every_s=1.0), lambda: self.now)
        worker.start()
        inbox.give([PARTITION])
        return worker

    def run(self, seed: int, kills: float) -> ServedTask:
        """Step until all is read, killed now and then."""
        chance = random.Random(seed)
        worker, ends = self.worker(chance), self._ends()
        while True:
            inbox = worker.shop.inbox
            assert isinstance(inbox, EagerInbox)
            inbox.held_back = {PARTITION} if chance.random() < 0.3 else set()
            worker.step(0.0)
            self.now += chance.choice([0.06, 0.6])
            (station,) = worker.stations
            assert isinstance(station.task, ServedTask)
            read = [*station.task.positions.values(), station.task.scores_to, station.reached]
            if sorted(read) == sorted(ends):
                worker.stop()
                return station.task
            if chance.random() < kills:
                worker = self.worker(chance)

    def _ends(self) -> list[int]:
        logs = self.broker.logs
        return [*(len(logs["p.predictions", p]) for p in range(3)), len(logs["p.scores", 0]), len(logs[PARTITION])]


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_the_sums_are_those_of_a_run_without_a_kill(tmp_path: Path, seed: int) -> None:
    """Positions of all three topics are part of the one snapshot that the group's commit names."""
    found = world(seed)
    killed, straight = (
        Place(tmp_path / "killed", found).run(seed, 0.15),
        Place(tmp_path / "straight", found).run(9, 0.0),
    )
    wanted = expected(found)

    assert killed.scores.since_start() == straight.scores.since_start()
    assert killed.scores.rolling() == straight.scores.rolling()
    assert killed.shadowing.cost.since_start() == straight.shadowing.cost.since_start()
    assert killed.shadowing.cost.since_start().events == wanted.compared
    assert killed.shadowing.cost.since_start().cost == pytest.approx(wanted.cost, abs=1e-12)
    assert (killed.answered, killed.repeats) == (straight.answered, straight.repeats)
    assert killed.answers.versions == straight.answers.versions


def test_the_end_is_told_when_the_last_example_is_scored(tmp_path: Path) -> None:
    """Else the demo would print figures that lack some."""
    place = Place(tmp_path, world(0))
    place.end()
    chance, marks = random.Random(1), []
    worker = place.worker(chance)
    for _ in range(60):
        worker.step(0.0)
        place.now += 0.06
        (station,) = worker.stations
        assert isinstance(station.task, ServedTask)
        marks.append((station.inlet.mark() == END, station.task.rows.size == 0))

    assert [is_end for is_end, _ in marks] == [is_scored for _, is_scored in marks]
    assert marks[0] == (False, False)
    assert marks[-1] == (True, True)


def test_what_there_is_to_say_lies_where_the_league_finds_it(tmp_path: Path) -> None:
    """A file, so that `millrace models` asks no Kafka."""
    place = Place(tmp_path, world(4))
    before = read_served(state_of(place.pipeline))
    task = place.run(2, 0.0)
    again = place.worker(random.Random(3))
    for _ in range(9):  # the broker may be away at first
        again.step(0.0)
        place.now += 0.06
    told = read_served(state_of(place.pipeline))

    (station,) = again.stations
    assert isinstance(station.task, ServedTask)
    assert (station.task.positions, station.task.scores_to) == (task.positions, task.scores_to)
    assert before is None
    assert told is not None
    assert told.events == task.scores.since_start().labels
    assert told.figures["log_loss"] == task.scores.since_start().loss
    assert told.staleness.cost == task.shadowing.cost.since_start().cost
    assert dict(told.models) == task.answers.given
    assert {(one.model, one.version): one.answers for one in told.versions} == task.answers.versions


def test_events_whose_answers_were_cut_pass_without_one(tmp_path: Path) -> None:
    """Also where nothing is left of a partition: it is at its end then, wherever that is."""
    place, found = Place(tmp_path, world(2)), world(2)
    for partition in range(3):
        place.broker.low["p.predictions", partition] = len(place.broker.logs["p.predictions", partition])
    worker = place.worker(random.Random(0))
    for _ in range(60):
        worker.step(0.0)
        place.now += PATIENCE_US / 10e6
    (station,) = worker.stations
    assert isinstance(station.task, ServedTask)

    assert (station.task.rows.size, station.task.answered) == (0, 0)
    assert station.task.unanswered == int((found.rows.numbers("kind") == EVENT).sum())


def test_a_stream_whose_examples_were_cut_begins_at_the_earliest_there_is(tmp_path: Path) -> None:
    """What is gone cannot be scored, and nobody else waits for it."""
    place = Place(tmp_path, world(1))
    place.run(0, 0.0)
    place.broker.low[PARTITION] = 40
    commit = place.broker.commits["p.learn.served", *PARTITION]
    store = SnapshotStore(state_of(place.pipeline) / "snapshots" / "learn.served" / "examples-p0")
    assert store.find().manifest is not None
    place.broker.low[PARTITION] = commit[0] + 1
    place.broker.logs[PARTITION].extend(place.broker.logs[PARTITION][:2])
    worker = place.worker(random.Random(0))
    (station,) = worker.stations

    assert station.generation == 1
    assert isinstance(station.task, ServedTask)
    assert (station.task.positions, station.task.answered) == ({}, 0)
