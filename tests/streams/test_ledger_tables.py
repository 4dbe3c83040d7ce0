"""The ledger's index and ring against a dict, whatever happens in which order and whenever room is made."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import pytest

from streams.errors import UnavailableError
from streams.ledger import (
    EARLY,
    EMPTY,
    FIRST,
    MOST_RECORDS,
    NEXT,
    PENDING,
    PLACES,
    RENEWED,
    SERIAL_MASK,
    SETTLED_MISSING,
    SETTLED_RETRACTED,
    SETTLED_SET,
    SMALLEST,
    START,
    USED,
    empty_ledger,
    lacks_room_kernel,
)
from streams.ledger_room import ledger_state, restored_ledger, with_ledger_room
from tests import kernels

SLOTS = 4_096
FAR = 10**15


class Known(NamedTuple):
    """What the dict says of a name."""

    kind: int
    slot: int = 0
    number: int = 0
    value: float = 0.0
    until: int = 0


class Both:
    """A ledger, and a dict that says what it must say."""

    def __init__(self, first: int = 0) -> None:
        self.ledger = empty_ledger(entities=2, features=1)
        self.ledger.sizes[[FIRST, NEXT, RENEWED]] = first
        self.names = {PENDING: np.zeros(SLOTS, np.int64), EARLY: np.zeros(SLOTS, np.int64)}
        self.free = {kind: list(range(SLOTS)) for kind in self.names}
        self.known: dict[int, Known] = {}
        self.clock, self.number, self.rooms = 0, 0, 0

    def waiting(self, kind: int) -> int:
        return SLOTS - len(self.free[kind])

    def find(self, name: int) -> int:
        return kernels.find(self.ledger, self.names[PENDING], self.names[EARLY], name)

    def kind(self, name: int) -> int:
        known = self.known.get(name, Known(EMPTY))
        return EMPTY if known.kind >= SETTLED_SET and self.clock > known.until else known.kind

    def make_room(self) -> None:
        self.ledger = with_ledger_room(self.ledger, self.clock, self.waiting(PENDING), self.waiting(EARLY))
        self.rooms += 1

    def wait(self, name: int, kind: int) -> None:
        if lacks_room_kernel(self.ledger, self.waiting(PENDING)):
            self.make_room()
        assert not lacks_room_kernel(self.ledger, self.waiting(PENDING))
        slot, place = self.free[kind].pop(), self.find(name)
        self.names[kind][slot] = name
        kernels.wait(self.ledger, place, name, kind, slot)
        self.known[name] = Known(kind, slot)

    def leave(self, name: int) -> None:
        known = self.known.pop(name)
        self.free[known.kind].append(known.slot)

    def forget(self, name: int) -> None:
        kernels.forget(self.ledger, self.find(name))
        self.leave(name)

    def settle(self, name: int, kind: int, value: float, until: int) -> None:
        self.number += 1
        number = self.number * 2**33  # far above what a word half as long could hold
        kernels.settle(self.ledger, self.find(name), name, kind, number, value, until)
        record = kernels.record(self.ledger, self.find(name))
        self.ledger.others[record], self.ledger.vectors[record] = (number, ~name), -self.number
        self.leave(name)
        self.known[name] = Known(kind, 0, number, value, until)

    def amend(self, name: int, kind: int, value: float) -> None:
        number = self.known[name].number
        kernels.amend(self.ledger, self.find(name), kind, number, value)
        self.known[name] = self.known[name]._replace(kind=kind, value=value)

    def restore(self) -> None:
        state = {f"ledger.{name}": array for name, array in ledger_state(self.ledger).items()}
        self.ledger = restored_ledger(state, self.waiting(PENDING))

    def check(self, names: list[int]) -> None:
        for name in names:
            place, kind = self.find(name), self.kind(name)
            assert kernels.kind(self.ledger, place, self.clock) == kind
            if kind >= SETTLED_SET:
                assert kernels.settled(self.ledger, place) == self.known[name][2:4]
                record, number = kernels.record(self.ledger, place), self.known[name].number
                assert self.ledger.others[record].tolist() == [number, ~name]
                assert self.ledger.vectors[record].tolist() == [-(number // 2**33)]
        held = self.ledger.sizes[NEXT] - self.ledger.sizes[FIRST]
        assert held + self.waiting(PENDING) <= self.ledger.sizes[PLACES]
        assert np.count_nonzero(self.ledger.words) == self.ledger.sizes[USED]


def names_of(dice: random.Random, count: int) -> list[int]:
    """Hashes of which many share their upper half or their lower, first and last places of the index among them."""
    uppers = [-1, 0, 2**31 - 1, -(2**31), *(dice.randrange(-(2**31), 2**31) for _ in range(count // 4))]
    lowers = [0, 2**32 - 1, *(dice.randrange(2**32) for _ in range(count // 4))]
    names = {(dice.choice(uppers) << 32) | dice.choice(lowers) for _ in range(count)}
    return sorted(names | {(upper << 32) | lower for upper in uppers[:3] for lower in lowers[:3]})


def step(both: Both, dice: random.Random, name: int, keep: int) -> None:
    """Let one thing happen to a name."""
    kind, until = both.kind(name), both.clock + keep + dice.randrange(-keep // 4, keep // 4 + 1)
    if dice.random() < 0.002:
        until = FAR
    if kind == EMPTY:
        both.wait(name, EARLY if dice.random() < 0.2 else PENDING)
        if both.kind(name) == PENDING and dice.random() < 0.1:
            both.settle(name, SETTLED_SET, 1.0, until)
    elif kind == PENDING and dice.random() < 0.7:
        both.settle(name, dice.choice([SETTLED_SET, SETTLED_MISSING]), dice.random(), until)
    elif kind == EARLY and dice.random() < 0.5:
        both.forget(name)
    elif kind == EARLY:
        both.leave(name)
        both.wait(name, PENDING)
    elif kind >= SETTLED_SET:
        both.amend(name, dice.choice([SETTLED_SET, SETTLED_RETRACTED]), dice.random())


@pytest.mark.parametrize("seed", range(24))
def test_any_schedule(seed: int) -> None:
    """What is found is what the dict says, over growth, forgetting, restoring, and the end of serial numbers."""
    dice = random.Random(seed)
    both = Both(dice.choice([0, SERIAL_MASK - 700, 3 * SERIAL_MASK]))
    names = names_of(dice, dice.choice([40, 1_500, 4_000]))
    keep, pace, chance = dice.choice([20, 400, 6_000]), dice.choice([0, 1, 3]), dice.choice([0, 0, 0.002])
    for turn in range(6_000):
        step(both, dice, dice.choice(names), keep)
        both.clock += dice.randrange(2 * pace + 1)
        kernels.drop(both.ledger, both.clock, 4)
        if dice.random() < chance:
            both.restore()
        if dice.random() < chance:
            both.make_room()
        if dice.random() < 0.001:
            both.clock += dice.choice([keep // 2, 2 * keep])
        both.check(dice.sample(names, 3) if turn % 500 else names)
    both.check(names)


def spread(number: int) -> int:
    """A hash of its own for each number."""
    return (number * 0x9E3779B97F4A7C15 + 2**63) % 2**64 - 2**63


def filled(count: int, known: int, until: int = 50, *, forgotten: int = 10) -> tuple[Both, list[int]]:
    """So many settled events of which the first `known` are remembered longer than the others."""
    both, names = Both(), [spread(-1 - place) for place in range(count)]
    for place, name in enumerate(names):
        both.wait(name, PENDING)
        both.settle(name, SETTLED_SET, 1.0, until if place < known else forgotten)
    return both, names


def test_one_record_that_stays_does_not_hold_all_that_come_after_it() -> None:
    """Events that are remembered very long cost no more than themselves: forgotten ones among them leave."""
    both, names = filled(2_000, 3, FAR)
    for turn in range(40_000):
        both.clock += 1
        name = spread(turn)
        both.wait(name, PENDING)
        both.settle(name, SETTLED_SET, 1.0, both.clock + 100)
        kernels.drop(both.ledger, both.clock, 4)

    assert both.ledger.sizes[PLACES] <= 3_000
    assert both.ledger.words.size <= 8_192
    both.check([*names, *(spread(turn) for turn in range(39_000, 40_000))])


def test_a_ring_goes_round_and_grows_and_is_restored_wherever_it_begins() -> None:
    """Records that go on at the ring's front are found, before and after they move to another ring."""
    both, names = Both(), [spread(number) for number in range(12_000)]
    begun = set()
    for turn, name in enumerate(names):
        both.wait(name, PENDING)
        both.settle(name, SETTLED_SET, float(turn), turn + (600 if turn < 8_000 else 4_000))
        both.clock = turn
        kernels.drop(both.ledger, both.clock, 4)
        held, start = both.ledger.sizes[NEXT] - both.ledger.sizes[FIRST], int(both.ledger.sizes[START])
        is_round = start + held > both.ledger.sizes[PLACES]
        begun.add(is_round)
        if turn % 50 == 0:
            both.check(names[max(turn - 1_000, 0) : turn + 20])
        if turn in (2_222, 5_555) and is_round:
            both.restore()
            begun.add("restored")
    both.check(names)

    assert both.ledger.sizes[PLACES] > 2 * SMALLEST
    assert begun == {False, True, "restored"}


