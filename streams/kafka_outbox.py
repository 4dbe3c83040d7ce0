"""Writing to Kafka: in order, without gaps, never expiring. Part of the Kafka door."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException

from streams.errors import DeliveryError, MillraceError, UnavailableError
from streams.kafka_bulk import QUEUE_FULL, BulkProducer, check_settings
from streams.kafka_errors import (
    CLIENT_SETTINGS,
    LOG,
    OUTAGE_S,
    REFUSED,
    Complaints,
    config_error,
    translate,
)
from streams.kafka_single import SingleProducer
from streams.memory import HeapBytes
from streams.records import Headers, Packed, Payload

CLOSE_WAIT_S = 5.0
"""How long closing waits for what was not flushed: a worker that failed must not hang."""
FULL_WAIT_S = 0.002
"""How long a full queue is left alone where nothing tells of room, for only failures are reported."""
BATCH_FULL_WAIT_S = 0.1
"""How long `produce_many` does so at most: every delivery is reported to it."""
BATCH_SETTINGS = {"linger.ms": 0.2}
"""So long records of `produce_many` wait for those behind them, or the first would go alone; see `linger_ms`."""
FRAME_SETTINGS = {"linger.ms": 0, "delivery.report.only.error": True}  # a frame is a batch already
SERVE_EVERY = 1_000
"""Reports and errors are served once in so many produced messages."""


class Outbox(Protocol):
    """What a worker writes to. What one and the same method queued of a partition stays in order."""

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Queue one record; without a partition the key decides. Blocks while the queue is full (back-pressure).

        Raises:
            DeliveryError: this or an earlier record was refused for good.
        """
        ...

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        """Queue many records of one partition, in order; raises as `produce`."""
        ...

    def give(self, topic: str, partition: int, value: HeapBytes, headers: Headers) -> None:
        """Queue one large record of a partition, whose memory is the outbox's then; raises as `produce`."""
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
    """Idempotent, gapless producers that never let a message expire: what cannot be sent yet waits, bounded.

    There is one for each of `produce`, `produce_many` and `give`, made when it is used first: hardly anyone needs two.
    Its first record waits for the producer's id (KIP-98), up to a second; `open` asks for it before there is a record.

    Args:
        settings: the [kafka] table.
        linger_ms: how long a message of `produce` may wait for company (the others have their own); the client makes a
            whole millisecond of any fraction. 0 costs a request per message where they come one by one.
        compression: `none` or what librdkafka names, as `lz4`.
        batch_bytes: largest batch of one partition.

    Attributes:
        produced_total, produced_bytes: messages and value bytes taken so far.

    Raises:
        PipelineError: a setting is none of librdkafka's.
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
        self._singles: SingleProducer | None = None
        self._bulk: dict[bool, BulkProducer] = {}  # by whether it is for frames
        with self._refusing():
            check_settings(self._config)

    def open(self, *, is_for_frames: bool) -> None:
        """Make the producer of `give`, or that of `produce_many`, before it is needed."""
        self._bulk_producer(is_for_frames=is_for_frames)

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: Payload | None,
        key: bytes | None = None,
        headers: Headers | None = None,
    ) -> None:
        """See `Outbox.produce`."""
        if self._singles is None:
            with self._refusing():
                self._singles = SingleProducer(self._config, self._on_error)
        self._raise_failure()
        where = -1 if partition is None else partition
        while code := self._singles.produce(topic, where, value, key, headers):
            self._not_queued(code, self._singles, FULL_WAIT_S, topic, partition)
        self.produced_total += 1
        self.produced_bytes += 0 if value is None else len(value)
        if self.produced_total % SERVE_EVERY == 0:
            self.poll()

    def produce_many(self, topic: str, partition: int | None, values: Packed, keys: Packed | None = None) -> None:
        """See `Outbox.produce_many`."""
        batches = self._bulk_producer(is_for_frames=False)
        self._raise_failure()
        where, done = -1 if partition is None else partition, 0
        while done < values.size:
            done, code = batches.produce(topic, where, values, keys, done)
            if code:
                self._not_queued(code, batches, BATCH_FULL_WAIT_S, topic, partition)
        self.produced_total += values.size
        self.produced_bytes += int(values.offsets[-1] - values.offsets[0])
        self.poll()

    def give(self, topic: str, partition: int, value: HeapBytes, headers: Headers) -> None:
        """See `Outbox.give`."""
        frames = self._bulk_producer(is_for_frames=True)
        self._raise_failure()
        while code := frames.give(topic, partition, value, headers):
            self._not_queued(code, frames, FULL_WAIT_S, topic, partition)
        self.produced_total += 1
        self.produced_bytes += value.size

    def poll(self) -> None:
        """See `Outbox.poll`."""
        for producer in self._producers:
            producer.poll(0)
        self._look_for_failure()

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
        self._complaints.clear()

    def close(self) -> None:
        """Let go of what is not delivered within a few seconds: what must arrive is flushed before."""
        if self._failure is None:
            self._flush(CLOSE_WAIT_S)
        for producer in self._producers:
            producer.close(CLOSE_WAIT_S)
        self._singles = None
        self._bulk.clear()

    def _bulk_producer(self, *, is_for_frames: bool) -> BulkProducer:
        if is_for_frames not in self._bulk:
            own = FRAME_SETTINGS if is_for_frames else BATCH_SETTINGS
            with self._refusing():
                self._bulk[is_for_frames] = BulkProducer({**self._config, **own}, self._on_error)
        return self._bulk[is_for_frames]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (KafkaException, TypeError, ValueError) as error:
            raise config_error(error, self._settings, "the producer") from None

    @property
    def _producers(self) -> list[SingleProducer | BulkProducer]:
        return [*([self._singles] if self._singles is not None else []), *self._bulk.values()]

    def _flush(self, timeout_s: float) -> int:
        return sum(producer.flush(timeout_s) for producer in self._producers)

    def _not_queued(
        self, code: int, by: SingleProducer | BulkProducer, wait_s: float, topic: str, partition: int | None
    ) -> None:
        """Wait for room where there was none; else the record is refused for good."""
        if code == QUEUE_FULL:
            by.poll(wait_s)
        else:
            self._fail(KafkaError(code), topic, partition)
        self._look_for_failure()

    def _look_for_failure(self) -> None:
        for producer in self._producers:
            if producer.failure is not None:
                self._fail(*producer.failure)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fail(error, None, None)
        elif error.code() in REFUSED:
            self._failure = self._failure or translate(error, self._settings, "write")
        else:
            self._complaints.add(error)

    def _fail(self, error: KafkaError, topic: str | None, partition: int | None) -> None:
        # The first failure is the cause; the gapless guarantee fails everything behind it too.
        if self._failure is not None:
            return
        where = "" if topic is None else f" to {topic}" + ("" if partition is None else f"[{partition}]")
        reason = translate(error, self._settings, f"deliver a message{where}")
        self._failure = DeliveryError(f"{reason}; what was not confirmed is sent again after a restart")
        LOG.error("%s", self._failure)
