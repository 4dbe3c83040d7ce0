"""Writing to Kafka: in order, without gaps, never expiring. Part of the Kafka door."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, cast

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.errors import DeliveryError, MillraceError, UnavailableError
from streams.kafka_batches import QUEUE_FULL, BatchProducer
from streams.kafka_errors import (
    CLIENT_SETTINGS,
    LOG,
    OUTAGE_S,
    PURGED,
    REFUSED,
    Complaints,
    config_error,
    error_of,
    translate,
)
from streams.kafka_lifeline import Lifeline
from streams.records import Packed, Payload

CLOSE_WAIT_S = 5.0
"""How long closing waits for what was not flushed: a worker that failed must not hang."""
FULL_WAIT_S = 0.002
"""How long `produce` leaves a full queue alone: nothing tells of room there, for only failures are reported."""
BATCH_FULL_WAIT_S = 0.1
"""How long `produce_many` does at most: every delivery is reported to it."""
BATCH_LINGER_MS = 0.2
"""How long records of `produce_many` wait for those behind them, or the first would go alone; see `linger_ms`."""
SERVE_EVERY = 1_000
"""Reports and errors are served once in so many produced messages."""


class Outbox(Protocol):
    """What a worker writes to."""

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Queue one record; without a partition the key decides. Blocks while the queue is full (back-pressure).

        Raises:
            DeliveryError: this or an earlier record was refused for good.
        """
        ...

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        """Queue many records of one partition, in order; raises as `produce`."""
        ...

    def poll(self) -> None:
        """Hear, without waiting, what became of records and of the brokers; to be called now and then.

        Raises:
            DeliveryError: a record was refused for good.
            UnavailableError: the brokers refuse us for good.
        """
        ...

    def flush(self) -> None:
        """Return when everything produced is acknowledged.

        Raises:
            DeliveryError: a record was refused for good.
            UnavailableError: the brokers stayed away too long.
        """
        ...

    def close(self) -> None:
        """Let go of what is not delivered within a few seconds: flush before."""
        ...


