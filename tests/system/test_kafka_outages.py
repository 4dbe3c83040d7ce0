"""Questions to a broker that is away: how long they are repeated, and what is told then."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streams.embedded import EmbeddedKafka
from streams.errors import UnavailableError
from streams.kafka import KafkaInbox, KafkaOutbox, Reader, Topics
from streams.topic_specs import TopicSpec

NOBODY = {"bootstrap.servers": "127.0.0.1:1", "sasl.password": "hunter2"}


@pytest.fixture(autouse=True)
def _answers_are_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka_errors.FIRST_ANSWER_S", 1.0)
    monkeypatch.setattr("streams.kafka_errors.OUTAGE_S", 60.0)
    monkeypatch.setattr("streams.kafka_reader.MISSING_TOPIC_S", 1.0)
    monkeypatch.setattr("streams.kafka_reader.ANSWER_S", 0.5)
    monkeypatch.setattr("streams.kafka_topics.REQUEST_TIMEOUT_S", 0.5)


def test_a_broker_that_never_answered_is_named_soon() -> None:
    began = time.monotonic()

    with pytest.raises(UnavailableError, match=r"Kafka at 127\.0\.0\.1:1: cannot describe topic x"):
        Topics(NOBODY).uuid("x")
    with pytest.raises(UnavailableError, match=r"Kafka at 127\.0\.0\.1:1: cannot find the ends of x\[0\]") as caught:
        Reader(NOBODY).end_offsets("x", [0])

    assert time.monotonic() - began < 15.0
    assert "hunter2" not in str(caught.value)


def test_questions_wait_out_an_outage_longer_than_a_first_answer_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedKafka(tmp_path / "broker") as broker, ThreadPoolExecutor(4) as pool:
        settings = {"bootstrap.servers": broker.bootstrap_servers}
        topics, reader, outbox = Topics(settings), Reader(settings), KafkaOutbox(settings)
        inbox = KafkaInbox(settings, "group", group_protocol="classic")
        topics.ensure([TopicSpec("log", 1, -1)])
        identity = topics.uuid("log")
        outbox.produce("log", 0, b"1")
        outbox.flush()
        inbox.commit({("log", 0): (1, "here")})

        broker.kill()
        asked: list[Future[Any]] = [
            pool.submit(topics.uuid, "log"),
            pool.submit(reader.end_offsets, "log", [0]),  # it has asked nothing before: others of the process have
            pool.submit(inbox.committed, [("log", 0)]),
            pool.submit(inbox.watermarks, "log", 0),
        ]
        time.sleep(3.0)
        assert [question.done() for question in asked] == [False] * 4
        broker.start()

        answers = [question.result(timeout=60.0) for question in asked]
        assert answers == [identity, {0: 1}, {("log", 0): (1, "here")}, (0, 1)]
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot find the ends of absent"):
            reader.end_offsets("absent", [0])
        assert time.monotonic() - began < 15.0, "a topic that is not there is not waited for as absent brokers are"

        monkeypatch.setattr("streams.kafka_errors.OUTAGE_S", 2.0)
        broker.kill()
        with pytest.raises(UnavailableError, match=r"cannot find the ends of log\[0\]"):
            reader.end_offsets("log", [0])
        for one in (reader, outbox, inbox):
            one.close()
