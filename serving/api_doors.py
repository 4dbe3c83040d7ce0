"""What the HTTP API reaches: Kafka, the online store, models, decisions. None keeps state that others need.

Everything here may be called from several threads; what blocks is called from worker threads, never from the loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from consumers.process import KafkaControlLog
from models.version import Version
from serving.candidate import Candidate
from serving.inference import Matrix
from serving.redis_door import RedisDoor, Stored
from serving.versions import newest
from streams import features
from streams.control import Control
from streams.decisions import KafkaDecisionLog, Succession
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.state_folder import state_of

FRESH_S = 1.0  # the league and the decisions are looked up once in so long, however many ask
MOST_DECISIONS = 10_000  # kept in memory; older ones are in their topic


class ModelShelf:
    """The candidates' newest versions, each loaded when it is first asked for and followed from then on."""

    def __init__(self, pipeline: Pipeline, metrics: RoleMetrics) -> None:
        self._pipeline, self._metrics = pipeline, metrics
        self._models = {model.name: model for model in pipeline.models}
        self._columns = features.columns(pipeline)
        self._state = state_of(pipeline)
        self._log = KafkaControlLog(pipeline)
        self._control = Control(self._log)
        self._held: dict[str, Candidate] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The candidates, in the file's order."""
        return list(self._models)

    def predict(self, name: str, x_BF: Matrix) -> tuple[Matrix, str]:
        """Give a candidate's scores of rows, and the version that gave them."""
        with self._lock:
            held = self._follow(name)
            x_BF.flags.writeable = False  # as rows of the stream are: another type of array compiles another kernel
            return held.predict(x_BF), held.version

    def version(self, name: str) -> str:
        """Name the version of a candidate that answers now."""
        with self._lock:
            return self._follow(name).version

    def _follow(self, name: str) -> Candidate:
        held = self._held.get(name)
        if held is None:
            model, task = self._models[name], self._pipeline.task
            held = Candidate(model, self._columns, self._state, self._control, self._metrics, task=task)
            held.begin()
            self._held[name] = held
        held.follow(int(time.time() * 1e6))
        return held

    def close(self) -> None:
        """Let go of the connection."""
        self._log.close()


class League:
    """The newest version of each candidate, looked up at most once a second."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._lock, self._until_s = threading.Lock(), 0.0
        self._found: dict[str, Version | None] = {}

    def look(self) -> dict[str, Version | None]:
        """Give it, in the file's order; None for a candidate that has no version yet."""
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._found, self._until_s = newest(self._pipeline), time.monotonic() + FRESH_S
            return self._found


class Decisions:
    """The records of P.decisions, read on as they come."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._log = KafkaDecisionLog(pipeline)
        self._lock, self._until_s = threading.Lock(), 0.0
        self._found: list[Mapping[str, Any]] = []

    def newest(self, most: int) -> list[Mapping[str, Any]]:
        """Give the last decisions, the newest first.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._found += [msgspec.json.decode(value or b"{}") for value in self._log.read_to_end()]
                self._found = self._found[-MOST_DECISIONS:]
                self._until_s = time.monotonic() + FRESH_S
            return self._found[: -most - 1 : -1]

    def close(self) -> None:
        """Let go of the connection."""
        self._log.close()


class Throne:
    """Who reigns now."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._log = KafkaDecisionLog(pipeline)
        self._lock, self._succession = threading.Lock(), Succession.of(pipeline, self._log)
        self._succession.catch_up()

    def champion(self) -> str:
        """Name the reigning champion, as of a moment ago; while Kafka is away the one known last."""
        with self._lock:
            return self._succession.follow(int(time.time() * 1e6)).champion

    def close(self) -> None:
        """Let go of the connection."""
        self._log.close()


class KeyStore:
    """The online store, read by key."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._name, url = pipeline.name, pipeline.serve.redis
        self._door = None if url is None else RedisDoor(url)

    @property
    def is_there(self) -> bool:
        """Whether the pipeline has one."""
        return self._door is not None

    def read(self, key: str) -> Stored | None:
        """Give what is stored for a key.

        Raises:
            StoreError: it cannot be asked.
        """
        assert self._door is not None  # noqa: S101 - the caller has asked
        return self._door.read(self._name, key)

    def close(self) -> None:
        """Let go of the connections."""
        if self._door is not None:
            self._door.close()
