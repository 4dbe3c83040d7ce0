"""A chain whose first stage has lost its state and goes on without it (`on_gap = "continue"`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from consumers.chain_tasks import LastTask
from streams.features import columns
from streams.frames import EVENT, LABEL, MISSING, SET, examples_schema
from tests.faults.world import OF_SEVERAL, World, install
from tests.memory_feed import Row, rows_of
from tests.serving.test_chain_audit import Written, skew

EVENTS = 120


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Half of the events, then the first stage's snapshots are gone; it is told to go on, and takes the rest."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    world = World(1, tmp_path, EVENTS, with_faults=False, of=OF_SEVERAL)
    install(monkeypatch, world)
    half = len(world._plan) // 2
    while len(world._plan) > half:
        world._publish(5)
        for member in world.members:
            member.worker.step(0)
            member.outbox.flush()
    first = next(member for member in world.members if member.role == "features")
    first.worker.snapshot()
    lost = [path for path in (tmp_path / "snapshots" / "features").rglob("*") if path.is_file()]
    assert lost
    for path in lost:
        path.unlink()
    run = msgspec.structs.replace(world.pipeline.run, on_gap="continue")
    world.pipeline = msgspec.structs.replace(world.pipeline, run=run)
    world._crash(first)
    world.run()
    return world


def generations(world: World) -> dict[int, int]:
    """The generation of every source of the first stage."""
    control = world.control()
    control.refresh()
    return {source: claim.generation for source, claim in control._claims.items() if claim.stream == "features"}


def examples(world: World) -> list[Row]:
    """P.examples as a reader takes it."""
    schema, last, taken = examples_schema(columns(world.pipeline)), dict[int, int](), []
    for row in (row for record in world.records("w.examples", 0) for row in rows_of(schema, record)):
        if row["kind"] <= LABEL and row["sequence"] > last.get(row["source"], -1):
            last[row["source"]] = row["sequence"]
            taken.append(row)
    return taken


def test_events_are_repeated_as_other_events_and_each_is_settled_once(world: World) -> None:
    """Those before the loss come twice, under numbers of their own; none of them is left waiting, and none is lost."""
    rows = examples(world)
    events = Counter(row["id"] for row in rows if row["kind"] == EVENT)
    settled = Counter((row["source"], row["number"]) for row in rows if row["outcome"] in (SET, MISSING))

    assert set(generations(world).values()) == {0, 1}
    assert set(events) == {f"e{at}" for at in range(EVENTS)}
    assert Counter(events.values()).keys() == {1, 2}
    assert settled == Counter({(row["source"], row["number"]): 1 for row in rows if row["kind"] == EVENT})


def test_the_last_stage_can_explain_every_row(world: World) -> None:
    tasks = [
        station.task
        for member in world.members
        for station in member.worker.stations
        if isinstance(station.task, LastTask)
    ]

    assert len(tasks) == 2
    assert [task.unaccounted_rows() for task in tasks] == [0, 0]
    assert [task.pending_events() for task in tasks] == [0, 0]


def test_what_goes_on_is_what_its_input_gives(world: World) -> None:
    """Of the new generation, too, in every stage: an audit follows both."""
    tallies = Written(world).tallies()

    assert skew(tallies) == [0, 0, 0, 0]
    assert sum(tally.compared for tally in tallies[-1]) == sum(row["kind"] == EVENT for row in examples(world)) > EVENTS
