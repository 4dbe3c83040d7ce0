"""What the HTTP API reaches: Kafka, the online store, models, decisions. None keeps state that others need.

Everything here may be called from several threads; what blocks is called from worker threads, never from the loop. Only
keys are read in the loop itself, and without blocking it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from consumers.process import KafkaControlLog
from consumers.served_figures import ServedFigures, read_served
from models.version import Version
from serving.candidate import Candidate
from serving.inference import Matrix
from serving.redis_door import KeyReader
from serving.versions import newest
from streams import features
from streams.control import Control
from streams.decisions import KafkaDecisionLog, Succession
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.served import has_served
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
    """The newest version of each candidate and the figures of answers, looked up at most once a second."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._lock, self._until_s = threading.Lock(), 0.0
        self._found: tuple[dict[str, Version | None], ServedFigures | None] = {}, None

    def look(self) -> tuple[dict[str, Version | None], ServedFigures | None]:
        """Give the versions in the file's order, None for a candidate without one yet, and what was said of answers."""
        with self._lock:
            if time.monotonic() >= self._until_s:
                served = read_served(state_of(self._pipeline)) if has_served(self._pipeline) else None
                self._found, self._until_s = (newest(self._pipeline), served), time.monotonic() + FRESH_S
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
    """The online store, read by key in the event loop: a lookup costs less than a thread's turn."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._name, url = pipeline.name, pipeline.serve.redis
        self._reader = None if url is None else KeyReader(url)

    @property
    def is_there(self) -> bool:
        """Whether the pipeline has one."""
        return self._reader is not None

    async def read(self, key: str) -> dict[str, bytes] | None:
        """Give the fields that are stored for a key.

        Raises:
            StoreError: it cannot be asked.
        """
        assert self._reader is not None  # noqa: S101 - the caller has asked
        return await self._reader.read(self._name, key)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._reader is not None:
            await self._reader.close()
