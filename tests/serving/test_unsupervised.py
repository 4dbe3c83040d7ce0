"""From the file to the answer, in memory: pipelines whose models need no labels, through all four roles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.features_role import FeaturesRole
from consumers.ingest import IngestRole
from consumers.learn_role import LearnRole
from consumers.role import Role
from consumers.station import Shop
from consumers.worker import Settings, Worker
from models.learner import make_learner
from serving.champion import Champion
from serving.predict import ServeRole
from streams import features, frames
from streams.control import Control
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.state_folder import state_of
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox
from tests.workers import START_S, EagerInbox

FILE = """
[pipeline]
name = "p"
partitions = 1
[events]
topic = "readings"
id = "id"
time = "at"
time_unit = "us"
key = "pump"
[events.fields]
heat = "number"
pump = "category"
"""
LABELS = """
[labels]
topic = "faults"
id = "id"
key = "pump"
value = "is_fault"
time = "at"
time_unit = "us"
wait = "10s"
"""
GAUSS = """
[models.gauss]
kind = "river:anomaly.GaussianScorer"
of = "heat"
grace_period = 5
"""
ALERTS = f'[task]\nkind = "anomaly"\nalert = 0.1\n{GAUSS}'
FIXED = f'[task]\nkind = "anomaly"\nthreshold = 0.9\n{GAUSS}'
CLUSTERS = """
[task]
kind = "clustering"
[models.means]
kind = "river:cluster.KMeans"
n_clusters = 2
scale = "standard"
"""
EVENTS = 80


def heats() -> list[float]:
    rng = np.random.default_rng(0)
    return [float(heat) for heat in np.round(rng.normal(70, 5, EVENTS) + 30 * (np.arange(EVENTS) % 13 == 12), 3)]


class Plant:
    """All roles of a pipeline over Kafka in memory. Serve stands after learn, so it answers with what was learned."""

    def __init__(self, directory: Path, text: str) -> None:
        file = directory / "pipeline.toml"
        file.write_text(FILE + text + '[models.prior]\nkind = "prior"\n')
        self.pipeline = read_pipeline(file, {})
        self.now = START_S
        self.broker = Broker(lambda: self.now, {})
        self.workers: dict[str, Worker] = {}

    def publish(self, topic: str, at_s: float, **record: Any) -> None:
        value = msgspec.json.encode({**record, "pump": "a", "at": int((START_S + at_s) * 1e6)})
        self.broker.append(topic, 0, value, b"a", stamp_ms=int((START_S + at_s) * 1e3))

    def end(self) -> None:
        for topic in {self.pipeline.events.topic, self.pipeline.labels.topic}:
            self.broker.append(topic, 0, None, None, [("millrace-mark", b"end")])

    def run(self, role: str) -> Worker:
        """Let one role take all there is."""
        of, control = self.pipeline, Control(MemoryControlLog(self.broker, "p.control"))
        outbox, metrics = MemoryOutbox(self.broker), RoleMetrics(role, "p")
        made = self._role(role, of, control, outbox, metrics)
        inbox = EagerInbox(self.broker, f"p.{role}")
        shop = Shop(made, of, inbox, control, self.broker, self.broker, state_of(of) / "snapshots")
        worker = Worker(shop, outbox, metrics, Settings(is_replay=True), lambda: self.now)
        worker.start()
        inbox.give([(topic, 0) for topic in made.inputs])
        for _ in range(6):
            worker.step(0)
        if isinstance(made, LearnRole):
            task: Any = worker.stations[0].task
            made.publish(task)
        worker.snapshot()
        outbox.flush()
        self.workers[role] = worker
        return worker

    def _role(self, role: str, of: Pipeline, control: Control, outbox: MemoryOutbox, metrics: RoleMetrics) -> Role:
        if role == "ingest":
            return IngestRole(of, outbox, metrics, is_replay=True)
        if role == "features":
            return FeaturesRole(of, control)
        if role == "learn":
            return LearnRole(of, of.models[0], control, outbox, metrics)
        columns = features.columns(of)
        champion = Champion(of.models[:1], columns, of.state, control, metrics, task=of.task)
        champion.follow(int(self.now * 1e6))
        schema = frames.features_schema(columns)
        return ServeRole("p.features", schema, control, champion, metrics, "earliest", lambda: self.now)

    def json(self, topic: str) -> list[dict[str, Any]]:
        return [msgspec.json.decode(record.value_ or b"") for record in self.broker.logs[f"p.{topic}", 0]]


def run_plant(directory: Path, text: str, labels: dict[int, int] | None = None) -> Plant:
    plant = Plant(directory, text)
    for n, heat in enumerate(heats()):
        plant.publish("readings", n, id=f"e{n}", heat=heat)
    for n, label in (labels or {}).items():
        plant.publish("faults", n + 3.5, id=f"e{n}", is_fault=label)
    plant.end()
    for role in ("ingest", "features", "learn", "serve"):
        plant.run(role)
    return plant


def driven(plant: Plant) -> Any:
    """The champion's learner, given all events one after the other."""
    columns = features.columns(plant.pipeline)
    learner = make_learner(plant.pipeline.models[0], columns, b"k" * 32, plant.pipeline.task)
    X = np.array([[heat if not column.is_category else np.nan for column in columns] for heat in heats()])
    learner.learn(X, np.full(EVENTS, np.nan))
    return learner.predict(X)


