"""Shadowing: blocks of answers and of candidates, whichever comes first, and what is given up."""

from __future__ import annotations

import numpy as np
import pytest

from consumers import shadowing
from consumers.score_records import Block, ScoresRecord
from consumers.shadowing import Shadowing
from models.label_blocks import Blocks

MODELS = ["linear", "tree"]


def answered(shadow: Shadowing, block: int, loss: float, model: int = 0) -> None:
    """Let a block of answers of one model become complete."""
    number = np.arange(100 * block, 100 * block + 100)
    shadow.enter(np.full(100, 7, np.int32), number, np.full(100, model, np.int16))
    one, time = np.array([block]), np.array([0])
    shadow.leave(Blocks(np.array([7], np.int32), one, time, time, np.full((1, 100), loss, np.float32), time))


def own(shadow: Shadowing, block: int, loss: float, candidate: str = "linear", time_us: int = 0) -> None:
    """Let a block of a candidate come."""
    made = Block(7, block, 100, time_us, time_us, np.full(100, loss, "<f4").tobytes())
    shadow.hear(ScoresRecord(candidate, 0, 0, "number", 1.0, 1, (made,)))


def shadow() -> Shadowing:
    return Shadowing(("linear", "tree"), list(MODELS))


def test_either_side_may_be_ahead() -> None:
    """What comes first waits, and nothing of it is left when the other has come."""
    found = shadow()
    answered(found, 0, 0.5)
    own(found, 0, 0.25)
    own(found, 1, 0.25)
    own(found, 1, 0.25, "tree")  # has answered nothing
    answered(found, 1, 1.0)
    state = found.state()

    assert found.cost.since_start() == (200, 0.5)
    assert found.uncompared == 0
    assert state["own.losses"].size == state["answered.losses"].size == state["open"].size == 0


def test_a_block_that_its_candidate_never_gave_is_uncompared() -> None:
    """It began anew within it: known when it gives the next one, whether answers were there before or after."""
    before, after = shadow(), shadow()
    answered(before, 0, 0.5)
    answered(before, 1, 0.5)
    own(before, 1, 0.25)
    own(after, 1, 0.25)
    answered(after, 0, 0.5)
    answered(after, 1, 0.5)

    for found in (before, after):
        assert found.uncompared == 1
        assert found.cost.since_start() == (100, 0.25)


def test_no_more_waits_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are given up, the oldest first; of candidates no more is read, unless what waits is too old to be met."""
    monkeypatch.setattr(shadowing, "MOST_ANSWERED", 3)
    monkeypatch.setattr(shadowing, "MOST_OWN", 3)
    slow, fast = shadow(), shadow()
    for block in range(5):
        answered(slow, block, 0.5)
        own(fast, block, 0.5, time_us=block)
    for block in range(5):
        own(slow, block, 0.5)
    is_full = fast.is_full
    fast.prune(before_us=3)

    assert slow.uncompared == 2
    assert slow.cost.since_start() == (300, 0.0)
    assert (is_full, fast.is_full) == (True, False)


def test_a_source_that_was_replaced_is_forgotten() -> None:
    """With all that waits of it, on either side."""
    found = shadow()
    answered(found, 0, 0.5)
    own(found, 1, 0.25)
    found.drop(7)

    assert found.uncompared == 1
    assert {name: array.size for name, array in found.state().items() if "losses" in name} == {
        "answered.losses": 0,
        "own.losses": 0,
    }


def test_what_waits_of_a_candidate_that_the_file_names_no_more_is_forgotten() -> None:
    found, other = shadow(), Shadowing(("tree",), list(MODELS))
    answered(found, 0, 0.5)
    own(found, 1, 0.25)
    other.restore(found.state())

    assert other.state()["answered.losses"].size == other.state()["own.losses"].size == 0
