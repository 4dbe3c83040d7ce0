"""A whole pipeline in one thread over partitions in memory: real roles, real workers, crashes where the seed says.

`World` runs a random schedule of steps, snapshots, deliveries, crashes, rebalances and zombies, then drains.
`verify.py` compares what came out with a recomputation from the topics as written.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

import consumers.saving
import consumers.worker
from consumers.features_role import FeaturesRole
from consumers.ingest import IngestRole
from consumers.learn_role import LearnRole
from consumers.retrain import TrainRole
from consumers.role import Role
from consumers.station import Shop
from consumers.worker import Settings, Worker
from serving.champion import Champion
from serving.predict import ServeRole
from streams import features, frames
from streams.bound import Bound
from streams.control import Control
from streams.metrics import RoleMetrics
from streams.pipeline import Condition, Events, Feature, Field, Labels, Model, Pipeline, Run, Serve, Task
from streams.selecting import Select
from streams.snapshots import State
from streams.stages import stage_specs, stage_topics
from streams.state_folder import state_of
from tests.faults.crashing import CrashError
from tests.faults.deferred_writer import DeferredWriter
from tests.memory_kafka import Broker, MemoryControlLog, MemoryInbox, MemoryOutbox, Record

START_S = 1_700_000_000.0
WAIT_S = 60
HOLD_S = 0.0  # of every other worker, in the time of the events; test_simulation.py sets it
PARTITIONS = 2
RAW = [("w.events", 0), ("w.events", 1), ("w.labels", 0)]
OF_THE_KEY = (
    Feature("n_10s", "count", "*", "key", 12_000_000),
    Feature("sum_1m", "sum", "amount", "key", 60_000_000),
    Feature("mean_1m", "mean", "amount", "key", 60_000_000),
    Feature("since", "elapsed", "*", "key"),
    Feature("std_1m", "std", "amount", "key", 60_000_000, where="amount > 1"),
    Feature("max_9s", "max", "amount", "key", 9_000_000, is_exact=True),
    Feature("late", "rate", "label", "key", 60_000_000, is_label=True, delay_us=3_000_000),
    Feature("shops", "distinct", "shop", "key", 60_000_000, precision=4),
    Feature("last_shop", "last", "shop", "key"),
    Feature("faded", "ewm_mean", "amount", "key", half_life_us=9_000_000),
    Feature("hour", "cyclic", "hour"),
)
OF_SEVERAL = (  # entities: a chain of four stages
    *OF_THE_KEY,
    Feature("of_shop", "mean", "amount", "shop", 60_000_000),
    Feature("rate", "rate", "label", "shop", 600_000_000, is_label=True),
    Feature("last", "last", "amount", ("shop", "place")),
    Feature("n_9s", "count", "*", ("shop", "place"), 9_000_000, where="amount > 1", is_exact=True),
    Feature("middle", "quantile", "amount", "shop", 60_000_000, q=0.5),
    Feature("above", "difference", "amount", other="of_shop"),
)
BOUNDS = (  # of these entities; those of the key alone are known for good
    Bound("key", ttl_us=2_000_000, most=4),
    Bound("shop", most=2),
    Bound(("shop", "place"), ttl_us=1_000_000),
)


def inputs_of(pipeline: Pipeline) -> dict[str, list[tuple[str, int]]]:
    """The partitions that each role reads, in the order rows flow."""

    def all_of(topic: str) -> list[tuple[str, int]]:
        return [(f"w.{topic}", partition) for partition in range(pipeline.partitions)]

    stages = {spec.name: all_of(spec.reads) for spec in stage_specs(pipeline)}
    found = {"ingest": RAW, **stages, "learn": [("w.examples", 0)], "serve": all_of("features")}
    return found if pipeline.archive is None else {**found, "train": [("w.examples", 0)]}


def pipeline(state: Path, of: tuple[Feature, ...] = OF_THE_KEY) -> Pipeline:
    """A small pipeline."""
    return Pipeline(
        name="w",
        partitions=PARTITIONS,
        state=state,
        kafka={},
        select=Select(),  # so that losses are told in both orders
        events=Events(
            topic="w.events",
            id=("id",),
            time=("at",),
            time_unit="us",
            key=("key",),
            where=(),
            fields=(
                Field("amount", "number", ("amount",)),
                Field("shop", "category", ("shop",)),
                Field("place", "category", ("place",)),
            ),
        ),
        labels=Labels(
            topic="w.labels",
            id=("id",),
            time=("at",),
            time_unit="us",
            key=("key",),
            value=("y",),
            where=tuple[Condition, ...](),
            wait_us=WAIT_S * 1_000_000,
            keep_us=WAIT_S * 1_000_000,
            missing=None,
        ),
        task=Task(),
        features=of,
        bounds=BOUNDS if of == OF_SEVERAL else (),
        raw_features=True,
        models=(Model("logistic", "linear", {"lr": 0.05, "bits": 6}),),
        serve=Serve("logistic"),
        run=Run(),
    )


@dataclass
class Member:
    """One worker process of a role."""

    role: str
    inbox: MemoryInbox
    outbox: MemoryOutbox
    worker: Worker
    writer: DeferredWriter
    is_zombie: bool = False
    steps_left: int = 0


class World:
    """One seeded schedule.

    Args:
        seed: of everything random.
        state: directory for snapshots and blobs.
        events: how many events are published.
        is_replay: as the demo runs: partitions wait for each other without limit.
        with_faults: crashes, rebalances and zombies; without them one worker a role just runs.
        of: the features.
        state_url: of an object store for snapshots and blobs; then every worker starts on a host of its own.
        then: the features that the file declares from the middle on, if it is changed then.
        partitions: of the topics between roles.
        labels: what is declared otherwise of the labels.
    """

    def __init__(
        self,
        seed: int,
        state: Path,
        events: int = 150,
        *,
        is_replay: bool = False,
        with_faults: bool = True,
        of: tuple[Feature, ...] = OF_THE_KEY,
        state_url: str | None = None,
        then: tuple[Feature, ...] = (),
        partitions: int = PARTITIONS,
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.now = START_S
        small = pipeline(state, of)
        declared = msgspec.structs.replace(small.labels, **(labels or {}))
        self.pipeline = msgspec.structs.replace(small, state_url=state_url, partitions=partitions, labels=declared)
        self.hosts = 0
        self.then, self._change_at = then, events if then else -1  # half of the records are left
        between = ("log", *stage_topics(self.pipeline), "features", "predictions")
        counts = {"w.events": 2, "w.labels": 1, **{f"w.{name}": partitions for name in between}}
        self.inputs = inputs_of(self.pipeline)
        self.broker = Broker(lambda: self.now, counts)
        self.is_replay, self.with_faults = is_replay, with_faults
        self.members: list[Member] = []
        self.had_serve_zombie = False
        self.crashes = self.zombies = self.rebalances = self.snapshots = 0
        self._crash_chance = 0.0
        self._plan = self._make_records(events)
        for role, places in self.inputs.items():
            self._start(role, places)

    # What is published

    def _make_records(self, events: int) -> list[tuple[float, str, int, bytes]]:
        rng = self.rng
        records: list[tuple[float, str, int, bytes]] = []

        def put(at: float, topic: str, partition: int, record: dict[str, object]) -> None:
            records.append((at, topic, partition, json.dumps(record).encode()))

        for i in range(events):
            at = START_S + i * 0.7 + rng.random()
            key = f"k{rng.randrange(6)}"
            back = 0 if self.is_replay else rng.choice([0, 0, 0, 3, 15])
            event: dict[str, object] = {"id": f"e{i}", "key": key, "at": self._us(at - back), "shop": f"s{i % 3}"}
            event["place"] = None if i % 7 == 0 else f"p{i % 2}"
            event["amount"] = None if i % 11 == 0 else round(rng.random() * 10, 2)
            put(at, "w.events", i % 2, event)
            if rng.random() < 0.05 and not self.is_replay:
                put(at + rng.random() * 9, "w.events", 1 - i % 2, event)
            if rng.random() < 0.85:
                late = rng.choice([-2.0, 5.0, 20.0, WAIT_S - 1.0, WAIT_S + 9.0])
                label = {"id": f"e{i}", "key": key, "at": self._us(at + late), "y": rng.randrange(2)}
                put(at + late, "w.labels", 0, label)
                if rng.random() < 0.1 and not self.is_replay:
                    put(at + late + 4, "w.labels", 0, {**label, "y": rng.choice([0, 1, None])})
        return sorted(records, key=lambda record: record[0])

    @staticmethod
    def _us(seconds: float) -> int:
        return int(round(seconds, 1) * 1e6)

    def _publish(self, count: int) -> None:
        for at, topic, partition, value in self._plan[:count]:
            self.now = max(self.now, at)
            self.broker.append(topic, partition, value, stamp_ms=int(at * 1000) + 1)
        del self._plan[:count]

    # Members

    def _start(self, role: str, partitions: list[tuple[str, int]]) -> Member:
        broker, name = self.broker, self.pipeline.name
        state = state_of(self._on_another_host())
        control = Control(MemoryControlLog(broker, "w.control"))
        outbox = MemoryOutbox(broker)
        metrics = RoleMetrics(role, name)
        columns = features.columns(self.pipeline)
        made: Role
        if role == "ingest":
            made = IngestRole(self.pipeline, outbox, metrics, is_replay=self.is_replay)
        elif role in {spec.name for spec in stage_specs(self.pipeline)}:
            made = FeaturesRole(self.pipeline, control, list(self.inputs).index(role))
        elif role == "learn":
            made = LearnRole(self._on_another_host(), self.pipeline.models[0], control, outbox, metrics)
        elif role == "train":
            made = TrainRole(self.pipeline, control, outbox, metrics)
        else:
            champion = Champion(self.pipeline.models[:1], columns, state, control, metrics, task=self.pipeline.task)
            schema = frames.features_schema(columns)
            made = ServeRole("w.features", schema, control, champion, metrics, "earliest", lambda: self.now)
        inbox = MemoryInbox(broker, f"{name}.{made.name}")
        inbox.rng, inbox.limit = random.Random(self.rng.random()), self.rng.choice([2, 5, 20])
        shop = Shop(made, self.pipeline, inbox, control, broker, broker, state / "snapshots")
        settings = Settings(self.is_replay, snapshot_every_s=1e9, hold_s=HOLD_S * (len(self.members) % 2))
        writer = DeferredWriter()
        worker = Worker(shop, outbox, metrics, settings, lambda: self.now, writer)
        member = Member(role, inbox, outbox, worker, writer)
        member.worker.start()
        inbox.give(partitions)
        self.members.append(member)
        return member

    def _on_another_host(self) -> Pipeline:
        """The pipeline as a host sees it that shares nothing but the object store, if there is one."""
        if self.pipeline.state_url is None:
            return self.pipeline
        self.hosts += 1
        return msgspec.structs.replace(self.pipeline, state=self.pipeline.state / f"host{self.hosts}")

    def _alive(self) -> list[Member]:
        return [member for member in self.members if not member.is_zombie]

    def _crash(self, member: Member) -> None:
        self.crashes += 1
        partitions = sorted(member.inbox.positions)
        member.outbox.crash(self.rng)
        self.members.remove(member)
        if not member.is_zombie:
            self._start(member.role, partitions)

    def _make_zombie(self, member: Member) -> None:
        """The group has given its partitions away, and it does not know."""
        self.zombies += 1
        self.had_serve_zombie |= member.role == "serve"
        member.is_zombie, member.inbox.is_fenced, member.steps_left = True, True, self.rng.randrange(1, 8)
        self._start(member.role, sorted(member.inbox.positions))

    def _rebalance(self, member: Member) -> None:
        self.rebalances += 1
        others = [m for m in self._alive() if m.role == member.role and m is not member]
        moved = self.rng.sample(sorted(member.inbox.positions), self.rng.randint(0, len(member.inbox.positions)))
        member.inbox.withdraw(moved)
        if others:
            others[0].inbox.give(moved)
        elif moved:
            self._start(member.role, moved)

    # What it leaves behind (verify.Written)

    raw = RAW

    def records(self, topic: str, partition: int) -> list[Record]:
        """All records of a partition."""
        return self.broker.logs[topic, partition]

    def control(self) -> Control:
        """A reader of the control topic."""
        return Control(MemoryControlLog(self.broker, f"{self.pipeline.name}.control"))

    def learned(self, candidate: str) -> State:
        """The final state of a candidate."""
        worker = next(m.worker for m in self.members if m.role == "learn" and m.worker.stations)
        return worker.stations[0].task.state()

    # The schedule

    def fail_point(self, name: str) -> None:
        """Installed in place of the real fail points."""
        if self.rng.random() < self._crash_chance:
            raise CrashError(name)

    def run(self) -> None:
        """Run the schedule and drain."""
        while self._plan:
            if len(self._plan) <= self._change_at:
                self._change_list()
            self._publish(self.rng.randint(1, 6))
            for _ in range(self.rng.randint(1, 6)):
                self._act()
        for topic, partition in RAW:
            self.broker.append(topic, partition, None, None, [("millrace-mark", b"end")])
        self._drain()

    def _change_list(self) -> None:
        """Stop or kill all workers but zombies, and start others with the changed file."""
        self._change_at = -1
        self.pipeline = msgspec.structs.replace(self.pipeline, features=self.then)
        self._crash_chance = 0.0
        held = [(member, sorted(member.inbox.positions)) for member in self._alive()]
        for member, _ in held:
            if self.with_faults and self.rng.random() < 0.5:
                member.outbox.crash(self.rng)
            else:
                member.worker.stop()
            self.members.remove(member)
        for member, partitions in held:
            if partitions:
                self._start(member.role, partitions)

    def _act(self) -> None:
        self._crash_chance = 0.03 if self.with_faults else 0.0
        member = self.rng.choice(self.members)
        try:
            self._move(member)
        except CrashError:
            self._crash(member)

    def _move(self, member: Member) -> None:
        dice = self.rng.random() if self.with_faults else 0.0
        if member.is_zombie:
            member.steps_left -= 1
            if member.steps_left < 0:
                self._crash(member)
                return
        if dice < 0.7:
            if self.with_faults and self.rng.random() < 0.15:
                self.snapshots += 1
                member.worker._saver.next_s = -math.inf  # one is due: begun in this step, written in a later one
            member.worker.step(0)
            member.outbox.deliver_some(self.rng)
            member.writer.write_some(self.rng)
        elif dice < 0.84:
            self.snapshots += 1
            member.worker.snapshot()
        elif dice < 0.92:
            self._crash(member)
        elif not member.is_zombie and dice < 0.96:
            self._rebalance(member)
        elif not member.is_zombie:
            self._make_zombie(member)

    def _drain(self) -> None:
        self._crash_chance = 0.0
        for member in [m for m in self.members if m.is_zombie]:
            self._crash(member)
        for role in self.inputs:
            idle = 0
            while idle < 3:
                self.now += 1.0
                mine = [m for m in self._alive() if m.role == role]
                for member in mine:
                    member.inbox.limit = 10_000
                has_worked = [member.worker.step(0) for member in mine]
                for member in mine:
                    member.outbox.flush()
                idle = 0 if any(has_worked) else idle + 1


def install(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Let the world decide at every fail point of the worker loop."""
    monkeypatch.setattr(consumers.worker, "fail_point", world.fail_point)
    monkeypatch.setattr(consumers.saving, "fail_point", world.fail_point)
