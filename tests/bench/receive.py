"""Notes when predictions arrive: `python -m tests.bench.receive BROKER TOPIC --events N --to FILE`.

Writes two int64 columns (.npy): the event's number (from its id) and the wall clock in us when the message left the
client library. Ends when N predictions of the load have come, or `--quiet` seconds after the last one.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from tests.bench.load import PARTITIONS, event_number


class Prediction(msgspec.Struct):
    """The part of a prediction that the bench reads."""

    id: str


def main() -> None:
    """Receive and leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker")
    parser.add_argument("topic")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--quiet", type=float, default=15.0)
    chosen = parser.parse_args()
    consumer = Consumer(
        {
            "bootstrap.servers": chosen.broker,
            "group.id": "receive",
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 5,
        }
    )
    consumer.assign([TopicPartition(chosen.topic, partition, OFFSET_END) for partition in range(PARTITIONS)])
    received = receive(consumer, chosen.events, chosen.quiet)
    np.save(chosen.to, received)
    consumer.close()


def receive(consumer: Consumer, events: int, quiet_s: float) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Give [N, 2]: event number, arrival in us."""
    decoder = msgspec.json.Decoder(Prediction)
    numbers: list[int] = []
    arrivals_us: list[int] = []
    last_s = time.monotonic() + 10.0  # the first one may take longer
    gc.disable()
    while len(numbers) < events and time.monotonic() - last_s < quiet_s:
        first = consumer.poll(0.1)
        if first is None:
            continue
        messages = [first, *consumer.consume(5_000, 0)]
        now_us = time.time_ns() // 1000
        for message in messages:
            value = message.value()
            if message.error() is None and value is not None:
                numbers.append(event_number(decoder.decode(value).id))
                arrivals_us.append(now_us)
        last_s = time.monotonic()
    return np.array([numbers, arrivals_us], np.int64).T


if __name__ == "__main__":
    main()
