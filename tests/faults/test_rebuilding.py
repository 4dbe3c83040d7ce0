"""Roles that begin anew in the middle of a run: at its end, everything is as in a run that was left alone."""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec
import pytest

import serving.rebuilding
from serving.brokers import is_rebuilding
from serving.rebuilding import Rebuilding
from serving.rescale_doors import Doors
from streams.errors import PipelineError, SnapshotError, UnavailableError
from streams.pipeline import Feature
from streams.state_folder import state_of
from tests.faults import verify
from tests.faults.crashing import CrashError, crashing_at
from tests.faults.test_rescaling import OF_A_CHAIN, Rescaled, learned, undisturbed
from tests.faults.world import OF_THE_KEY
from tests.memory_kafka import MemoryInbox

POINTS = ("after_recorded", "after_deleted", "after_topics", "after_one", "after_published")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("os.fsync", lambda _: None)
    return tmp_path


class Rebuilt(Rescaled):
    """A replay whose roles stand still in the middle, and begin anew."""

    def __init__(self, state: Path, of: tuple[Feature, ...] = OF_THE_KEY, partitions: int = 2) -> None:
        super().__init__(5, state, of, partitions, is_replay=True)

    def stop(self) -> None:
        """Stop all roles as they are, with rows on their way."""
        for member in self.members:
            member.worker.stop()
        self.members.clear()

    def rebuilding(self, role: str) -> Rebuilding:
        """The command's work."""
        log = self.broker.logs
        doors = Doors(
            self.broker, partial(MemoryInbox, self.broker), lambda t, p, start: log[t, p][start:], self.control()
        )
        return Rebuilding(self.pipeline, doors, role)

    def rebuild(self, role: str, *, is_from_retained: bool = False) -> list[str]:
        """Run the command; gives what it says."""
        rebuilding = self.rebuilding(role)
        record = rebuilding.plan(is_from_retained=is_from_retained)
        lines = rebuilding.lines(record)
        rebuilding.run(record)
        return lines

    def answered(self) -> Counter[tuple[str, int]]:
        """How often each event was answered in each generation."""
        found: Counter[tuple[str, int]] = Counter()
        for partition in range(self.pipeline.partitions):
            for record in self.records("w.predictions", partition):
                answer = msgspec.json.decode(record.value() or b"")
                found[answer["id"], answer["generation"]] += 1
        return found


def run_with(
    state: Path, role: str, of: tuple[Feature, ...] = OF_THE_KEY, partitions: int = 2
) -> tuple[Rebuilt, list[str]]:
    """Half of a run, a rebuild, the other half; gives what the command said."""
    world = Rebuilt(state / "rebuilt", of, partitions)
    world.go(0.5)
    world.stop()
    lines = world.rebuild(role)
    world.start_again()
    world.finish()
    return world, lines


def assert_learned_the_same(world: Rescaled, whole: Rescaled) -> None:
    """Weights and all figures, bit for bit."""
    (mine, figures), (others, expected) = learned(world), learned(whole)
    assert figures == pytest.approx(expected, nan_ok=True, rel=0, abs=0)
    assert {name: array.tobytes() for name, array in mine.items()} == {n: a.tobytes() for n, a in others.items()}


def losses(world: Rescaled, lineage: int) -> set[str]:
    """What is told of blocks in a lineage."""
    told = [msgspec.json.decode(record.value() or b"") for record in world.records("w.scores", 0)]
    records = [record for record in told if record["lineage"] == lineage]
    return {block["losses"] for record in records for block in record["blocks"]}


def test_a_candidate_learns_again_from_the_first_example(state: Path) -> None:
    """As the next lineage, with the scores and weights of one that was left alone; nobody else begins anew."""
    whole = undisturbed(state, OF_THE_KEY, 1)

    world, lines = run_with(state, "learn.logistic", partitions=1)

    assert world.task().version == (1, whole.task().examples_seen)
    assert_learned_the_same(world, whole)
    assert losses(world, 1) == losses(whole, 0) != set()
    assert world.examples() == whole.examples()
    assert world.answers() == dict.fromkeys(whole.examples(), 1)
    (record,) = world.records("w.decisions", 0)
    decision = msgspec.json.decode(record.value() or b"")
    assert (decision["decision"], decision["lineage"], decision["generation"]) == ("restarted", 1, 1)
    assert lines == [
        "delete what group w.learn.logistic has committed",
        f"delete the snapshots in {state / 'rebuilt'}/snapshots/learn.logistic",
        "learn.logistic: begin at the earliest row, as generation 1",
        "learned again: logistic as lineage 1; versions there are stay, and answer until the first new one",
    ]


