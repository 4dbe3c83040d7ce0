"""The bare loop: raw bytes consumed and produced again by one process, `python -m tests.bench.bare BROKER FROM TO`.

It is the most that a Python process on this machine can do with one Kafka message per record, and what all rates are
given as a ratio to. Runs until it is stopped.
"""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.bench.load import PARTITIONS

MESSAGES = 10_000
HIGH_WATER = 400_000  # messages not yet acknowledged
QUEUE = {"queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_000_000}


def main() -> None:
    """Copy for ever."""
    broker, source, target = sys.argv[1:4]
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "bare",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 200_000,
        }
    )
    consumer.assign([TopicPartition(source, partition, 0) for partition in range(PARTITIONS)])
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5, "batch.size": 1_000_000, **QUEUE})
    while True:
        first = consumer.poll(0.1)
        if first is None:
            producer.poll(0)
            continue
        for message in (first, *consumer.consume(MESSAGES - 1, 0)):
            if message.error():
                raise KafkaException(message.error())
            producer.produce(target, message.value(), partition=message.partition() or 0)
        producer.poll(0)
        while len(producer) > HIGH_WATER:
            producer.poll(0.01)


if __name__ == "__main__":
    main()
