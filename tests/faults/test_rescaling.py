"""Another number of partitions in the middle of a run: by id, everything is as in a run that always had one number."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.learn import LearnTask
from models.learner import State
from serving.rescale_doors import Doors
from serving.rescaling import Rescaling
from streams.frames import LABEL
from streams.pipeline import Feature
from tests.faults import verify
from tests.faults.world import OF_SEVERAL, OF_THE_KEY, World, inputs_of
from tests.memory_kafka import MemoryInbox, Record

EVENTS = 150
OF_A_CHAIN = (*OF_SEVERAL, Feature("n_shop", "count", "*", "shop", 9_000_000))  # not bounded: caps hold for a partition
LABELS_OF_NEIGHBOURS = ("source", "sequence", "number")  # what tells of partitions
Examples = dict[str, list[tuple[Any, ...]]]


class Rescaled(World):
    """A replay whose roles stand still now and then, and go on with other partitions."""

    def __init__(self, seed: int, state: Path, of: tuple[Feature, ...], partitions: int, *, is_replay: bool) -> None:
        super().__init__(seed, state, EVENTS, is_replay=is_replay, with_faults=False, of=of, partitions=partitions)
        self.gone: list[tuple[str, Record]] = []  # records of topics that were made anew

    @staticmethod
    def _us(seconds: float) -> int:
        return int(seconds * 1e6)  # no two of one time: which is first must not hang on partitions

    def go(self, share: float) -> None:
        """Publish a share of what is left, while all roles work."""
        end = len(self._plan) - round(len(self._plan) * share)
        while len(self._plan) > end:
            self._publish(min(len(self._plan) - end, self.rng.randint(1, 6)))
            for _ in range(self.rng.randint(1, 6)):
                self._act()

    def finish(self) -> None:
        """Publish the rest and the end, and let all be taken."""
        self.go(1.0)
        for topic, place in self.raw:
            self.broker.append(topic, place, None, None, [("millrace-mark", b"end")])
        self._drain()

    def stand_still(self, *, is_drained: bool = True) -> None:
        """Let everything inside be taken, live, so that nobody waits; then stop all roles."""
        for member in [one for one in self.members if one.role == "ingest"]:
            member.worker.stop()
            self.members.remove(member)
        if is_drained:
            for member in self.members:
                member.worker.stop()
            self.members.clear()
            self.is_replay, was = False, self.is_replay
            self._start_all({role: places for role, places in self.inputs.items() if role != "ingest"})
            self.now += 30.0
            self._drain()
            self.is_replay = was
        for member in self.members:
            member.worker.stop()
        self.members.clear()

    def rescale(self, partitions: int) -> None:
        """Run the command's work with another number in the file."""
        self.pipeline = msgspec.structs.replace(self.pipeline, partitions=partitions)
        self.inputs = inputs_of(self.pipeline)
        log, control = self.broker.logs, self.control()
        doors = Doors(self.broker, partial(MemoryInbox, self.broker), lambda t, p, start: log[t, p][start:], control)
        before = [(topic, record) for (topic, _), records in log.items() for record in records if topic in REMADE]
        Rescaling(self.pipeline, doors, lambda _: None).run()
        self.gone += before

    def start_again(self) -> None:
        """Start all roles, with the file as it is now."""
        self._start_all(self.inputs)

    def _start_all(self, inputs: dict[str, list[tuple[str, int]]]) -> None:
        for role, places in inputs.items():
            self._start(role, places)

    # What came out, by id

    def examples(self) -> Examples:
        """Rows of P.examples by id, without what tells of partitions; the first of repeats."""
        table = verify.table(self, "examples", 0, verify.schemas_of(self.pipeline).examples)
        found: Examples = {}
        seen = set()
        for row in table.to_arrow().to_pylist():
            name = row["source"], row["sequence"]
            if row["kind"] <= LABEL and name not in seen:
                seen.add(name)
                told = tuple(repr(value) for key, value in row.items() if key not in LABELS_OF_NEIGHBOURS)
                found.setdefault(row["id"], []).append(told)
        return found

    def answers(self) -> dict[str, int]:
        """How often each event was answered."""
        found: dict[str, int] = {}
        for partition in range(self.broker.counts["w.predictions"]):
            for record in self.records("w.predictions", partition):
                name = msgspec.json.decode(record.value() or b"")["id"]
                found[name] = found.get(name, 0) + 1
        return found

    def task(self) -> LearnTask:
        """The candidate."""
        worker = next(m.worker for m in self.members if m.role == "learn" and m.worker.stations)
        task = worker.stations[0].task
        assert isinstance(task, LearnTask)
        return task


REMADE = ("w.log", "w.features")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("os.fsync", lambda _: None)
    return tmp_path


def undisturbed(state: Path, of: tuple[Feature, ...], partitions: int, *, is_replay: bool = True) -> Rescaled:
    world = Rescaled(5, state / "whole", of, partitions, is_replay=is_replay)
    world.finish()
    return world


def learned(world: Rescaled) -> tuple[State, dict[str, float]]:
    task = world.task()
    return task.learner.state(), {name: value for name, value in task.metrics().items() if name != "bytes"}


def assert_same(world: Rescaled, whole: Rescaled) -> None:
    """Vectors, outcomes, scores and weights."""
    assert world.examples() == whole.examples()
    assert world.answers() == whole.answers() == dict.fromkeys(whole.examples(), 1)
    (mine, figures), (others, expected) = learned(world), learned(whole)
    assert figures == pytest.approx(expected, nan_ok=True, rel=0, abs=0)
    for name, array in others.items():
        assert np.array_equal(mine[name], array, equal_nan=array.dtype.kind == "f"), name


@pytest.mark.parametrize("of", [OF_THE_KEY, OF_A_CHAIN], ids=["one", "chain"])
@pytest.mark.parametrize("numbers", [(2, 3), (3, 2), (2, 3, 1, 4)], ids=str)
def test_everything_is_as_with_one_number_of_partitions(
    numbers: tuple[int, ...], of: tuple[Feature, ...], state: Path
) -> None:
    """Bit for bit: windows that are filled and events that wait go on elsewhere, and labels find their predictions."""
    world = Rescaled(5, state / "rescaled", of, numbers[0], is_replay=True)
    for number in numbers[1:]:
        world.go(0.5)
        world.stand_still()
        world.rescale(number)
        world.start_again()
    world.finish()

    assert_same(world, undisturbed(state, of, numbers[0]))
