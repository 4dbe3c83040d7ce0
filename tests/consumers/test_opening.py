"""Where a worker begins: every line of PROTOCOL 22."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from consumers.learn_snapshot import lineage_of
from consumers.opening import Input, Start, beginning_state, decide_start
from consumers.station import TASK
from streams.errors import SnapshotError
from streams.snapshots import Found, Manifest, State, Witness, part_of

NOTHING = Found(0, None, None)
STATE: State = {"a": np.zeros(1)}
NOW = Input("p.log", "u1", 3, 0, 100, {"p.log": 4, "p.features": 4}, "s1")
ADVICE = 'run `millrace rebuild FILE{}`, or set [run] on_gap = "continue" to go on with a gap'
OF_INPUT = ("cut", "ends early", "recreated")


def manifest(position: int = 50, **changes: Any) -> Manifest:
    """A snapshot of NOW's partition."""
    parts: dict[str, Any] = {
        "number": 7,
        "topic": "p.log",
        "topic_id": "u1",
        "partition": 3,
        "partitions": NOW.partitions,
        "position": position,
        "generation": 2,
        "schema": "s1",
        "part": "part",
        "digest": "d",
        "arrays": (),
        "outputs": {},
    }
    return Manifest(**{**parts, **changes})


def found(newest: int = 7, position: int = 50, **changes: Any) -> Found:
    """A directory whose newest valid snapshot is this one."""
    held = manifest(position, **changes)
    return Found(newest, held, STATE, held.generation)


def witness(number: int = 7, generation: int = 2) -> Witness:
    """What the group commit says."""
    return Witness(f"manifest-{number}", "digest", number, generation)


def now(**changes: Any) -> Input:
    """The input, otherwise as NOW."""
    return msgspec.structs.replace(NOW, **changes)


def assert_begins_at(start: Start, position: int, generation: int, *, has_state: bool) -> None:
    """Compare what matters of a start."""
    assert (start.position, start.generation) == (position, generation)
    assert (start.manifest is not None) == (start.state is not None) == has_state


# With a snapshot


@pytest.mark.parametrize("commit", [None, witness(7), witness(6), witness(7, generation=1)])
def test_the_newest_that_verifies_decides(commit: Witness | None) -> None:
    """The commit may be older, or absent after a crash before the first one: the snapshot stands."""
    assert_begins_at(decide_start(found(), commit, NOW, "stop"), 50, 2, has_state=True)


def test_an_older_valid_one_is_used_when_the_newest_is_damaged() -> None:
    """The witness names a manifest that is present: nothing was lost, rows since then are read again."""
    assert_begins_at(decide_start(found(newest=8, position=40), witness(8), NOW, "stop"), 40, 2, has_state=True)


@pytest.mark.parametrize(("low", "high"), [(50, 100), (0, 50), (50, 50)])
def test_the_input_may_begin_or_end_exactly_there(low: int, high: int) -> None:
    """Nothing is missing at the edges."""
    assert_begins_at(decide_start(found(), witness(), now(low=low, high=high), "stop"), 50, 2, has_state=True)


# With neither


@pytest.mark.parametrize(
    ("start", "low", "position", "is_from_start"),
    [
        ("earliest", 0, 0, True),
        ("earliest", 30, 30, False),
        ("latest", 0, 100, False),
    ],
)
def test_with_neither_snapshot_nor_witness_a_role_begins(
    start: str,
    low: int,
    position: int,
    is_from_start: bool,
) -> None:
    """At the earliest row, or serve at the latest if it says so; only one at offset 0 demands sequence 0."""
    found_start = decide_start(NOTHING, None, now(low=low), "stop", start)

    assert_begins_at(found_start, position, 0, has_state=False)
    assert found_start.is_from_start == is_from_start


def test_the_latest_of_an_empty_topic_is_its_start() -> None:
    """Then every row will be read."""
    assert decide_start(NOTHING, None, now(high=0), "stop", "latest").is_from_start


# What does not fit

