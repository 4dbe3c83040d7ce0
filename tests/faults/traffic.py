"""Live traffic for runs with faults: events and labels in every order and condition, published while things die.

Event time runs faster than the clock, so that windows fill, labels arrive and waits end within seconds.
"""

from __future__ import annotations

import heapq
import json
import random
import threading
import time

from serving.publish import MARK_HEADER
from streams.kafka import KafkaOutbox
from streams.pipeline import Pipeline

WAIT_S = 60  # [labels] wait of pipeline.toml, in event time
STEP_S = 0.15  # of event time between two events
PAUSE_S = 0.02
KEYS = 25
DAMAGED = b'{"id": "broken'


class Traffic:
    """A thread that publishes until it is stopped.

    Args:
        pipeline: names topics and brokers.
        seed: of everything random.
        rate: events a second.
    """

    def __init__(self, pipeline: Pipeline, seed: int, rate: float) -> None:
        self._topics = (pipeline.events.topic, pipeline.labels.topic)
        self._partitions = pipeline.partitions
        self._outbox = KafkaOutbox(pipeline.kafka)
        self._rng = random.Random(seed)
        self._rate = rate
        self._base_s = time.time() - 86_400.0
        self._due: list[tuple[float, int, int, int, bytes]] = []  # event time, number, topic, partition, record
        self._numbers = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None
        self.events = 0

    def start(self) -> None:
        """Publish from now on."""
        self._thread.start()

    def end(self) -> None:
        """Stop, and say that nothing more comes. Raises what the thread raised."""
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        for topic in self._topics:
            for partition in range(self._partitions):
                self._outbox.produce(topic, partition, None, None, [(MARK_HEADER, b"end")])
        self._outbox.flush()
        self._outbox.close()

    def publish(self, events: int) -> None:
        """Publish so many events, and what is due by then, at once; no thread is needed."""
        for _ in range(events):
            self._make_event()
        self._publish_due()
        self._outbox.flush()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while not self._stopping.wait(PAUSE_S):
                wanted = int((time.monotonic() - began) * self._rate)
                while self.events < wanted:
                    self._make_event()
                    self._publish_due()
        except BaseException as error:  # noqa: BLE001 - raised again by `end`
            self._failure = error

    def _publish_due(self) -> None:
        now_s = self.events * STEP_S
        while self._due and self._due[0][0] <= now_s:
            _, _, topic, partition, record = heapq.heappop(self._due)
            self._outbox.produce(self._topics[topic], partition, record)

    def _put(self, at_s: float, topic: int, partition: int, record: bytes) -> None:
        self._numbers += 1
        heapq.heappush(self._due, (at_s, self._numbers, topic, partition, record))

    def _make_event(self) -> None:
        """One event and what belongs to it: perhaps a copy, a label, a second label, a damaged record."""
        rng, number, at_s = self._rng, self.events, self.events * STEP_S
        self.events += 1
        partition, back_s = rng.randrange(self._partitions), rng.choice([0.0, 0.0, 0.0, 1.0, 15.0])
        name = {"id": f"e{number}", "key": f"k{rng.randrange(KEYS)}"}
        event = name | {"at": self._us(at_s - back_s), "shop": f"s{number % 3}"}
        amount = None if number % 11 == 0 else round(rng.random() * 10, 2)
        record = json.dumps(event | {"amount": amount}).encode()
        self._put(at_s, 0, partition, record)
        if rng.random() < 0.05:
            self._put(at_s + rng.random() * 9, 0, rng.randrange(self._partitions), record)
        if rng.random() < 0.01:
            self._put(at_s, rng.randrange(2), partition, DAMAGED)
        if rng.random() < 0.85:
            late_s = rng.choice([-2.0, 1.0, 5.0, 20.0, WAIT_S - 1.0, WAIT_S + 9.0])
            label = name | {"at": self._us(at_s + late_s), "y": rng.randrange(2)}
            where = rng.randrange(self._partitions)
            self._put(at_s + late_s, 1, where, json.dumps(label).encode())
            if rng.random() < 0.1:
                again = label | {"y": rng.choice([0, 1, None])}
                self._put(at_s + late_s + 4.0, 1, where, json.dumps(again).encode())

    def _us(self, at_s: float) -> int:
        return int((self._base_s + at_s) * 10) * 100_000
