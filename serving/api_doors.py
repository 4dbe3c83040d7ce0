"""What the HTTP API reaches: Kafka, the online store, models, decisions. None keeps state that others need.

Everything here may be called from several threads; what blocks is called from worker threads, never from the loop. Only
keys are read in the loop itself, and without blocking it. No request waits for Kafka: what was known last is answered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from consumers.process import KafkaControlLog
from consumers.served_figures import ServedFigures, read_served
from models.version import Version
from serving.candidate import Candidate
from serving.inference import Matrix
from serving.redis_door import REFUSED, KeyReader
from serving.versions import newest
from streams import features
from streams.control import Control, ControlLog
from streams.decisions import DecisionLog, KafkaDecisionLog, Succession
from streams.errors import StoreError
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.served import has_served
from streams.state_folder import state_of

LOG = logging.getLogger("serving.api_doors")
FRESH_S = 1.0  # the league is looked up once in so long, however many ask
MOST_DECISIONS = 10_000  # kept in memory; older ones are in their topic
HEAR_EVERY_S = 0.2  # as often as serve looks for versions
AWAY_S = 2.0  # between looks while Kafka is away; each may take four minutes by itself
STOP_S = 2.0  # a look that takes longer is left to end with the process


class OpenControlLog(ControlLog, Protocol):
    """A control topic over a connection."""

    def close(self) -> None:
        """Let go of it."""


class OpenDecisionLog(DecisionLog, Protocol):
    """A decisions topic over a connection."""

    def close(self) -> None:
        """Let go of it."""


class _Heard(Control):
    """The control topic as it was when it was read last: a candidate that looks for versions here waits for nothing."""

    def refresh(self) -> None:
        """Change nothing."""

    def hear(self) -> None:
        """Read what is new, which waits for Kafka."""
        super().refresh()


class ModelShelf:
    """The candidates' newest versions, each loaded when it is first asked for and followed from then on.

    A thread reads the control topic, so that the versions at hand go on answering while Kafka is away.

    Args:
        pipeline: whose candidates they are.
        metrics: told which versions answer.
        log: where versions are announced.

    Raises:
        UnavailableError: Kafka does not answer, at the start.
    """

    def __init__(self, pipeline: Pipeline, metrics: RoleMetrics, log: OpenControlLog | None = None) -> None:
        self._pipeline, self._metrics = pipeline, metrics
        self._models = {model.name: model for model in pipeline.models}
        self._columns = features.columns(pipeline)
        self._state = state_of(pipeline)
        self._log: OpenControlLog = KafkaControlLog(pipeline) if log is None else log
        self._control = _Heard(self._log)
        self._held: dict[str, Candidate] = {}
        self._lock, self._is_closing = threading.Lock(), threading.Event()
        self._control.hear()
        self._thread = threading.Thread(target=self._hear_on, name="versions", daemon=True)
        self._thread.start()

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

    def _hear_on(self) -> None:
        is_away = False
        while not self._is_closing.wait(AWAY_S if is_away else HEAR_EVERY_S):
            try:
                self._control.hear()
                is_away = False
            except Exception as error:  # noqa: BLE001 - whatever it is: without this thread no version ever comes again
                if not is_away:
                    LOG.warning("the control topic cannot be read, the versions at hand go on: %s", error)
                is_away = True

    def close(self) -> None:
        """Let go of the connection, unless it is in the middle of a question that nobody answers."""
        self._is_closing.set()
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
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
    """The records of P.decisions, taken as they come. What is no record of ours is passed over.

    Args:
        pipeline: whose decisions they are.
        log: where they are read.

    Raises:
        UnavailableError: Kafka does not answer, at the start.
    """

    def __init__(self, pipeline: Pipeline, log: OpenDecisionLog | None = None) -> None:
        self._log: OpenDecisionLog = KafkaDecisionLog(pipeline) if log is None else log
        self._lock = threading.Lock()
        self._found: deque[Mapping[str, Any]] = deque(maxlen=MOST_DECISIONS)
        self._take(self._log.read_to_end())

    def newest(self, most: int) -> list[Mapping[str, Any]]:
        """Give the last decisions, the newest first; while Kafka is away those that are known."""
        with self._lock:
            self._take(self._log.read_new())
            return list(islice(reversed(self._found), most))

    def _take(self, values: Iterable[bytes]) -> None:
        for value in values:
            try:
                self._found.append(_object(value))
            except (ValueError, RecursionError):
                LOG.warning("a record of the decisions topic is no JSON object and is passed over")

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
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
        with self._lock:
            self._log.close()


class LastRow(NamedTuple):
    """What is kept of a key's last event."""

    number: int
    generation: int
    time_us: int
    features: msgspec.Raw
    prediction: msgspec.Raw


class KeyStore:
    """The online store, read by key in the event loop: a lookup costs less than a thread's turn."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._name, url = pipeline.name, pipeline.serve.redis
        self._longest_bytes = pipeline.run.max_text_bytes
        self._reader = None if url is None else KeyReader(url)

    @property
    def is_there(self) -> bool:
        """Whether the pipeline has one."""
        return self._reader is not None

    async def read(self, key: str) -> LastRow | None:
        """Give what is stored for a key; None for one that no event can have, too.

        Raises:
            StoreError: it cannot be asked, or the key holds something that is not ours.
        """
        assert self._reader is not None  # noqa: S101 - the caller has asked
        if len(key.encode()) > self._longest_bytes:
            return None
        try:
            stored = await self._reader.read(self._name, key)
            return None if stored is None else _last_row(stored)
        except (KeyError, ValueError):
            where = f"{self._name}:key:{key[:100]}"
            what = f"the hash {where!r} was not written by Millrace; the key's next event replaces it"
            raise StoreError(REFUSED, what) from None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._reader is not None:
            await self._reader.close()


_object = msgspec.json.Decoder(dict[str, Any]).decode


def _last_row(stored: Mapping[str, bytes]) -> LastRow:
    number, generation, time_us = (int(stored[name]) for name in ("number", "generation", "time_us"))
    texts = stored["features"], stored["prediction"]
    for text in texts:
        _object(text)  # answered as it lies there, if it is one
    return LastRow(number, generation, time_us, *map(msgspec.Raw, texts))
