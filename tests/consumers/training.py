"""A train role over Kafka in memory, with processes that the test ends at will; they make small linear models."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from consumers.learn_role import LearnRole
from consumers.retrain import TrainRole, TrainTask
from consumers.station import Shop
from consumers.trainings import Trainings
from consumers.worker import Settings, Worker
from models.learner import make_learner
from models.training_job import Failure, Job, Result, Training, read_job, write_failure, write_result
from models.weights_file import encode
from streams import frames
from streams.control import Control
from streams.durations import DAY_US, HOUR_US, SECOND_US
from streams.features import columns
from streams.frames import EVENT, LABEL, NO_OUTCOME, SCHEMA_HEADER, SET, VERSION
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from streams.retraining import Archive, Retrain
from streams.state_folder import LocalFolder
from tests.memory_kafka import Broker, MemoryControlLog, MemoryOutbox
from tests.rows import claim_of, pipeline
from tests.workers import EagerInbox

START_US = 1_700_006_400_000_000  # a midnight
EVENTS_A_DAY = 4


class FakeTraining:
    """A process that does nothing until the test says how it ends."""

    pid = 1

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.directory, self.command, self.log = Path(command[-1]), list(command), log
        self.code: int | None = None

    def exit_code(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = -15

    def kill(self) -> None:
        self.code = -9 if self.code is None else self.code

    @property
    def job(self) -> Job:
        return read_job(self.directory)

    def succeed(self, damage: Callable[[bytes], bytes] = bytes, **said: Any) -> None:
        """Write a result: a model that has learned a few rows, which the job and what it begins with decide alone."""
        job = self.job
        learner = make_learner(job.model, job.columns, task=job.task)
        rng = np.random.default_rng([job.rows, *job.parent_blob.encode()])
        X = rng.normal(size=(100, len(job.columns)))
        learner.learn(X, (X[:, 0] > 0).astype(float))
        payload = encode(learner.state(), {"candidate": job.candidate})
        digest = hashlib.blake2b(payload, digest_size=32).hexdigest()
        training = Training(job.rows, 0, 1, job.known_us or 0, seconds=2.5, reason=job.reason, test={"auc": 0.75})
        result = Result(**{"model_file": "model.safetensors", "digest": digest, "training": training, **said})
        write_result(self.directory, damage(payload), result)
        self.code = 0

    def fail(self, reason: str, code: int = 11, *, is_certain: bool = False) -> None:
        write_failure(self.directory, Failure(reason, code, is_certain))
        self.code = code


class Plant:
    """One broker and one state, with train and learn roles that are started, crashed and started again."""

    def __init__(self, directory: Path, retrain: Retrain | None = None, more: Sequence[Model] = ()) -> None:
        self.now_s = 1_700_000_000.0
        net = Model("net", "linear", {"bits": 4}, retrain=retrain or Retrain(examples=20))
        self.pipeline = pipeline(state=directory, models=(net, *more), archive=Archive())
        self.broker = Broker(lambda: self.now_s, {"p.examples": 1})
        self.columns = columns(self.pipeline)
        self.schema = frames.examples_schema(self.columns)
        self.metrics = RoleMetrics("train", "p")
        self.started: list[FakeTraining] = []
        self.trainings: Trainings | None = None
        self.events = 0
        control = self.control()
        control.announce(self.schema)
        self.source = control.claim(claim_of())
        self.start()

    def control(self) -> Control:
        return Control(MemoryControlLog(self.broker, "p.control"))

    def start(self) -> None:
        """Start a train role, as after a crash: what the one before had not flushed is gone, and its process too."""
        for one in self.started:
            one.kill()
        if self.trainings is not None:
            self.trainings._let_go()
        self.outbox = MemoryOutbox(self.broker)
        state = LocalFolder(self.pipeline.state)
        self.trainings = Trainings(self.pipeline, self.columns, state, self.metrics, self._spawn)
        role = TrainRole(self.pipeline, self.control(), self.outbox, self.metrics, self.trainings, lambda: self)
        self.train = self._worker(role, self.outbox)

    def read(self, offset: int) -> tuple[list[bytes], int]:
        """P.decisions, for the role."""
        found = self.broker.read("p.decisions", 0, offset)
        return found, offset + len(found)

    def learn(self) -> Worker:
        """Start a learn role of `net`."""
        outbox, control = MemoryOutbox(self.broker), self.control()
        role = LearnRole(self.pipeline, self.pipeline.models[0], control, outbox, RoleMetrics("learn", "p"))
        return self._worker(role, outbox)

    def _worker(self, role: Any, outbox: MemoryOutbox) -> Worker:
        inbox = EagerInbox(self.broker, f"p.{role.name}")
        snapshots = LocalFolder(self.pipeline.state) / "snapshots"
        shop = Shop(role, self.pipeline, inbox, role._control, self.broker, self.broker, snapshots)
        worker = Worker(shop, outbox, RoleMetrics(role.name, "p"), Settings(snapshot_every_s=1e9), lambda: self.now_s)
        worker.start()
        inbox.give([("p.examples", 0)])
        return worker

    def _spawn(self, name: str, command: Sequence[str], log: Path, kept_fds: Sequence[int]) -> FakeTraining:
        self.started.append(FakeTraining(command, log))
        return self.started[-1]

    @property
    def task(self) -> TrainTask:
        found = self.train.stations[0].task
        assert isinstance(found, TrainTask)
        return found

    def step(self, times: int = 1, after_s: float = 0.1) -> None:
        """Let the train role go round."""
        for _ in range(times):
            self.now_s += after_s
            self.train.step(0.0)

    def feed(self, events: int) -> None:
        """Publish events, four a day, each with its label half an hour later."""
        rng = np.random.default_rng(self.events)
        at = np.arange(self.events, self.events + events).repeat(2)
        is_label = np.arange(2 * events) % 2 == 1
        X = rng.normal(size=(events, len(self.columns))).repeat(2, axis=0)
        X[:, [column.is_category for column in self.columns]] = 1.0
        values = {
            "kind": np.where(is_label, LABEL, EVENT),
            "source": np.full(2 * events, self.source),
            "sequence": np.arange(2 * self.events, 2 * (self.events + events)),
            "number": at,
            "time": START_US + at * (DAY_US // EVENTS_A_DAY) + is_label * HOUR_US // 2,
            "label": np.where(is_label, X[:, 0] > 0, math.nan),
            "outcome": np.where(is_label, SET, NO_OUTCOME),
            "vector": X,
        }
        payload = frames.build(self.schema, values, 2 * events).message()
        self.broker.append("p.examples", 0, payload, None, [(SCHEMA_HEADER, self.schema.fingerprint.encode())])
        self.events += events

    def version_rows(self) -> list[dict[str, Any]]:
        """The version rows among the examples."""
        found: list[dict[str, Any]] = []
        for record in self.broker.logs["p.examples", 0]:
            found += frames.decode(record.value_ or b"", self.schema).to_arrow().to_pylist()
        return [row for row in found if row["kind"] == VERSION]

    def known_us(self, labels: int) -> int:
        """The time of the so-many-th label."""
        return START_US + (labels - 1) * (DAY_US // EVENTS_A_DAY) + HOUR_US // 2


LONG_S = 7_200.0  # longer than any back-off
SECOND = SECOND_US
