"""What the HTTP API reaches, while Kafka is away, and where others have written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from models.learner import make_learner
from models.registry import write_version
from models.version import encode_record
from serving import api_doors
from serving.api_doors import Decisions, KeyStore, LastRow, ModelShelf
from serving.redis_door import KeyReader
from streams import features
from streams.errors import StoreError, UnavailableError
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline, Run, Serve
from tests import rows
from tests.system.conftest import until

PRIOR = Model("prior", "prior", {})
AWAY = UnavailableError("Kafka at 127.0.0.1:1 does not answer")


class Log:
    """A control topic whose broker the test takes away."""

    def __init__(self) -> None:
        self.new: list[tuple[int, str, bytes | None]] = []
        self.error: Exception | None = None
        self.may_go, self.has_waited = threading.Event(), threading.Event()
        self.is_closed = False
        self.may_go.set()

    def append(self, key: str, value: bytes) -> None:
        self.new = [*self.new, (0, key, value)]

    def read_new(self) -> list[tuple[int, str, bytes | None]]:
        if not self.may_go.is_set():
            self.has_waited.set()
            self.may_go.wait()
        if self.error is not None:
            self.has_waited.set()
            raise self.error
        found, self.new = self.new, []
        return found

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A control topic that is looked at all the time."""
    monkeypatch.setattr(api_doors, "HEAR_EVERY_S", 0.001)
    monkeypatch.setattr(api_doors, "AWAY_S", 0.001)
    return Log()


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline of one baseline."""
    return rows.pipeline(state=tmp_path)


@pytest.fixture
def shelf(pipeline: Pipeline, log: Log) -> Iterator[ModelShelf]:
    """Its candidates, of which one has a version."""
    publish(pipeline, log, 2)
    found = ModelShelf(pipeline, RoleMetrics("api", "p"), log)
    yield found
    log.may_go.set()
    found.close()


def publish(pipeline: Pipeline, log: Log, examples: int) -> None:
    """Write and announce a version that has seen so many positive labels."""
    columns = features.columns(pipeline)
    learner = make_learner(PRIOR, columns, None)
    learner.learn(np.zeros((examples, len(columns))), np.ones(examples))
    version = write_version(pipeline.state, PRIOR, columns, learner, (0, examples), 1_700_000_000_000_000)
    assert version is not None
    log.append("version/prior", encode_record(version))


def answer(shelf: ModelShelf) -> tuple[float, str]:
    """What the candidate says of a row, and which version says it."""
    score_B, version = shelf.predict("prior", np.zeros((1, 4)))
    return round(float(score_B[0]), 3), version


def test_versions_are_followed_as_they_come(pipeline: Pipeline, log: Log, shelf: ModelShelf) -> None:
    first = answer(shelf)
    publish(pipeline, log, 8)
    until(lambda: shelf.version("prior") == "0.8")

    assert (first, answer(shelf)) == ((0.75, "0.2"), (0.9, "0.8"))


def test_a_version_in_memory_answers_while_kafka_is_silent(log: Log, shelf: ModelShelf) -> None:
    """A question that Kafka does not answer takes minutes; no request waits for it, nor does the first one."""
    log.may_go.clear()
    assert log.has_waited.wait(30)

    assert (answer(shelf), shelf.version("prior")) == ((0.75, "0.2"), "0.2")


@pytest.mark.parametrize("error", [AWAY, ValueError("a bug")])
def test_versions_are_followed_again_when_kafka_is_back(
    pipeline: Pipeline, log: Log, shelf: ModelShelf, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once that it is away, however often it is asked."""
    log.error = error
    for _ in range(3):
        log.has_waited.clear()
        assert log.has_waited.wait(30)
    away = answer(shelf)
    publish(pipeline, log, 8)
    log.error = None
    until(lambda: shelf.version("prior") == "0.8")

    assert away == (0.75, "0.2")
    assert [record.getMessage() for record in caplog.records] == [
        f"the control topic cannot be read, the versions at hand go on: {error}"
    ]


def test_a_shelf_begins_with_what_there_is_or_not_at_all(pipeline: Pipeline, log: Log) -> None:
    """A process that starts without Kafka ends, and is started again."""
    log.error = AWAY

    with pytest.raises(UnavailableError, match="does not answer"):
        ModelShelf(pipeline, RoleMetrics("api", "p"), log)


