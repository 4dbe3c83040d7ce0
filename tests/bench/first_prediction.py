"""Publishes events until one is answered: the moment from which a pipeline is up."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.bench.kafka import BenchError
from tests.bench.load import PARTITIONS, Load, block

EVERY_S = 0.1
LIMIT_S = 90.0


def wait_for_first_prediction(
    address: str, events_topic: str, predictions_topic: str, check: Callable[[], None], limit_s: float = LIMIT_S
) -> None:
    """Publish one event to every partition ten times a second until predictions of all partitions have come.

    Raises:
        BenchError: none came in time.
    """
    stop_s = time.monotonic() + limit_s
    wait_for_topics(address, [events_topic, predictions_topic], check, stop_s)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0})
    consumer = Consumer({"bootstrap.servers": address, "group.id": "first", "auto.offset.reset": "earliest",
                         "enable.auto.commit": False, "fetch.wait.max.ms": 5})  # fmt: skip
    consumer.assign([TopicPartition(predictions_topic, partition, 0) for partition in range(PARTITIONS)])
    answered: set[int] = set()
    sent = 0
    try:
        while len(answered) < PARTITIONS:
            if time.monotonic() > stop_s:
                raise BenchError(f"no prediction in every partition of {predictions_topic} after {limit_s:.0f} s")
            check()
            _publish_one_each(producer, events_topic, sent)
            sent += 1
            until_s = time.monotonic() + EVERY_S
            while (left_s := until_s - time.monotonic()) > 0:
                message = consumer.poll(left_s)
                if message is not None and message.error() is None:
                    answered.add(message.partition() or 0)
    finally:
        consumer.close()
    producer.flush()


def wait_for_topics(address: str, topics: list[str], check: Callable[[], None], stop_s: float) -> None:
    """Wait until topics exist.

    Raises:
        BenchError: they do not in time.
    """
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    while True:
        check()
        try:
            if set(topics) <= admin.list_topics(timeout=2).topics.keys():
                return
        except KafkaException:
            pass  # the broker is still starting
        if time.monotonic() > stop_s:
            raise BenchError(f"{', '.join(topics)} not made in time")
        time.sleep(0.05)


def _publish_one_each(producer: Producer, topic: str, turn: int) -> None:
    probes = block(Load(start_us=time.time_ns() // 1000, events_per_s=1_000_000, seed=100 + turn), 0, 64)
    for partition in range(PARTITIONS):
        at = probes.partitions.index(partition)
        value = probes.events[at].replace(b'"id":"e', b'"id":"p%04d' % turn)
        producer.produce(topic, value, probes.keys[at], partition)
    producer.poll(0)
