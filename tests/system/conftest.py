"""One real Kafka for all system tests, and names that keep them apart."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from streams.embedded import EmbeddedKafka
from streams.kafka import Topics
from streams.topic_specs import TopicSpec

WAIT_S = 30.0
WEEK_MS = 604_800_000


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker for the whole session. A test that stops it must start it again."""
    with EmbeddedKafka(tmp_path_factory.mktemp("state")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(kafka_server: EmbeddedKafka) -> str:
    """The bootstrap servers of the session's broker."""
    return kafka_server.bootstrap_servers


@pytest.fixture
def settings(kafka: str) -> dict[str, str]:
    """The [kafka] table of the session's broker."""
    return {"bootstrap.servers": kafka}


@pytest.fixture
def prefix() -> str:
    """A name for this test's topics and groups."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def topics(settings: dict[str, str]) -> Iterator[Topics]:
    """The topics of the session's broker."""
    door = Topics(settings)
    yield door
    door.close()


@pytest.fixture
def topic(topics: Topics, prefix: str) -> str:
    """A fresh topic of two partitions."""
    topics.ensure([TopicSpec(f"{prefix}.rows", 2, WEEK_MS, is_compacted=False, is_user_topic=False)])
    return f"{prefix}.rows"


def until(condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Return as soon as `condition` holds; fail the test if it never does."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not become true within {wait_s} s")
        time.sleep(0.02)