def test_a_shelf_that_is_closed_reads_no_more(log: Log, shelf: ModelShelf) -> None:
    shelf.close()

    assert log.is_closed
    assert "versions" not in [thread.name for thread in threading.enumerate()]


def test_a_connection_in_use_is_left_to_the_end_of_the_process(
    log: Log, shelf: ModelShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client does not survive it being closed under a question."""
    monkeypatch.setattr(api_doors, "STOP_S", 0.001)
    log.may_go.clear()
    assert log.has_waited.wait(30)
    shelf.close()

    assert not log.is_closed


class DecisionLog:
    """A decisions topic: `there` lies at the broker at the start, `come` is fetched later."""

    def __init__(self, there: list[bytes]) -> None:
        self.there = there
        self.come: list[bytes] = []

    def read_to_end(self) -> list[bytes]:
        found, self.there = self.there, []
        if not found:
            raise AWAY
        return found

    def read_new(self) -> list[bytes]:
        found, self.come = self.come, []
        return found

    def close(self) -> None:
        """Nothing is open."""


def test_decisions_are_told_newest_first_and_taken_as_they_come(pipeline: Pipeline) -> None:
    """Without asking Kafka where their end is: that would wait while it is away."""
    log = DecisionLog([b'{"n":1}', b'{"n":2}'])
    decisions = Decisions(pipeline, log)
    before = decisions.newest(100)
    log.come = [b'{"n":3}']

    assert before == [{"n": 2}, {"n": 1}]
    assert [decisions.newest(most) for most in (2, 1)] == [[{"n": 3}, {"n": 2}], [{"n": 3}]]


def test_a_record_that_is_no_decision_is_passed_over(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    """Anyone may write to a topic; the others of its batch are told."""
    foreign = [b"", b"no JSON", b"[1]", b"null", b'{"n":"\xff"}', b'{"n":' * 100_000]
    log = DecisionLog([b'{"n":1}', *foreign, b'{"n":2}'])
    decisions = Decisions(pipeline, log)
    log.come = [*foreign, b'{"n":3}']

    assert decisions.newest(100) == [{"n": 3}, {"n": 2}, {"n": 1}]
    assert len(caplog.records) == 2 * len(foreign)


ROW = {"number": b"7", "generation": b"0", "time_us": b"5", "features": b'{"amount":1.0}', "prediction": b'{"id":"a"}'}


class Redis:
    """The online store's hashes."""

    def __init__(self, hashes: dict[str, dict[str, bytes]]) -> None:
        self.hashes = hashes
        self.asked: list[str] = []

    async def read(self, pipeline: str, key: str) -> dict[str, bytes] | None:
        self.asked.append(key)
        return self.hashes.get(key)


def read(key: str, hashes: dict[str, dict[str, bytes]], **run: Any) -> tuple[LastRow | None, list[str]]:
    """Look a key up; gives what is found, and what Redis was asked for."""
    store = KeyStore(rows.pipeline(serve=Serve("prior", redis="redis://127.0.0.1:1"), run=Run(**run)))
    redis = Redis(hashes)
    store._reader = cast("KeyReader", redis)
    return asyncio.run(store.read(key)), redis.asked


@pytest.mark.parametrize(("longest_bytes", "key"), [(1_024, "é" * 512), (4_096, "k" * 4_096)])
def test_a_key_is_asked_for_whole_and_only_if_an_event_can_have_it(longest_bytes: int, key: str) -> None:
    """An event with a longer one is a dead letter; the data of another key is never told under its name."""
    hashes = {key: ROW, key[:1_024]: ROW}
    found, asked = read(key, hashes, max_text_bytes=longest_bytes)
    longer = read(f"{key}k", hashes, max_text_bytes=longest_bytes)

    assert found is not None
    assert (found.number, bytes(found.features), asked) == (7, b'{"amount":1.0}', [key])
    assert longer == (None, [])


@pytest.mark.parametrize(
    "foreign",
    [
        {"name": b"Ann"},
        {**ROW, "number": b"seven"},
        {**ROW, "features": b""},
        {**ROW, "prediction": b"[1]"},
        {**ROW, "prediction": b'{"id":"\xff"}'},
    ],
)
def test_a_hash_that_is_not_ours_is_told_apart(foreign: dict[str, bytes]) -> None:
    with pytest.raises(StoreError, match=r"^the hash 'p:key:c1' was not written by Millrace"):
        read("c1", {"c1": foreign})
