"""Another number of partitions in the middle of a run: by id, everything is as in a run that always had one number."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import serving.rescaling
from consumers.learn import LearnTask
from models.learner import State
from serving.brokers import is_rescaling
from serving.rescale_doors import Doors
from serving.rescaling import Rescaling
from streams.errors import PipelineError, SnapshotError, UnavailableError
from streams.frames import LABEL
from streams.pipeline import Feature
from streams.state_folder import state_of
from tests.faults import verify
from tests.faults.crashing import CrashError, crashing_at
from tests.faults.world import OF_SEVERAL, OF_THE_KEY, START_S, World, inputs_of
from tests.memory_kafka import MemoryInbox

EVENTS = 150
OF_A_CHAIN = (*OF_SEVERAL, Feature("n_shop", "count", "*", "shop", 9_000_000))  # not bounded: caps hold for a partition
OF_PARTITIONS = ("source", "sequence", "number")  # what tells of partitions
Examples = dict[str, list[tuple[Any, ...]]]


class Rescaled(World):
    """A replay whose roles stand still now and then, and go on with other partitions."""

    def __init__(self, seed: int, state: Path, of: tuple[Feature, ...], partitions: int, *, is_replay: bool) -> None:
        super().__init__(seed, state, EVENTS, is_replay=is_replay, with_faults=False, of=of, partitions=partitions)

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
        Rescaling(self.pipeline, doors, lambda _: None).run()

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
                told = tuple(repr(value) for key, value in row.items() if key not in OF_PARTITIONS)
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


def aliases_in(world: Rescaled) -> set[int]:
    """The aliases that label rows bear."""
    table = verify.table(world, "examples", 0, verify.schemas_of(world.pipeline).examples)
    return set((table.numbers("number")[table.numbers("kind") == LABEL] >> 40).tolist()) - {0}


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
    assert len(aliases_in(world)) >= sum(numbers[:-1]) - 1
    assert not is_rescaling(state_of(world.pipeline))


def test_a_candidate_that_begins_later_learns_the_same(state: Path) -> None:
    """From the first example on, over both numbers of partitions."""
    world = Rescaled(5, state, OF_THE_KEY, 2, is_replay=True)
    world.go(0.5)
    world.stand_still()
    world.rescale(3)
    world.start_again()
    world.finish()

    examples = verify.table(world, "examples", 0, verify.schemas_of(world.pipeline).examples)
    verify.check_learning(world, world.control(), examples, world.pipeline.models[0], set())
    assert world.task().board.count("dropped") == world.task().board.count("unseen") == 0


@pytest.mark.parametrize("of", [OF_THE_KEY, OF_SEVERAL], ids=["one", "chain"])
@pytest.mark.parametrize("seed", range(3))
def test_live_every_event_is_answered_and_settled_once(seed: int, of: tuple[Feature, ...], state: Path) -> None:
    """With late, doubled and amended labels, doubled and early events, and bounded entities in the chain."""
    world = Rescaled(seed, state, of, 2, is_replay=False)
    for number in (3, 2):
        world.go(0.5)
        world.stand_still()
        world.rescale(number)
        world.start_again()
    world.finish()

    examples = verify.table(world, "examples", 0, verify.schemas_of(world.pipeline).examples)
    verify.check_outcomes(world, examples)
    verify.check_learning(world, world.control(), examples, world.pipeline.models[0], set())
    assert world.answers() == dict.fromkeys(world.examples(), 1)
    assert world.task().board.pending() == 0


POINTS = ("after_staged", "after_deleted", "after_topics", "after_one", "after_published")


@pytest.mark.parametrize("of", [OF_THE_KEY, OF_A_CHAIN], ids=["one", "chain"])
@pytest.mark.parametrize("point", POINTS)
def test_a_command_that_was_killed_is_run_again(
    point: str, of: tuple[Feature, ...], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any place behind the record; no role starts before it is done."""
    world = Rescaled(5, state / "rescaled", of, 2, is_replay=True)
    world.go(0.5)
    world.stand_still()
    for _ in range(1 if point == "after_staged" else 2):  # that place is passed once
        with monkeypatch.context() as patch:
            patch.setattr(serving.rescaling, "fail_point", crashing_at(point))
            with pytest.raises(CrashError):
                world.rescale(3)
        assert is_rescaling(state_of(world.pipeline))
    with pytest.raises(PipelineError, match="a change to 3 partitions was begun; finish it first"):
        world.rescale(4)
    world.rescale(3)
    world.start_again()
    world.finish()

    assert_same(world, undisturbed(state, of, 2))


