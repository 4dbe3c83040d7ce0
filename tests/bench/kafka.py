"""What the bench asks of the broker: topics, end offsets, and the messages behind them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # no __all__

DAY_MS = str(86_400_000)
FOR_EVER_MS = "-1"
LEADERS_S = 30.0  # a new topic has leaders in milliseconds, on a busy machine in a second


class BenchError(Exception):
    """A run went wrong: what happened and what to look at."""


class Broker:
    """An address and an admin client for it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 0})

    def create(self, *topics: str, partitions: int, retention_ms: str = DAY_MS) -> None:
        """Make topics of the bench's own (raw input, peers' output)."""
        config = {"retention.ms": retention_ms}
        made = self._admin.create_topics([NewTopic(topic, partitions, 1, config=config) for topic in topics])
        for future in made.values():
            future.result()
        for topic in topics:
            self._wait_for_leaders(topic, partitions)

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        limit_s = time.monotonic() + LEADERS_S
        while True:
            try:
                self.end_offsets(topic, partitions)
                return
            except KafkaException as error:
                if time.monotonic() > limit_s:
                    raise BenchError(f"{topic} has no leaders after {LEADERS_S:.0f} s: {error}") from error
                time.sleep(0.05)

    def delete_all(self, prefix: str) -> None:
        """Remove topics by the beginning of their name, so that no run pays for the one before."""
        names = [name for name in self._admin.list_topics(timeout=10).topics if name.startswith(prefix)]
        if names:
            for future in self._admin.delete_topics(names).values():
                future.result()

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 while it does not exist."""
        listed = self._admin.list_topics(timeout=10).topics.get(topic)
        return 0 if listed is None or listed.error else len(listed.partitions)

    def end_offsets(self, topic: str, partitions: int) -> list[int]:
        """The next offset of every partition, in one request.

        Raises:
            KafkaException: a partition has no leader that is known; ask again.
        """
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # unannotated
        wanted = {TopicPartition(topic, partition): latest for partition in range(partitions)}
        answers = self._admin.list_offsets(wanted)
        try:
            return [answers[key].result().offset for key in sorted(wanted, key=lambda key: key.partition)]
        except KafkaException:
            # The client asks this of leaders it knows and never looks up others: for a new topic it fails for ever.
            self._admin.list_topics(topic, timeout=10)
            raise


def read(broker: Broker, topic: str, start: list[int], stop: list[int]) -> Iterator[Message]:
    """Read every partition of a topic from `start` up to `stop`, without a group."""
    left = {partition: end for partition, end in enumerate(stop) if end > start[partition]}
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "bench", "enable.auto.commit": False,
                         "auto.offset.reset": "error", "fetch.queue.backoff.ms": 5})  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, start[partition]) for partition in left])
    try:
        while left:
            for message in consumer.consume(1000, 0.2):
                if message.error():
                    raise KafkaException(message.error())
                partition, offset = message.partition(), message.offset()
                if partition in left and offset is not None:
                    if offset < left[partition]:
                        yield message
                    if offset + 1 >= left[partition]:
                        del left[partition]
    finally:
        consumer.close()
