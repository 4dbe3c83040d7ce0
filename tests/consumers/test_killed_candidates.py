"""Candidates of unknown code over crashes: River's ensembles, and one of a user's own that raises on the way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.learn import LearnTask
from streams import features
from streams.control import Claim, Control
from streams.frames import SCHEMA_HEADER, examples_schema
from streams.pipeline import Model
from streams.selecting import Select
from tests.memory_kafka import MemoryControlLog
from tests.rows import batch_of
from tests.workers import Office

FOREST = Model("forest", "river:forest.ARFClassifier", {"n_models": 2, "grace_period": 20, "leaf_prediction": "mc"})
BAG = Model("bag", "river:ensemble.BaggingClassifier", {
    "model": {"use": "compose.Pipeline", "steps": [
        {"use": "preprocessing.StandardScaler", "only": "numbers"},
        {"use": "tree.HoeffdingTreeClassifier", "grace_period": 20},
    ]},
    "n_models": 3,
})  # fmt: skip
MINE = Model("mine", "tests.own_learners:Fragile", {"limit": 90.0})
EVENTS, FAILING, DELAY = 400, 203, 30


class Learning(Office):
    """Learn workers over examples in memory; one label makes `mine` raise, the others are River's ensembles."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, models=(MINE, FOREST, BAG))
        self.pipeline = msgspec.structs.replace(self.pipeline, select=Select())  # losses are told in both orders
        self.columns = features.columns(self.pipeline)
        control = Control(MemoryControlLog(self.broker, "p.control"))
        source = control.claim(Claim("features", "uuid", 0, "rows", 0, 1, is_gapless=True))
        schema = examples_schema(self.columns)
        control.announce(schema)
        rng = np.random.default_rng(8)
        X = rng.normal(size=(EVENTS, len(self.columns)))
        X[FAILING, 0] = 99.0
        order = np.argsort(np.concatenate([np.arange(EVENTS), np.arange(EVENTS) + DELAY + 0.5]), kind="stable")
        self.headers = [(SCHEMA_HEADER, schema.fingerprint.encode())]
        self.left: list[bytes] = []
        for first in range(0, 2 * EVENTS, 40):
            rows = [
                {
                    "kind": "label" if at >= EVENTS else "event",
                    "source": source,
                    "sequence": sequence,
                    "number": at % EVENTS,
                    "time": at % EVENTS,
                    "vector": X[at % EVENTS].tolist(),
                    "label": float(X[at % EVENTS, 0] > 0) if at >= EVENTS else None,
                }
                for sequence, at in enumerate(order[first : first + 40].tolist(), first)
            ]
            self.left.append(batch_of(schema, rows).message())

    def write(self, frames: int) -> None:
        """Let so many frames come."""
        for payload in self.left[:frames]:
            self.broker.append("p.examples", 0, payload, None, self.headers)
        self.left = self.left[frames:]

    def told(self, topic: str) -> list[Any]:
        """Give the records of a topic."""
        return [msgspec.json.decode(record.value_ or b"") for record in self.broker.logs[topic, 0]]

    def blocks(self, candidate: str) -> dict[tuple[str, int], Any]:
        """Give the blocks of a candidate by order and number; a repeat must say the same."""
        found: dict[tuple[str, int], Any] = {}
        for record in self.told("p.scores"):
            for block in record["blocks"] if record["candidate"] == candidate else ():
                assert found.setdefault((record["order"], block["block"]), block) == block
        return found


def run(office: Learning, candidate: str, crash_share: float) -> LearnTask:
    """Let a candidate learn all examples as they come, over crashes; gives what it has become."""
    chance = random.Random(5)
    worker = office.worker(f"learn.{candidate}", [("p.examples", 0)], snapshot_every_s=3.0)
    while office.left or chance.random() < 0.8:
        office.now += 1.0
        office.write(chance.randint(0, 2))
        worker.step(0)
        if chance.random() < crash_share:  # killed: nothing is flushed, saved or committed
            worker = office.worker(f"learn.{candidate}", [("p.examples", 0)], snapshot_every_s=3.0)
    worker.step(0)
    (station,) = worker.stations
    worker.stop()
    assert isinstance(station.task, LearnTask)
    return station.task


@pytest.mark.parametrize("candidate", ["mine", "forest", "bag"])
def test_workers_that_are_killed_end_as_one_that_was_not(candidate: str, tmp_path: Path) -> None:
    """Trees in ensembles, and a learner that is set aside on the way: scores, state and decisions are the same."""
    calm, killed = Learning(tmp_path / "calm"), Learning(tmp_path / "killed")
    whole, pieced = run(calm, candidate, 0.0), run(killed, candidate, 0.3)
    asked = np.random.default_rng(0).normal(size=(50, len(calm.columns)))

    assert killed.blocks(candidate) == calm.blocks(candidate)
    assert len(calm.blocks(candidate)) == 2 * EVENTS // 100  # by number and by label
    assert whole.examples_seen == pieced.examples_seen == (FAILING if candidate == "mine" else EVENTS)
    assert np.array_equal(pieced.learner.predict(asked), whole.learner.predict(asked))
    assert pieced.ward.quarantine == whole.ward.quarantine
    decisions = [{json(decision) for decision in office.told("p.decisions")} for office in (calm, killed)]
    assert decisions[0] == decisions[1]
    assert sum(b'"quarantined"' in decision for decision in decisions[0]) == (1 if candidate == "mine" else 0)


def json(value: Any) -> bytes:
    return msgspec.json.encode(value)
