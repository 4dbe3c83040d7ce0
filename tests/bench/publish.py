"""Publishes the bench input: `python -m tests.bench.publish BROKER EVENTS_TOPIC LABELS_TOPIC --events N`.

Without `--rate` as fast as possible and closed by end marks, so that everything settles. With `--rate` by a schedule
that nobody downstream can delay: event i is due at `--start` + i / rate and is stamped with that time, its label is due
one second later; what is late is sent at once. The delay of each event behind its due time goes to `--delays`.
"""

from __future__ import annotations

import argparse
import gc
import time
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from tests.bench.load import KEYS, LABEL_AFTER_US, PARTITIONS, Load, blocks

TICK_S = 0.0005
END_MARK: list[tuple[str, str | bytes | None]] = [("millrace-mark", b"end")]


def main() -> None:
    """Publish and leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker")
    parser.add_argument("events_topic")
    parser.add_argument("labels_topic")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--keys", type=int, default=KEYS, help=f"over how many keys ({KEYS:,})")
    parser.add_argument("--rate", type=int, help="events per second; without it as fast as possible")
    parser.add_argument("--start", type=int, help="when event 0 is due, in us since 1970")
    parser.add_argument("--delays", type=Path, help="where to write how late each event was sent, in us (.npy)")
    chosen = parser.parse_args()
    topics = chosen.events_topic, chosen.labels_topic
    if chosen.rate is None:
        publish_all(chosen.broker, topics, Load(keys=chosen.keys), chosen.events)
        return
    load = Load(start_us=chosen.start, events_per_s=chosen.rate, keys=chosen.keys, seed=11)
    delays_us = publish_on_schedule(chosen.broker, topics, load, chosen.events)
    if chosen.delays:
        np.save(chosen.delays, delays_us)


def publish_all(broker: str, topics: tuple[str, str], load: Load, events: int) -> None:
    """Publish in time order as fast as the broker takes it, then one end mark to every partition."""
    producer = _producer(broker, linger_ms=50)
    for made in blocks(load, events):
        for topic, values in zip(topics, (made.events, made.labels), strict=True):
            for partition, key, value in zip(made.partitions, made.keys, values, strict=True):
                producer.produce(topic, value, key, partition)
            producer.poll(0)
        while len(producer) > 500_000:
            producer.poll(0.05)
    for topic in topics:
        for partition in range(PARTITIONS):
            producer.produce(topic, None, partition=partition, headers=END_MARK)
    producer.flush()


def publish_on_schedule(broker: str, topics: tuple[str, str], load: Load, events: int) -> npt.NDArray[np.int64]:
    """Send each event and label when it is due; give how late each event was, in us."""
    producer = _producer(broker, linger_ms=1)
    made = list(blocks(load, events))
    partitions = [partition for part in made for partition in part.partitions]
    keys, values, labels = (list(chain(*parts)) for parts in zip(*(part[2:] for part in made), strict=True))
    delays_us = np.zeros(events, np.int64)
    gc.disable()  # a collection would be counted as latency
    sent, labelled = 0, 0
    while labelled < events:
        now_us = time.time_ns() // 1000
        due = min(events, max(0, (now_us - load.start_us) * load.events_per_s // 1_000_000 + 1))
        for at in range(sent, due):
            producer.produce(topics[0], values[at], keys[at], partitions[at])
        if due > sent:
            due_us = load.start_us + np.arange(sent, due, dtype=np.int64) * 1_000_000 // load.events_per_s
            delays_us[sent:due] = time.time_ns() // 1000 - due_us
            sent = due
        due = min(sent, max(0, (now_us - LABEL_AFTER_US - load.start_us) * load.events_per_s // 1_000_000 + 1))
        for at in range(labelled, due):
            producer.produce(topics[1], labels[at], keys[at], partitions[at])
        labelled = max(labelled, due)
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush()
    return delays_us


def _producer(broker: str, linger_ms: int) -> Producer:
    """Idempotent, as producers are by default since Kafka 3.0: at most five requests are under way at once."""
    return Producer(
        {
            "bootstrap.servers": broker,
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
        }
    )


if __name__ == "__main__":
    main()