@pytest.mark.parametrize("labels", [None, {n: int(n % 13 == 12) for n in range(0, EVENTS, 2)}])
def test_an_anomaly_is_answered_with_its_score_and_an_alert(tmp_path: Path, labels: dict[int, int] | None) -> None:
    """By the version it names, which has learned every event once, with a label or without."""
    plant = run_plant(tmp_path, ALERTS if labels is None else LABELS + ALERTS, labels)
    answers = plant.json("predictions")
    task: Any = plant.workers["learn"].stations[0].task
    figures = task.scores.since_start()._asdict()

    assert [answer["id"] for answer in answers] == [f"e{n}" for n in range(EVENTS)]
    assert {answer["version"] for answer in answers} == {f"0.{EVENTS}"}
    assert list(answers[0])[3:6] == ["prediction", "score", "model"]
    if labels is None:  # without labels rows are learned in the order of the events
        expected = driven(plant)
        np.testing.assert_array_equal([answer["score"] for answer in answers], expected[:, 0])
        assert [answer["prediction"] for answer in answers] == (expected[:, 0] >= expected[:, 1]).astype(int).tolist()
    alerts = [n for n, answer in enumerate(answers) if answer["prediction"] == 1]
    assert len({n for n in range(EVENTS) if n % 13 == 12}.intersection(alerts)) >= 5  # of six
    assert len(alerts) <= EVENTS // 10
    assert task.examples_seen == figures["labels"] == EVENTS
    assert math.isfinite(figures["alert_rate"])
    assert math.isnan(figures["auc"]) == (labels is None)
    assert plant.json("deadletters") == []


def test_a_threshold_of_the_file_decides_what_an_alert_is(tmp_path: Path) -> None:
    answers = run_plant(tmp_path, FIXED).json("predictions")

    assert {answer["prediction"] for answer in answers} == {0, 1}
    assert all(answer["prediction"] == (answer["score"] >= 0.9) for answer in answers)


def test_a_cluster_is_answered_with_the_distance_to_its_mean(tmp_path: Path) -> None:
    plant = run_plant(tmp_path, CLUSTERS)
    answers, expected = plant.json("predictions"), driven(plant)
    scores, task = plant.json("scores"), plant.workers["learn"].stations[0].task

    assert list(answers[0])[3:6] == ["prediction", "distance", "model"]
    assert [answer["prediction"] for answer in answers] == expected[:, 0].astype(int).tolist()
    np.testing.assert_allclose([answer["distance"] for answer in answers], np.sqrt(expected[:, 1]), rtol=1e-12)
    assert {answer["prediction"] for answer in answers} == {0, 1}
    assert scores == []  # 80 events are no block yet
    assert task.is_sound()