GAPS = {
    "gone": (NOTHING, witness(), NOW, "the snapshots are gone: the group commit names manifest-7, none is present"),
    "missing": (
        found(newest=5),
        witness(),
        NOW,
        "snapshots are missing: the group commit names manifest-7, the newest present is number 5",
    ),
    "damaged": (
        Found(7, None, None, 2),
        witness(),
        NOW,
        "no snapshot verifies: all manifests or parts are damaged",
    ),
    "damaged without a commit": (
        Found(7, None, None, 2),
        None,
        NOW,
        "no snapshot verifies: all manifests or parts are damaged",
    ),
    "cut": (
        found(),
        witness(),
        now(low=51),
        "the input was cut by retention: snapshot at offset 50, earliest is 51",
    ),
    "ends early": (
        found(),
        witness(),
        now(high=49),
        "the input ends early: snapshot at offset 50, the topic ends at 49",
    ),
    "recreated": (
        found(),
        witness(),
        now(topic_id="u2", partitions={"p.log": 8}),
        "the topic was recreated: snapshot of u1, topic is u2",
    ),
    "older generation": (
        found(generation=1),
        witness(generation=2),
        NOW,
        "only snapshots of generation 1 verify, the group commit is of 2",
    ),
}


@pytest.mark.parametrize("name", GAPS)
def test_a_gap_stops_with_one_line(name: str) -> None:
    """What happened, what was found, what to do, and where."""
    held, commit, input_, problem = GAPS[name]

    with pytest.raises(SnapshotError) as caught:
        decide_start(held, commit, input_, "stop", role="features")

    advice = ADVICE.format("" if name in OF_INPUT else " --role features")
    assert str(caught.value) == f"p.log partition 3: {problem}; {advice}"


@pytest.mark.parametrize("role", ["serve", "learn.tree", "features-2"])
@pytest.mark.parametrize("name", GAPS)
def test_a_role_behind_the_log_names_its_own_rebuild(name: str, role: str) -> None:
    """Whatever has happened to what it reads: the stage before can write that again, or begins at what is there."""
    held, commit, input_, _ = GAPS[name]

    with pytest.raises(SnapshotError) as caught:
        decide_start(held, commit, input_, "stop", role=role)

    assert str(caught.value).endswith(ADVICE.format(f" --role {'features' if role == 'features-2' else role}"))


def test_what_a_rebuild_left_begins_anew_where_it_says() -> None:
    """With the generation it names; what a candidate has had before is at hand to tell the lineage from."""
    held = msgspec.structs.replace(found(position=0, generation=4), state=beginning_state(lineage=2))

    start = decide_start(held, witness(generation=2), NOW, "stop")

    assert (start.position, start.generation, start.is_from_start, start.manifest) == (0, 4, True, None)
    assert start.restart == "it was rebuilt by `millrace rebuild`"
    assert lineage_of(part_of(start.state or {}, TASK)) == 2


@pytest.mark.parametrize("name", GAPS)
def test_going_on_with_a_gap_starts_the_next_generation(name: str) -> None:
    """Without state, at the earliest row, above every generation that is known of."""
    held, commit, input_, _ = GAPS[name]

    start = decide_start(held, commit, input_, "continue")

    assert_begins_at(start, input_.low, 3, has_state=False)
    assert start.is_from_start == (input_.low == 0)


@pytest.mark.parametrize("on_gap", ["stop", "continue"])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"partitions": {"p.log": 8, "p.features": 4}}, "partition counts changed"),
        ({"partitions": {"p.log": 4, "p.features": 5}}, "partition counts changed"),
    ],
)
def test_other_partition_counts_always_stop(
    changes: dict[str, Any], problem: str, on_gap: Literal["stop", "continue"]
) -> None:
    """No gap explains them: going on would mix what does not belong together (PROTOCOL 8)."""
    with pytest.raises(SnapshotError, match=f"p.log partition 3: {problem}.*; run `millrace rebuild FILE`$"):
        decide_start(found(), witness(), now(**changes), on_gap)


# What begins anew by itself


def test_a_candidate_whose_input_was_cut_begins_anew() -> None:
    """At the earliest row, in the next generation, with the old state at hand to tell the lineage from."""
    start = decide_start(found(position=10), witness(), now(low=20), "stop", is_renewable=True)

    assert (start.position, start.generation, start.is_from_start) == (20, 3, False)
    assert (start.manifest, start.state) == (None, STATE)
    assert start.restart == "the input was cut by retention: snapshot at offset 10, earliest is 20"


def test_a_candidate_whose_snapshots_are_gone_stops_like_any_role() -> None:
    """Only what retention does is nobody's fault."""
    with pytest.raises(SnapshotError, match="the snapshots are gone"):
        decide_start(NOTHING, witness(), NOW, "stop", is_renewable=True)


# What was exchanged


def test_another_snapshot_under_the_name_that_was_committed_is_noticed() -> None:
    """A state directory restored from elsewhere must not pass for ours."""
    held = msgspec.structs.replace(found(), digests={"manifest-7": "another"})

    with pytest.raises(SnapshotError, match="manifest-7 is not the one that the group commit names"):
        decide_start(held, witness(), NOW, "stop")