def test_killed_before_the_record_everything_is_as_it_was(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was staged is in nobody's way, also not of another number later."""
    world = Rescaled(5, state / "rescaled", OF_THE_KEY, 2, is_replay=True)
    world.go(0.5)
    world.stand_still()
    crash = crashing_at("record")
    with monkeypatch.context() as patch:
        patch.setattr(Rescaling, "_publish_record", lambda *_: crash("record"))
        with pytest.raises(CrashError):
            world.rescale(4)
    world.pipeline = msgspec.structs.replace(world.pipeline, partitions=2)
    world.inputs = inputs_of(world.pipeline)
    world.start_again()
    world.go(0.5)
    world.stand_still()
    world.rescale(3)
    world.start_again()
    world.finish()

    assert_same(world, undisturbed(state, OF_THE_KEY, 2))


def still(state: Path, *, is_drained: bool = True) -> Rescaled:
    world = Rescaled(5, state, OF_A_CHAIN, 2, is_replay=True)
    world.go(0.5)
    world.stand_still(is_drained=is_drained)
    return world


def test_what_has_not_been_taken_is_named(state: Path) -> None:
    """Each topic's partition with its reader, and what to do; nothing is changed then."""
    world = still(state, is_drained=False)

    with pytest.raises(SnapshotError) as caught:
        world.rescale(3)

    *left, advice = str(caught.value).splitlines()
    assert all(" messages not taken by " in line for line in left)
    assert any(line.startswith("w.log partition") and line.endswith("by features") for line in left)
    assert advice.startswith("not everything inside w has been taken: start the pipeline with the old number")
    assert world.broker.counts["w.log"] == 2
    assert not is_rescaling(state_of(world.pipeline))


def test_marks_at_the_end_of_a_topic_are_nothing_to_take(state: Path) -> None:
    """Every role writes them when it stops; whoever reads them may have stopped before."""
    world = still(state)
    ingest = world._start("ingest", world.inputs["ingest"])
    before = len(world.records("w.log", 0))  # all of it was taken
    source = ingest.worker.stations[0].sources[0]
    ingest.worker._outlet.put_mark(("log", 0), source, int(world.now * 1e6))
    ingest.worker._outlet.send()
    ingest.outbox.flush()
    world.members.clear()
    assert len(world.records("w.log", 0)) > before > 0

    world.rescale(3)

    assert world.broker.counts["w.log"] == 3


def test_rows_that_ingest_would_send_again_are_refused(state: Path) -> None:
    """They would go to other partitions, whose readers could not tell that they are there."""
    world = still(state)
    for key, (offset, metadata) in list(world.broker.commits.items()):
        if key[:2] == ("w.ingest", "w.events"):
            world.broker.commits[key] = (offset - 1, metadata)

    with pytest.raises(SnapshotError, match=r"events partition 0 to offset \d+, committed is \d+; start the pipeline"):
        world.rescale(3)


def test_a_role_at_work_is_refused(state: Path) -> None:
    """Its rows would go to topics that are about to be deleted."""
    world = still(state)
    world.broker.joined["w.features-2"] = 1

    with pytest.raises(UnavailableError, match=r"group w.features-2 has 1 member: stop all roles first"):
        world.rescale(3)


def test_another_state_directory_is_refused(state: Path) -> None:
    """Two directories, and the commits were made with the snapshots of the other."""
    world = still(state / "one")
    world.pipeline = msgspec.structs.replace(world.pipeline, state=state / "two")

    with pytest.raises(SnapshotError, match="the snapshots are gone: the group commit names manifest-"):
        world.rescale(3)


def test_the_number_that_there_is_is_refused(state: Path) -> None:
    """Else a finished change would be done once more."""
    world = still(state)

    with pytest.raises(PipelineError, match="w has 2 partitions already"):
        world.rescale(2)


def marks_of(world: Rescaled, role: str) -> list[int]:
    """The clocks of a role's partitions."""
    return [one.inlet.mark() for member in world.members if member.role == role for one in member.worker.stations]


@pytest.mark.parametrize("partitions", [3, 1])
def test_no_clock_falls_back(partitions: int, state: Path) -> None:
    """In no stage, though whoever writes between stages is a new source that has said nothing yet."""
    world = still(state)
    world.start_again()
    roles = [role for role in world.inputs if role.startswith("features")]
    before = {role: max(marks_of(world, role)) for role in roles}
    for member in world.members:
        member.worker.stop()
    world.members.clear()

    world.rescale(partitions)
    world.start_again()

    assert min(before.values()) > int(START_S * 1e6)
    assert {role: marks_of(world, role) for role in roles} == {role: [before[role]] * partitions for role in roles}
    world.finish()
    assert_same(world, undisturbed(state, OF_A_CHAIN, 2))


def test_what_ingest_sends_again_counts_once(state: Path) -> None:
    """A worker that was frozen all the while goes on from an older place."""
    world = Rescaled(5, state / "rescaled", OF_THE_KEY, 2, is_replay=True)
    world.go(0.5)
    world.stand_still()
    world.rescale(3)
    for key, (offset, metadata) in list(world.broker.commits.items()):
        if key[0] == "w.ingest":
            world.broker.commits[key] = (max(0, offset - 20), metadata)
    world.start_again()
    world.finish()

    repeats = sum(
        one.inlet.state()["flags"][2] for m in world.members if m.role == "features" for one in m.worker.stations
    )
    assert repeats > 20
    assert_same(world, undisturbed(state, OF_THE_KEY, 2))


def test_no_more_snapshots_are_kept_than_ever(state: Path) -> None:
    """Those of the old topics are forgotten like any, and nothing staged is left."""
    world = still(state)

    world.rescale(3)

    folders = [folder for folder in state.rglob("*-p?") if folder.is_dir()]
    assert len([folder for folder in folders if list(folder.glob("manifest-*"))]) == 3 * 5 + 1
    assert all(len(list(folder.glob("manifest-*"))) <= 2 for folder in folders)
    assert list((state / "rescale").rglob("*.*")) == []
