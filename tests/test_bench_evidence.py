"""The simulations are of the rule itself: series side by side give what one pair after the other gives."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from models.evidence import Evidence, taken, verdict
from models.guard import Guard, guard_verdict, watched
from models.paired_losses import PairedLosses
from streams.selecting import Select
from tests.bench import loss_series as series
from tests.bench.evidence_simulations import judge
from tests.bench.guard_simulations import LEARNING_BLOCKS, guarded, remembering
from tests.bench.loss_series import Floats


def test_a_simulated_promotion_is_that_of_the_rule() -> None:
    settings = Select(span_us=series.SPAN_EVENTS)
    gains = np.array([0.001, 0.003, 0.01, 0.03])
    y_TS = series.noise_means(np.random.default_rng(0), 4, 300, phi=0.9, sd=0.1) + gains
    found, expected = judge(y_TS), np.full(4, np.inf)
    for place in range(4):
        evidence = Evidence()
        for block, y in enumerate(y_TS[:, place].tolist()):
            at, nothing = block * 100, np.zeros(100)
            evidence = taken(evidence, PairedLosses(0, block, at, at + 100, nothing + y, nothing), settings)
            if verdict(evidence, settings).word == "promoted":
                expected[place] = min(expected[place], at + 100)

    assert found.promoted_at_S.tolist() == expected.tolist()
    assert 10_000 < found.promoted_at_S[2] < math.inf
    assert math.isinf(found.promoted_at_S[0])


def test_a_simulated_alarm_is_that_of_the_guard() -> None:
    fault, blocks = LEARNING_BLOCKS + 3, LEARNING_BLOCKS + 60
    drawn = list(remembering(0.9, 0.3)(np.random.default_rng(0), 3, blocks))

    def again() -> Iterator[tuple[Floats, Floats]]:
        yield from drawn

    found = guarded(again(), 3, fault)
    for place in range(3):
        guard = Guard()
        for block, (champion_BS, last_BS) in enumerate(drawn):
            champion = np.minimum((1.0 if block < fault else 2.0) * champion_BS[:, place], math.log(1000.0))
            guard = watched(guard, PairedLosses(0, block, 0, 0, champion, last_BS[:, place]), Select())
        told = guard_verdict(guard, Select())

        assert told.alarm_at == found.delay_S[place] + 100 * fault
        assert told.expected_delay_events == pytest.approx(found.expected_S[place], rel=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
def test_noise_has_the_deviation_and_the_memory_it_is_said_to_have(phi: float) -> None:
    noise_NS = np.concatenate(list(series.noise(np.random.default_rng(0), 400, 10, phi=phi, sd=0.2)))
    together = (noise_NS[1:] * noise_NS[:-1]).mean() / (noise_NS**2).mean()

    assert noise_NS.std() == pytest.approx(0.2, rel=0.05)
    assert noise_NS[0].std() == pytest.approx(0.2, rel=0.1)
    assert together == pytest.approx(phi, abs=0.01)


def test_rare_losses_are_equal_in_the_long_run_alone() -> None:
    y_TS = series.rare_means(np.random.default_rng(0), 50, 4_000)

    assert y_TS.mean() == pytest.approx(0.0, abs=3e-4)
    assert np.median(y_TS) > 0.006


def test_blocks_of_late_labels_count_in_the_order_of_time() -> None:
    """Where no label is late they complete in that order; from when all sources are known, others count in it, too."""

    def drawn(delay: float, *, is_ordered: bool) -> list[float]:
        rng = np.random.default_rng(0)
        y_TS = series.sourced_means(rng, 1, 400, phi=0.5, sd=0.2, delay=delay, is_ordered=is_ordered)
        means: list[float] = y_TS[:, 0].tolist()
        return means

    by_time, late, ordered = drawn(1e-6, is_ordered=False), drawn(2e3, is_ordered=False), drawn(2e3, is_ordered=True)

    places, later = ([by_time.index(mean) for mean in means] for means in (ordered, late))

    assert sorted(later) == list(range(400))
    assert 300 < len(places) == len(set(places)) < 400
    assert places[100:] == sorted(places[100:])
    assert later[100:] != sorted(later[100:])
