"""The cost of staleness: exact sums, the same in any order, and a ring of the last blocks."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest

from models import staleness
from models.staleness import ROLLING_BLOCKS, Cost, StalenessCost
from streams.errors import ModelError


def blocks(count: int, seed: int = 0) -> list[tuple[staleness.Losses, staleness.Losses, staleness.Int16s]]:
    """Losses of answers and of candidates, some missing on either side, and who answered (0 or 1)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        answered, own = rng.exponential(size=(2, 100)).astype(np.float32)
        answered[rng.random(100) < 0.1] = own[rng.random(100) < 0.1] = np.nan
        made.append((answered, own, rng.integers(-1, 2, 100).astype(np.int16)))
    return made


def test_the_mean_is_over_events_with_both_losses_that_the_candidate_answered() -> None:
    cost, differences = StalenessCost(), []
    for answered, own, who in blocks(5):
        cost.compare(answered, own, who, 1)
        pairs = zip(answered.tolist(), own.tolist(), who.tolist(), strict=True)
        differences += [a - b for a, b, one in pairs if one == 1 and not math.isnan(a - b)]

    for found in (cost.since_start(), cost.rolling()):
        assert found.events == len(differences) > 100
        assert found.cost == pytest.approx(math.fsum(differences) / len(differences))


def test_the_mean_since_the_start_is_the_same_bit_for_bit_in_any_order() -> None:
    """Also where a float64 would have lost the small ones beside a large one."""
    made = blocks(3)
    made[1][0][0] = np.float32(1e20)
    made[2][1][0] = np.float32(1e20)
    made[1][1][0] = made[2][0][0] = np.float32(1e-8)
    made[1][2][0] = made[2][2][0] = 0
    found = set()
    for order in itertools.permutations(made):
        cost = StalenessCost()
        for answered, own, who in order:
            cost.compare(answered, own, who, 0)
        found.add(cost.since_start())
    ((events, mean),) = found

    assert events > 50
    assert 0.0 < abs(mean) < 1.0


def test_what_is_rolling_forgets_all_but_the_last_blocks() -> None:
    cost, zeros, who = StalenessCost(), np.zeros(100, np.float32), np.zeros(100, np.int16)
    for block in range(ROLLING_BLOCKS + 7):
        cost.compare(np.full(100, float(block), np.float32), zeros, who, 0)

    assert cost.rolling() == Cost(100 * ROLLING_BLOCKS, 7 + (ROLLING_BLOCKS - 1) / 2)
    assert cost.since_start() == Cost(100 * (ROLLING_BLOCKS + 7), (ROLLING_BLOCKS + 6) / 2)


def test_it_goes_on_from_a_snapshot_as_if_nothing_had_been() -> None:
    made = blocks(6)
    whole, cut = StalenessCost(), StalenessCost()
    for at, (answered, own, who) in enumerate(made):
        whole.compare(answered, own, who, 0)
        if at == 3:
            state, cut = cut.state(), StalenessCost()
            cut.restore(state)
        cut.compare(answered, own, who, 0)

    assert (cut.since_start(), cut.rolling()) == (whole.since_start(), whole.rolling())
    for name in whole.state():
        with pytest.raises(ModelError, match=name):
            StalenessCost().restore({key: array for key, array in whole.state().items() if key != name})


def test_a_loss_that_is_infinite_leaves_nothing_to_say() -> None:
    """No sum can hold it."""
    cost, who = StalenessCost(), np.zeros(100, np.int16)
    nothing = cost.since_start()
    cost.compare(np.full(100, np.inf, np.float32), np.zeros(100, np.float32), who, 0)

    assert nothing.events == 0
    assert math.isnan(nothing.cost)
    assert math.isnan(cost.since_start().cost)


def test_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(staleness).attempted > 0
    assert doctest.testmod(staleness).failed == 0
