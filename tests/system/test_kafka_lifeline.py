"""The last broker of a cluster leaves in order and comes back: no client is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.embedded import EmbeddedKafka
from streams.kafka import KafkaInbox, KafkaOutbox, Tail, Topics
from streams.kafka_publisher import KafkaPublisher
from streams.topic_specs import TopicSpec

AGAIN_WITHIN_S = 60.0
OF_A_KIND = 8
TIMES = 2
RECORD = b"a record"


class Clients:
    """Clients of every kind, each with a look that says whether it has done what it is there for since the last time.

    They ask for metadata so often that some read what a broker says while it shuts down.
    """

    def __init__(self, brokers: str) -> None:
        self._settings = {"bootstrap.servers": brokers, "topic.metadata.refresh.interval.ms": "20"}
        Topics(self._settings).ensure([TopicSpec("t", 1, -1)])
        self._closing: list[Callable[[], None]] = []
        self.looks: dict[str, Callable[[], bool]] = {}
        for number in range(OF_A_KIND):
            self.looks[f"tail {number}"] = self._tail()
            self.looks[f"inbox {number}"] = self._inbox(f"group{number}")
            self.looks[f"outbox {number}"] = self._outbox()
            self.looks[f"publisher {number}"] = self._publisher()

    def _tail(self) -> Callable[[], bool]:
        tail = Tail(self._settings, "t", 1)
        tail.begin({})
        self._closing.append(tail.close)

        def look() -> bool:
            records = tail.take(0, 100_000)
            if records is not None:
                records.release()
            return records is not None

        return look

    def _inbox(self, group: str) -> Callable[[], bool]:
        inbox = KafkaInbox(self._settings, group)
        inbox.subscribe(["t"], lambda new: dict.fromkeys(new, 0), print, print)
        self._closing.append(inbox.close)

        def look() -> bool:
            found = inbox.poll({("t", 0): 100_000}, 0.0)
            for records in found:
                records.release()
            return bool(found)

        return look

    def _outbox(self) -> Callable[[], bool]:
        outbox = KafkaOutbox(self._settings)
        self._closing.append(outbox.close)
        waiting: list[None] = []

        def look() -> bool:
            if not waiting:
                outbox.produce("t", 0, RECORD)
                waiting.append(None)
            outbox.poll()
            has_arrived = outbox._producer.flush(0.001) == 0
            if has_arrived:
                waiting.clear()
            return has_arrived

        return look

    def _publisher(self) -> Callable[[], bool]:
        publisher = KafkaPublisher(self._settings)
        self._closing.append(publisher.close)
        arrived: list[object] = []

        def look() -> bool:
            publisher.publish("t", RECORD, None, arrived.append)
            has_arrived = any(hasattr(one, "offset") for one in arrived)
            arrived.clear()
            return has_arrived

        return look

    def lost(self) -> set[str]:
        """Look at all again and again until each has worked once; gives those that have not in time."""
        lost, deadline = set(self.looks), time.monotonic() + AGAIN_WITHIN_S
        while lost and time.monotonic() < deadline:
            lost -= {name for name in self.looks if self.looks[name]() and name in lost}
            time.sleep(0.05)
        return lost

    def close(self) -> None:
        """Close all."""
        for close in self._closing:
            close()


@pytest.mark.timeout(300)
def test_no_client_is_lost_while_the_last_broker_leaves(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "broker") as broker:
        clients = Clients(broker.bootstrap_servers)
        assert clients.lost() == set()
        for _ in range(TIMES):
            broker.stop()
            broker.start()

            assert clients.lost() == set()
        clients.close()
