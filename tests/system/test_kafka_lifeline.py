"""The last broker of a cluster leaves in order and comes back: no client is lost."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from streams.embedded import EmbeddedKafka
from streams.kafka import KafkaInbox, KafkaOutbox, RebalancedError, Tail, Topics
from streams.kafka_publisher import KafkaPublisher
from streams.records import Records, pack, value
from streams.topic_specs import TopicSpec

AGAIN_WITHIN_S = 120.0
COMMITTED_WITHIN_S = 35.0  # librdkafka by itself gives up a commit after 60 s, of which the broker is away for some
OF_A_KIND = 6
TIMES = 2


class Clients:
    """Clients of every kind, each with a look that says whether it has done in this round what it is there for.

    They ask for metadata so often that some read what a broker says while it shuts down.
    """

    def __init__(self, brokers: str) -> None:
        self._settings = {"bootstrap.servers": brokers, "topic.metadata.refresh.interval.ms": "20"}
        Topics(self._settings).ensure([TopicSpec("t", 1, -1)])
        self.record = b"before"  # of this round
        self.inboxes: list[KafkaInbox] = []
        self._closing: list[Callable[[], None]] = []
        self._looks: dict[str, Callable[[], bool]] = {}
        for number in range(OF_A_KIND):
            self._looks[f"tail {number}"] = self._tail()
            self._looks[f"inbox {number}"] = self._inbox(f"group{number}")
            self._looks[f"outbox {number}"] = self._outbox()
            self._looks[f"publisher {number}"] = self._publisher()

    def _tail(self) -> Callable[[], bool]:
        tail = Tail(self._settings, "t", 1)
        tail.begin({})
        self._closing.append(tail.close)

        def look() -> bool:
            records = tail.take(0, 100_000)
            return records is not None and self._is_of_this_round(records)

        return look

    def _inbox(self, group: str) -> Callable[[], bool]:
        inbox = KafkaInbox(self._settings, group)
        inbox.subscribe(["t"], lambda new: dict.fromkeys(new, 0), print, print)
        self.inboxes.append(inbox)
        self._closing.append(inbox.close)
        return lambda: True in [self._is_of_this_round(one) for one in inbox.poll({("t", 0): 100_000}, 0.0)]

    def _is_of_this_round(self, records: Records) -> bool:
        found = any(value(records, i) == self.record for i in range(records.offsets.size))
        records.release()
        return found

    def _outbox(self) -> Callable[[], bool]:
        outbox = KafkaOutbox(self._settings)
        self._closing.append(outbox.close)
        sent: set[bytes] = set()

        def look() -> bool:
            if self.record not in sent:
                sent.add(self.record)
                outbox.produce("t", 0, self.record)
                outbox.produce_many("t", 0, pack([self.record]))
            return outbox._flush(0.001) == 0

        return look

    def _publisher(self) -> Callable[[], bool]:
        publisher = KafkaPublisher(self._settings)
        self._closing.append(publisher.close)
        arrived: set[bytes] = set()

        def done(record: bytes, place: object) -> None:
            if not isinstance(place, Exception):
                arrived.add(record)

        def look() -> bool:
            publisher.publish("t", self.record, None, partial(done, self.record))
            return self.record in arrived

        return look

    def lost(self, record: bytes) -> set[str]:
        """Begin a round and look at all until each has worked in it; gives those that have not in time."""
        self.record = record
        lost, deadline = set(self._looks), time.monotonic() + AGAIN_WITHIN_S
        while lost and time.monotonic() < deadline:
            lost -= {name for name, look in self._looks.items() if look()}
            time.sleep(0.05)
        return lost

    def close(self) -> None:
        """Close all."""
        for close in self._closing:
            close()


def test_a_client_that_is_dropped_is_let_go_at_once() -> None:
    """The topic administration has no other end than that."""
    gc.disable()
    try:
        topics = Topics({"bootstrap.servers": "127.0.0.1:1"})
        dropped = weakref.ref(topics)
        del topics
        assert dropped() is None
    finally:
        gc.enable()


def _commit(inbox: KafkaInbox) -> None:
    with suppress(RebalancedError):
        inbox.commit({("t", 0): (1, "")})


@pytest.mark.timeout(600)
def test_no_client_is_lost_while_the_last_broker_leaves(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "broker") as broker, ThreadPoolExecutor(OF_A_KIND) as pool:
        clients = Clients(broker.bootstrap_servers)
        assert clients.lost(b"at first") == set()
        for number in range(TIMES):
            broker.stop()
            commits = [pool.submit(_commit, inbox) for inbox in clients.inboxes]
            broker.start()

            assert not wait(commits, COMMITTED_WITHIN_S).not_done
            assert clients.lost(b"round %d" % number) == set()
        clients.close()