def test_moving_together_keeps_what_is_known_and_drops_the_rest() -> None:
    """After making room the same is found; forgotten records are gone though older ones stay."""
    both, names = filled(2_000, 100)
    both.clock = 11
    waiting = int(both.ledger.sizes[PLACES]) - 2_000
    both.ledger = with_ledger_room(both.ledger, both.clock, waiting, 0)

    assert both.ledger.sizes[NEXT] - both.ledger.sizes[FIRST] == 100
    assert both.ledger.sizes[USED] == 100
    assert both.ledger.sizes[PLACES] == SMALLEST
    assert both.ledger.words.size == SMALLEST
    both.check(names)


def test_a_ring_that_was_long_becomes_short_again() -> None:
    """After a burst is forgotten, index and ring follow what is remembered now."""
    both, _ = filled(50_000, 0)
    assert both.ledger.sizes[PLACES] > 50_000
    both.clock = 11
    for name in range(80_000):
        both.wait(spread(name), PENDING)
        both.settle(spread(name), SETTLED_SET, 1.0, both.clock + 10)
        both.clock += 1
        kernels.drop(both.ledger, both.clock, 4)

    assert both.ledger.sizes[PLACES] == SMALLEST
    assert both.ledger.words.size == SMALLEST


def test_an_index_stays_where_it_is_while_as_many_are_forgotten_as_come() -> None:
    """Words that stayed behind leave it in place; clusters that go on at its front are found from their homes."""
    dice, both = random.Random(7), Both()
    names = [(dice.choice([-1, -1, -2, dice.randrange(-(2**31), 2**31)]) << 32) | number for number in range(60_000)]
    kept: set[int] = set()
    for turn, name in enumerate(names):
        both.wait(name, PENDING)
        both.settle(name, SETTLED_SET, 1.0, both.clock + 150)
        both.clock += 1
        kernels.drop(both.ledger, both.clock, 4)
        if turn > 2_000:
            kept.add(both.ledger.words.ctypes.data)
        if turn % 1_000 == 0:
            both.check(names[max(0, turn - 400) : turn + 5])

    assert both.rooms > 50
    assert len(kept) == 1
    assert both.ledger.words.size == SMALLEST
    both.check(names[-2_000:])


