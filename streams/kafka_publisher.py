"""Publishing single records that somebody waits for: each with its own acknowledgement.

Roles write gapless streams through `KafkaOutbox`, where one refused record ends the process. Here records come from
outside, one by one, and who sent one is told what became of it; so a record may expire, and the next one goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.errors import MillraceError, UnavailableError
from streams.kafka_errors import CLIENT_SETTINGS, Complaints, config_error, translate
from streams.kafka_lifeline import Lifeline

DELIVERY_S = 10.0  # then the record counts as not published
POLL_S = 0.1


class Acknowledged(NamedTuple):
    """Where a record lies now."""

    topic: str
    partition: int
    offset: int


Done = Callable[[Acknowledged | MillraceError], None]


class KafkaPublisher:
    """A producer with a thread of its own that tells of deliveries.

    Args:
        settings: the [kafka] table.

    Example:
        >>> publisher = KafkaPublisher({"bootstrap.servers": "127.0.0.1:9092"})  # doctest: +SKIP
        >>> publisher.publish("flights.departures", b"{}", b"N1", print)  # doctest: +SKIP
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._complaints = Complaints(settings, "publisher")
        own: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": int(DELIVERY_S * 1000),
            "linger.ms": 0,
            "queue.buffering.max.kbytes": 65_536,
            "partitioner": "murmur2_random",  # as Java producers place keys
            "error_cb": self._complain,
        }
        try:
            self._producer = Producer({**settings, **CLIENT_SETTINGS, **own})
        except (KafkaException, TypeError, ValueError) as error:
            raise config_error(error, settings, "the publisher") from None
        self._lifeline = Lifeline.of(self._producer, settings)
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="deliveries", daemon=True)
        self._thread.start()

    def publish(self, topic: str, value: bytes, key: bytes | None, done: Done) -> None:
        """Queue one record; `done` is called from another thread with where it lies, or why it does not.

        Raises:
            UnavailableError: too many records wait for the brokers already.
        """

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:
                done(Acknowledged(message.topic(), message.partition(), message.offset()))
            else:
                done(translate(error, self._settings, f"publish to {topic}"))

        try:
            self._producer.produce(topic, value, key, on_delivery=delivered)
        except BufferError:
            brokers = self._settings.get("bootstrap.servers")
            raise UnavailableError(f"too many records wait for Kafka at {brokers}; try again later") from None
        except KafkaException as error:
            raise translate(error, self._settings, f"publish to {topic}") from None

    def close(self) -> None:
        """Wait a little for what is on its way, and let go of the connection."""
        self._producer.flush(DELIVERY_S)
        self._is_closing.set()
        self._thread.join(2 * POLL_S)

    def _serve(self) -> None:
        while not self._is_closing.is_set():
            self._producer.poll(POLL_S)
            self._lifeline.look()

    def _complain(self, error: KafkaError) -> None:
        self._complaints.add(error)
