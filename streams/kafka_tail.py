"""Reading a topic's partitions outside any group, in bulk, each as far as its reader has room for.

Part of the Kafka door. Positions are the reader's to keep, beside what it has made of the records. What retention has
cut is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from confluent_kafka import TopicPartition

from streams.kafka_queues import FetchedRecords, PartitionQueue
from streams.kafka_reader import Subscriber, outside_groups
from streams.librdkafka import handle_of
from streams.records import Records


class Tailing(Protocol):
    """What reads a topic for somebody who keeps the positions; the tests have one in memory."""

    @property
    def partitions(self) -> int:
        """How many the topic has."""
        ...

    def begin(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Read on from these offsets, other partitions from the earliest record there is; gives where that is.

        So it is with a partition whose offset is not in the topic any more.
        """
        ...

    def take(self, partition: int, most: int) -> Records | None:
        """Give what was fetched of a partition, at most so many records, to be given back by `release`. Never waits."""
        ...

    def end(self, partition: int) -> int:
        """Give the offset behind a partition's last record as the last fetch has seen it; -1 if none has."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Tail:
    """A topic over Kafka.

    Args:
        settings: the [kafka] table.
        topic: its name.
        partitions: how many it has.
        ahead_kib: how much is fetched of each partition before it is wanted.

    Example:
        >>> tail = Tail({"bootstrap.servers": "127.0.0.1:9092"}, "flights.scores", 1)  # doctest: +SKIP
        >>> tail.begin({})  # doctest: +SKIP
        >>> tail.take(0, 1_000)  # doctest: +SKIP
    """

    def __init__(self, settings: Mapping[str, str], topic: str, partitions: int, ahead_kib: int = 1_024) -> None:
        self.partitions = partitions
        self._topic = topic
        self._client = Subscriber(
            settings, "reader", **outside_groups(settings), **{"queued.max.messages.kbytes": ahead_kib}
        )
        self._wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._queues: dict[int, PartitionQueue] = {}

    def begin(self, positions: Mapping[int, int]) -> dict[int, int]:
        """See `Tailing.begin`."""
        starts: dict[int, int] = {}
        for partition in range(self.partitions):
            low, high = self._client.watermarks(self._topic, partition)
            at = positions.get(partition, low)
            starts[partition] = at if low <= at <= high else low
        handle = handle_of(self._client.consumer)
        for partition in starts:
            self._queues[partition] = PartitionQueue(handle, self._topic, partition, self._wake_up)
        self._client.consumer.assign([TopicPartition(self._topic, *start) for start in starts.items()])
        return starts

    def take(self, partition: int, most: int) -> Records | None:
        """See `Tailing.take`. Raises as `Inbox.poll`."""
        own = self._client.first(0.0)  # callbacks run in here; records are in queues of their own
        troubles: list[Any] = [] if own is None else [own]
        records: FetchedRecords | None = self._queues[partition].take(most)
        if records is not None and records.has_troubles:
            troubles += records.troubles()
            records = records.without_troubles()
        has_records = records is not None and records.offsets.size > 0
        self._client.checked(troubles, has_records=has_records)
        return records if has_records else None

    def end(self, partition: int) -> int:
        """See `Tailing.end`."""
        found = self._client.consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return max(-1, int(found[1]))

    def close(self) -> None:
        """Let go of the connection."""
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()
        self._client.close()
        os.close(self._wake_up)