class KafkaOutbox:
    """An idempotent, gapless producer that never lets a message expire: what cannot be sent yet waits, bounded.

    Args:
        settings: the [kafka] table.
        linger_ms: how long a message of `produce` may wait for company (`produce_many` has its own); the client makes a
            whole millisecond of any fraction. 0 costs a request per message where they come one by one.
        compression: `none` or what librdkafka names, as `lz4`.
        batch_bytes: largest batch of one partition.

    Attributes:
        produced_total, produced_bytes: messages and value bytes taken so far.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        linger_ms: float = 0.2,
        compression: str = "none",
        batch_bytes: int = 1_000_000,
    ) -> None:
        self._settings = settings
        self._complaints = Complaints(settings, "producer")
        self._failure: MillraceError | None = None
        self.produced_total = 0
        self.produced_bytes = 0
        own: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,  # a message refused for good must not let later ones overtake it
            "message.timeout.ms": 0,  # never expire: the gapless guarantee does not cover time-outs
            "linger.ms": linger_ms,
            "compression.type": compression,
            "batch.size": batch_bytes,
            "batch.num.messages": 100_000,
            "queue.buffering.max.kbytes": 8_192,  # back-pressure, and memory: what waits for the broker is held here
            "queue.buffering.max.messages": 1_000_000,
            "partitioner": "murmur2_random",  # as Java producers place keys
        }
        self._config = {**settings, **CLIENT_SETTINGS, **own}
        self._batches: BatchProducer | None = None
        callbacks = {"delivery.report.only.error": True, "on_delivery": self._on_delivery, "error_cb": self._on_error}
        try:
            self._producer = Producer({**self._config, **callbacks})
        except (KafkaException, TypeError, ValueError) as error:
            raise config_error(error, settings, "the producer") from None
        self._lifeline = Lifeline.of(self._producer, settings)

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """See `Outbox.produce`."""
        self._queue(topic, partition, value, key, headers)
        self.produced_total += 1
        self.produced_bytes += 0 if value is None else len(value)
        if self.produced_total % SERVE_EVERY == 0:
            self.poll()

    def _queue(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None,
        headers: list[tuple[str, bytes]] | None,
    ) -> None:
        where = -1 if partition is None else partition
        # The client's stubs demand a list type of its own, and do not know that it takes numpy's arrays.
        own_headers, payload = cast("Any", headers or []), cast("Any", value)
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                self._producer.produce(topic, payload, key, where, headers=own_headers)
            except BufferError:
                self._producer.poll(FULL_WAIT_S)
                self._lifeline.look()
            except KafkaException as error:
                self._fail(error_of(error), topic, partition)
            else:
                return

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        """See `Outbox.produce_many`."""
        if self._batches is None:  # on first use: most roles only write frames
            try:
                self._batches = BatchProducer({**self._config, "linger.ms": BATCH_LINGER_MS}, self._on_error)
            except KafkaException as error:
                raise config_error(error, self._settings, "the producer") from None
        where, done = -1 if partition is None else partition, 0
        while done < values.size:
            if self._failure is not None:
                raise self._failure
            done, code = self._batches.produce(topic, where, values, keys, done)
            if code == QUEUE_FULL:
                self._batches.poll(BATCH_FULL_WAIT_S)
            elif code:
                self._fail(KafkaError(code), topic, partition)
        self.produced_total += values.size
        self.produced_bytes += int(values.offsets[-1] - values.offsets[0])
        self.poll()

    def poll(self) -> None:
        """See `Outbox.poll`."""
        self._lifeline.look()
        self._producer.poll(0)
        if self._batches is not None:
            self._batches.poll(0)
        self._look_for_failure()
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """See `Outbox.flush`."""
        deadline = time.monotonic() + OUTAGE_S
        while (waiting := self._flush(0.5)) > 0 and self._failure is None:
            if time.monotonic() > deadline:
                brokers = self._settings.get("bootstrap.servers")
                raise UnavailableError(
                    f"Kafka at {brokers} acknowledged nothing for {OUTAGE_S:.0f} s, {waiting} messages wait; "
                    "check that the brokers run"
                )
        self._look_for_failure()
        if self._failure is not None:
            raise self._failure
        self._complaints.clear()

    def close(self) -> None:
        """Let go of what is not delivered within a few seconds: what must arrive is flushed before."""
        if self._failure is None:
            self._flush(CLOSE_WAIT_S)
        self._producer.purge()
        self._producer.flush(CLOSE_WAIT_S)
        if self._batches is not None:
            self._batches.close(CLOSE_WAIT_S)
            self._batches = None

    def _flush(self, timeout_s: float) -> int:
        self._lifeline.look()
        waiting = self._producer.flush(timeout_s)
        return waiting + (self._batches.flush(timeout_s) if self._batches is not None else 0)

    def _look_for_failure(self) -> None:
        failure = self._batches.failure if self._batches is not None else None
        if failure is not None:
            self._fail(failure, None, None)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() not in PURGED:
            self._fail(error, message.topic(), message.partition())

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fail(error, None, None)
        elif error.code() in REFUSED:
            self._failure = self._failure or translate(error, self._settings, "write")
        else:
            self._complaints.add(error)

    def _fail(self, error: KafkaError | None, topic: str | None, partition: int | None) -> None:
        # The first failure is the cause; the gapless guarantee fails everything behind it too.
        if self._failure is not None:
            return
        where = "" if topic is None else f" to {topic}" + ("" if partition is None else f"[{partition}]")
        reason = translate(error or RuntimeError("unknown"), self._settings, f"deliver a message{where}")
        self._failure = DeliveryError(f"{reason}; what was not confirmed is sent again after a restart")
        LOG.error("%s", self._failure)
