"""Writing record by record, by the Python client: with keys, which decide about partitions, or headers.

Part of the Kafka door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer

from streams.kafka_bulk import QUEUE_FULL
from streams.kafka_errors import PURGED
from streams.kafka_lifeline import Lifeline
from streams.records import Headers, Payload


class SingleProducer:
    """A producer of single records.

    Args:
        settings: librdkafka's.
        on_error: gets what concerns the whole producer; called inside `poll` and `flush`.

    Raises:
        KafkaException, TypeError, ValueError: the settings are not right.
    """

    def __init__(self, settings: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> None:
        callbacks = {"delivery.report.only.error": True, "on_delivery": self._on_delivery, "error_cb": on_error}
        self.failure: tuple[KafkaError, str, int | None] | None = None
        """Why the first record that was refused for good was, and its topic and partition, if it has got one."""
        self._producer = Producer({**settings, **callbacks})
        self._lifeline = Lifeline.of(self._producer, settings)

    def produce(
        self, topic: str, partition: int, value: Payload | None, key: bytes | None, headers: Headers | None
    ) -> int:
        """Queue one record; partition -1 lets the key decide.

        Returns:
            Why it was not queued: an error code, 0 if it was.
        """
        # The client's stubs demand a list type of its own, and do not know that it takes numpy's arrays.
        own_headers, payload = cast("Any", headers or []), cast("Any", value)
        try:
            self._producer.produce(topic, payload, key, partition, headers=own_headers)
        except BufferError:
            return QUEUE_FULL
        except KafkaException as error:
            return int(error.args[0].code())
        return 0

    def poll(self, timeout_s: float) -> None:
        """Serve delivery reports and errors."""
        self._lifeline.look()
        self._producer.poll(timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is delivered or refused; gives how many records still wait at the end of the time."""
        self._lifeline.look()
        return int(self._producer.flush(timeout_s))

    def close(self, timeout_s: float) -> None:
        """Let go of everything, what is not delivered too."""
        self._producer.purge()
        self._producer.flush(timeout_s)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() not in PURGED and self.failure is None:
            partition = message.partition()
            self.failure = error, message.topic(), partition if partition is not None and partition >= 0 else None