@pytest.mark.parametrize("of", [OF_THE_KEY, OF_A_CHAIN], ids=["one", "chain"])
@pytest.mark.parametrize("role", ["features", ""], ids=["features", "all"])
def test_features_and_all_behind_them_are_computed_again(role: str, of: tuple[Feature, ...], state: Path) -> None:
    """Vectors, outcomes, scores and weights are those of a run that was left alone; every event is answered anew."""
    whole = undisturbed(state, of, 2)

    world, lines = run_with(state, role, of)

    assert world.examples() == whole.examples()
    assert_learned_the_same(world, whole)
    assert world.task().lineage == 1
    answered = world.answered()
    assert {name for name, generation in answered if generation == 1} == set(whole.examples())
    assert set(answered.values()) == {1}
    assert ("delete topic w.log with all its rows" in lines) == (role == "")
    assert ("delete what group w.ingest has committed" in lines) == (role == "")
    assert lines[-1] == "events are answered again on w.predictions, as generation 1"


def test_serve_without_its_snapshots_is_rebuilt_and_answers_nothing_twice(state: Path) -> None:
    """It refuses to start without them, naming the command; then it reads all it has answered, and skips that."""
    world = Rebuilt(state)
    world.go(0.5)
    world.stop()
    shutil.rmtree(state / "snapshots" / "serve")
    with pytest.raises(
        SnapshotError, match=r"the snapshots are gone: .*; run `millrace rebuild FILE --role serve`, or"
    ):
        world.start_again()
    world.stop()

    world.rebuild("serve")
    world.start_again()
    world.finish()

    assert world.answers() == dict.fromkeys(world.examples(), 1)
    assert {generation for _, generation in world.answered()} == {0}


@pytest.mark.parametrize("point", POINTS)
def test_one_that_is_killed_is_finished_by_the_next(point: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then no role may start, and no other rebuild; what was planned first is done."""
    whole = undisturbed(state, OF_THE_KEY, 2)
    world = Rebuilt(state / "killed")
    world.go(0.5)
    world.stop()

    monkeypatch.setattr(serving.rebuilding, "fail_point", crashing_at(point))
    with pytest.raises(CrashError):
        world.rebuild("features")
    assert is_rebuilding(state_of(world.pipeline))
    with pytest.raises(PipelineError, match="finish it first by `millrace rebuild FILE --role features`"):
        world.rebuild("learn")
    monkeypatch.undo()
    world.rebuild("features")
    assert not is_rebuilding(state_of(world.pipeline))
    world.start_again()
    world.finish()

    assert world.examples() == whole.examples()
    assert_learned_the_same(world, whole)
    assert (world.task().lineage, world.task().generation) == (1, 1)
    assert set(world.answered().values()) == {1}


def test_rebuilt_twice_a_candidate_has_another_lineage_each_time(state: Path) -> None:
    world, _ = run_with(state, "learn")
    first = world.task().version
    world.stop()
    world.rebuild("learn")
    world.start_again()
    world._drain()

    assert (first[0], world.task().version) == (1, (2, first[1]))


def test_a_snapshot_that_a_frozen_worker_writes_afterwards_is_passed_over(state: Path) -> None:
    """The rebuilt candidate is of a newer generation, wherever the other one was."""
    world = Rebuilt(state / "thawed")
    world.go(0.5)
    frozen = next(member for member in world.members if member.role == "learn")
    world.members.remove(frozen)
    world.stop()
    world.rebuild("learn.logistic")
    frozen.inbox.is_fenced = True
    frozen.worker.stations[0].save()
    world.start_again()
    world.finish()

    assert world.task().lineage == 1
    assert_learned_the_same(world, undisturbed(state, OF_THE_KEY, 2))


def test_what_is_running_cut_or_unknown_is_refused(state: Path) -> None:
    """In one line each, before anything is changed."""
    world = Rebuilt(state)
    world.go(0.5)
    world.stop()
    before = verify.claims_of(world.control())

    world.broker.joined["w.learn.logistic"] = 1
    with pytest.raises(UnavailableError, match=r"group w\.learn\.logistic has 1 member: stop all roles first"):
        world.rebuild("serve")
    world.broker.joined.clear()
    world.broker.low["w.log", 1] = 3
    with pytest.raises(SnapshotError, match=r"w\.log partition 1 begins at offset 3: .*without --role the raw topics"):
        world.rebuild("features")
    world.broker.low["w.events", 0] = 2
    with pytest.raises(SnapshotError, match=r"w\.events partition 0 begins at offset 2: .*--from-retained begins at"):
        world.rebuild("")
    with pytest.raises(PipelineError, match=r"--role learn\.logistik: .*did you mean 'learn\.logistic'\?"):
        world.rebuilding("learn.logistik")

    assert not is_rebuilding(state_of(world.pipeline))
    assert verify.claims_of(world.control()) == before
    assert world.broker.counts["w.log"] == 2
