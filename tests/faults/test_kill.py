"""Real processes on real Kafka, killed with SIGKILL under load: what comes out equals a recomputation, bit for bit."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.overview import Overview
from tests.faults import verify
from tests.faults.harness import MILLRACE, WITHOUT_SEQUENCES, Death, System
from tests.faults.traffic import Traffic

OF_A_SNAPSHOT = ("before_flush", "after_flush", "after_snapshot", "after_commit")
POINTS = {  # ingest has no state, so it passes no snapshot; only learn publishes
    "ingest": ("after_produce", "before_flush", "after_flush", "after_commit"),
    "features": ("after_produce", *OF_A_SNAPSHOT),
    "learn": ("after_produce", *OF_A_SNAPSHOT, "after_publish"),
    "serve": ("after_produce", *OF_A_SNAPSHOT),
}
KILLS = 24  # each of these 20, and each role once at random
RATE = 150
OF_A_SHOP = """mean_shop = { mean = "amount", by = "shop", window = "1m" }
rate_shop = { rate = "label", by = "shop", window = "10m" }
above = { difference = ["amount", "mean_shop"] }
"""
ENSEMBLES = """[models.forest]
kind = "river:forest.ARFClassifier"
n_models = 2
grace_period = 20
leaf_prediction = "mc"

[models.bag]
kind = "river:ensemble.ADWINBaggingClassifier"
n_models = 2
model = { use = "tree.HoeffdingTreeClassifier", grace_period = 20 }

[models.mine]
kind = "tests.own_learners:Fragile"
limit = 9.8

"""  # the last raises at the first label whose event has so large an amount: one of fifty


def run(
    system: System,
    deaths: dict[str, list[Death]],
    seed: int,
    zombies: Sequence[tuple[str, str]] = (),
    rate: float = RATE,
) -> Overview:
    """Let a system live through its deaths and zombies under load, and come to its end."""
    system.plan(deaths)
    traffic = Traffic(system.pipeline, seed, rate)
    traffic.start()
    try:
        system.start(set(POINTS) - dict(zombies).keys())
        for role, point in zombies:
            system.raise_zombie(role, point)
        system.until_dead()
        traffic.end()
        return system.finish()
    finally:
        system.stop()


@pytest.mark.timeout(600)  # half a minute, if no kernel is to be compiled
def test_every_role_may_be_killed_and_a_worker_may_come_back_as_a_zombie(tmp_path: Path, broker: str) -> None:
    deaths = {
        "ingest": [Death("after_flush", 3)],
        "features": [Death("after_snapshot", 4)],
        "learn": [Death("after_publish", 2)],
        "serve": [Death(after_s=1.0)],
    }
    system = System(tmp_path, "few", broker)

    overview = run(system, deaths, seed=1, zombies=[("features", "before_flush:3")])

    assert system.deaths == 4
    assert overview.unaccounted == 0
    verify.check(system)


@pytest.mark.chaos  # a minute; `make test` kills roles of one stage, and chains in memory
@pytest.mark.timeout(600)
def test_a_process_with_all_stages_of_a_chain_may_be_killed_and_come_back_as_a_zombie(
    tmp_path: Path, broker: str
) -> None:
    """Between any two steps of any of its stages."""
    deaths = {"features": [Death("after_produce", 9), Death("after_snapshot", 7), Death("after_flush", 5)]}
    system = System(tmp_path, "chain", broker, more_features=OF_A_SHOP)

    overview = run(system, deaths, seed=3, zombies=[("features", "before_flush:6")])

    assert system.deaths == 3
    assert overview.unaccounted == 0
    verify.check(system)


@pytest.mark.timeout(600)
def test_without_the_sequence_rule_the_same_deaths_are_noticed(tmp_path: Path, broker: str) -> None:
    deaths = {"ingest": [Death("after_flush", 3)], "features": [Death("after_flush", 3)]}
    system = System(tmp_path, "blind", broker, WITHOUT_SEQUENCES)

    run(system, deaths, seed=1)

    with pytest.raises(AssertionError, match=r"differ|twice"):
        verify.check(system)


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", [1, 2])
def test_many_kills_at_every_fail_point_and_at_random(seed: int, tmp_path: Path, broker: str) -> None:
    rng = random.Random(seed)
    system = System(tmp_path, f"many{seed}", broker, MILLRACE)

    overview = run(system, many_deaths(rng), seed)

    assert system.deaths == KILLS
    assert overview.unaccounted == 0
    assert overview.repeats > 0
    verify.check(system)


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
def test_a_zombie_of_each_role_beside_kills(tmp_path: Path, broker: str) -> None:
    deaths = {role: [Death("after_flush", 4), Death(after_s=2.0)] for role in POINTS}
    system = System(tmp_path, "zombies", broker)
    points = ("after_produce:20", "before_flush:3", "after_flush:3", "after_snapshot:3")

    overview = run(system, deaths, seed=7, zombies=list(zip(POINTS, points, strict=True)))

    assert system.deaths == 8
    assert overview.unaccounted == 0
    verify.check(system)


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
def test_ensembles_and_a_candidate_that_raises_end_as_if_nothing_had_died(tmp_path: Path, broker: str) -> None:
    """Trees that are pickles, and one that is set aside on the way: scores, what models say, and the record of it."""
    deaths = {"learn": [Death("after_produce", 2), Death("after_snapshot", 4), Death(after_s=2.0)]}
    system = System(tmp_path, "ensembles", broker, more_models=ENSEMBLES)

    overview = run(system, deaths, seed=11, rate=RATE / 5)  # trees of River's take a thousand times as long

    assert system.deaths == 3
    assert overview.unaccounted == 0
    decided = [json.loads(record.value() or b"") for record in system.records("ensembles.decisions", 0)]
    assert {one["candidate"] for one in decided if one["decision"] == "quarantined"} == {"mine"}
    verify.check(system)


def many_deaths(rng: random.Random) -> dict[str, list[Death]]:
    """Every fail point of every role once, after some passings, and one kill at random; in random order."""
    deaths = {}
    for role, points in POINTS.items():
        plan = [Death(point, rng.randint(1, 30 if point == "after_produce" else 4)) for point in points]
        plan.append(Death(after_s=rng.uniform(0.0, 3.0)))
        deaths[role] = rng.sample(plan, len(plan))
    return deaths
