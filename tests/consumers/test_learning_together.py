"""What drift, amendments, quarantine and snapshots do to each other: whatever the batches, the same comes out."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.drifting import Drifting
from consumers.learn import LearnTask
from consumers.quarantine import parameters_of
from models.learner import Learner, State, make_learner
from streams.drift import Drift, OnDrift, PageHinkley
from streams.frames import AMENDED, EVENT, LABEL, NO_OUTCOME, SET, Batch, Column, Outgoing, build, examples_schema
from streams.pipeline import Model, Task
from streams.tables import Table

COLUMNS = (Column("a", False),)
KEY = b"k" * 32
WATCHED = Drift(
    loss=("page_hinkley",), features="off", page_hinkley=PageHinkley(min_instances=30, delta=0.005, threshold=5.0)
)
FLIP = 200  # the event from which on no label is a yes: an alarm comes within a few tens of rows
Row = tuple[int, int, int, float, int, float]  # kind, number, time, label, outcome, a


def task(model: Model, on_drift: OnDrift, relearn_rows: int = 300, **options: Any) -> LearnTask:
    def make(_: tuple[Column, ...]) -> Learner:
        return make_learner(model, COLUMNS, KEY)

    drift = Drifting(WATCHED, COLUMNS, on_drift, relearn_rows)
    return LearnTask("m", make(COLUMNS), COLUMNS, bind=make, drift=drift, parameters=parameters_of(model), **options)


def stream(events: int, odd: dict[int, float] | None = None, *, counts: bool = False) -> list[Row]:
    """Give events, each with its label right behind it; `odd` has the values of `a` that are not as usual."""
    rows: list[Row] = []
    for i in range(events):
        a = (odd or {}).get(i, float(i) if counts else 1.0)
        rows.append((EVENT, i, 10 * i, math.nan, NO_OUTCOME, a))
        rows.append((LABEL, i, 10 * i + 5, float(i < FLIP), SET, a))
    return rows


def table(rows: list[Row]) -> Table:
    kind, number, time, label, outcome, a = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"kind": kind, "source": np.full(len(rows), 7), "number": number, "time": time}
    vector = a.astype(float)[:, None]
    columns |= {"label": label.astype(float), "outcome": outcome, "vector": vector}
    return build(examples_schema(COLUMNS), columns, len(rows))


def drive(learn: LearnTask, rows: Table, size: int) -> list[Outgoing]:
    found: list[Outgoing] = []
    for start in range(0, rows.num_rows, size):
        part = rows.slice(start, min(size, rows.num_rows - start))
        clock = np.zeros(part.num_rows, np.int64)
        found += learn.process(Batch(part, clock, clock))
    return found


def decided(found: list[Outgoing]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(v) for out in found if out.topic == "decisions" for v in out.values.unpack()]


def copied(state: State) -> State:
    return {name: np.array(array) for name, array in state.items()}


def test_a_snapshot_from_before_the_first_label_is_read() -> None:
    """A role takes one as soon as it begins, and labels may be weeks away."""
    model = Model("m", "linear", {"bits": 8})
    fresh, begun = task(model, "relearn"), task(model, "relearn")
    drive(begun, table(stream(1)[:1]), 1)

    for learn in (fresh, begun):
        again = task(model, "relearn")
        again.restore(copied(learn.state()))
        assert again.version == (0, 0)


@pytest.mark.parametrize("on_drift", ["none", "relearn"])
def test_amended_rows_are_no_examples_in_a_decision_whatever_the_batches(on_drift: OnDrift) -> None:
    """Nor are they kept to relearn from, beside what they amend."""
    rows = stream(400)
    amended: list[Row] = [(LABEL, i, 4_100, 0.0, AMENDED, 1.0) for i in range(20)]
    made = table(rows[:410] + amended + rows[410:])
    runs = []
    for size in (10_000, 64, 1):
        learn = task(Model("m", "linear", {"bits": 8}), on_drift, keep_us=10**9, is_relearned=True)
        runs.append((decided(drive(learn, made, size)), learn.version))

    assert runs[0] == runs[1] == runs[2]
    alarm = next(one for one in runs[0][0] if one["direction"] == "up")
    assert alarm["examples"] == alarm["number"] + 1  # every event up to this one was learned once


def test_a_candidate_that_is_set_aside_is_not_renewed_and_its_decisions_stand_in_order() -> None:
    made, runs = table(stream(600, odd={190: 99.0})), []
    for size in (10_000, 50, 1):
        learn = task(Model("m", "tests.own_learners:Fragile", {"limit": 50.0}), "reset")
        runs.append((decided(drive(learn, made, size)), learn.version))

    assert runs[0] == runs[1] == runs[2]
    found, version = runs[0]
    assert version == (0, 190)
    assert [one["number"] for one in found] == sorted(one["number"] for one in found)
    behind = [one for one in found if one["number"] > 190]
    assert behind
    assert {(one["decision"], one["action"], one["examples"]) for one in behind} == {("drift", "none", 190)}


@pytest.mark.parametrize("restart", [None, 1_000])
def test_a_model_that_raises_while_it_is_relearned_is_set_aside(restart: int | None) -> None:
    """In its new lineage, with as many examples as it took; a restart behind that changes nothing."""
    model, made = Model("m", "tests.own_learners:Picky", {}), table(stream(800, counts=True))
    learn = task(model, "relearn", relearn_rows=100)
    found = drive(learn, made.slice(0, restart or made.num_rows), 7)
    if restart is not None:
        state, learn = copied(learn.state()), task(model, "relearn", relearn_rows=100)
        learn.restore(state)
        found += drive(learn, made.slice(restart, made.num_rows - restart), 7)

    quarantined = [one for one in decided(found) if one["decision"] == "quarantined"]
    assert [(one["lineage"], "no more of these" in one["reason"]) for one in quarantined] == [(1, True)]
    assert learn.version == (1, 50)
    assert learn.ward.quarantine is not None
    assert int(learn.learner.state()["rows"]) == 50


def test_a_learner_that_raises_at_its_state_is_set_aside_as_it_was_written_last() -> None:
    """Its process goes on."""
    learn = task(Model("m", "tests.own_learners:Unwritable", {}), "none")
    drive(learn, table(stream(20)), 7)
    state = copied(learn.state())
    found = decided(drive(learn, table(stream(21)[40:]), 1))

    assert int(state["learner.rows"]) == 0
    assert [(one["decision"], one["row"]) for one in found] == [("quarantined", "no")]
    again = task(Model("m", "tests.own_learners:Unwritable", {}), "none")
    again.restore(state)
    assert again.ward.quarantine is not None


@pytest.mark.parametrize("number", [-150.0, -1e9, 1e300, 2.5])
def test_a_cluster_that_there_cannot_be_is_no_answer(number: float) -> None:
    """It once wrote outside of arrays; now the row is of cluster 0, as if nothing were known."""
    model = Model("m", "tests.own_learners:Grouping", {"number": number})
    learner = make_learner(model, COLUMNS, KEY, Task("clustering"))
    X_BF = np.random.default_rng(0).normal(size=(200, 1))
    learner.learn(X_BF, np.full(200, np.nan))

    assert learner.predict(X_BF)[:, 0].tolist() == [0.0] * 200