def test_a_settled_event_takes_less_than_50_bytes_and_room_is_seldom_made() -> None:
    """What the documentation says of memory holds at any size, and room is seldom made."""
    both, _ = filled(1, 1)
    at, taken = 1, []
    while at < 100_000:
        both.wait(spread(at), PENDING)
        both.settle(spread(at), SETTLED_SET, 1.0, FAR)
        at += 1
        if at > 5_000 and at % 1_000 == 0:
            taken.append((both.ledger.words.nbytes + 32 * at) / at)

    assert min(taken) > 42
    assert max(taken) < 50
    assert both.rooms < 50


def test_words_that_stayed_behind_leave_before_serial_numbers_come_again() -> None:
    """An index is renewed in time even if nothing crowds it."""
    both, names = filled(300, 0)
    both.clock = 11
    kernels.drop(both.ledger, both.clock, 1_000)
    assert both.ledger.sizes[USED] == 300
    both.ledger.sizes[[FIRST, NEXT]] += MOST_RECORDS

    assert lacks_room_kernel(both.ledger, 0)
    both.make_room()
    assert both.ledger.sizes[USED] == 0
    assert not lacks_room_kernel(both.ledger, 0)
    both.check(names)


def test_more_than_a_ledger_can_hold_is_refused() -> None:
    """The limit is far away, and told."""
    with pytest.raises(UnavailableError, match="cannot remember more than 268,435,456 events: use more partitions"):
        with_ledger_room(empty_ledger(), 0, MOST_RECORDS, 0)


def test_a_snapshot_holds_what_is_used_only() -> None:
    """Places that no record fills are not written."""
    both, names = filled(700, 0)
    state: dict[str, Any] = ledger_state(both.ledger)

    assert (state["records"].shape, state["halves"].shape) == ((700, 3), (700,))
    both.restore()
    both.check(names)
