"""Reading as a member of a consumer group: what a worker reads from (`Inbox`), and its real form.

Part of the Kafka door. Each partition has a queue of its own, from which a worker takes what it has room for: what is
fetched of a partition that has to wait for the others stays where it is.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, Protocol
from weakref import WeakSet

import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.errors import UnavailableError
from streams.kafka_errors import translate
from streams.kafka_queues import ConsumerEvents, FetchedRecords, PartitionQueue
from streams.kafka_reader import ANSWER_S, Partition, Subscriber, read_all
from streams.librdkafka import handle_of
from streams.records import Records

GATHERED_BYTES = 200_000
"""A fetch that gathers is answered early when there is so much: who is behind does not wait."""

MOST_FETCHED = ("fetch.max.bytes", "max.partition.fetch.bytes", "fetch.message.max.bytes")

OnAssign = Callable[[list[Partition]], dict[Partition, int]]
OnRevoke = Callable[[list[Partition]], None]


class Inbox(Protocol):
    """What a worker reads from as a member of a group."""

    def subscribe(self, topics: list[str], on_assign: OnAssign, on_revoke: OnRevoke, on_lost: OnRevoke) -> None:
        """Join the group. The three callbacks run inside `poll`, each with the partitions concerned (possibly none).

        Args:
            topics: what to read.
            on_assign: returns the start offset of every partition it was given (`BEGINNING` and `END` are allowed).
            on_revoke: the partitions are still ours: flush, snapshot and commit here.
            on_lost: the partitions are already someone else's: commit nothing.
        """
        ...

    def poll(self, wanted: Mapping[Partition, int], timeout_s: float) -> list[Records]:
        """Return what is there, waiting up to `timeout_s` only for the first record; callbacks run in here.

        Args:
            wanted: how many records may come of each partition; of others nothing is taken, and what is fetched ahead
                of them stays where it is.
            timeout_s: how long to wait.

        Returns:
            For each partition with records one batch, which is to be given back by `release`.

        Raises:
            SnapshotError: the position is not (or no longer) in the topic.
            TopicError: the topic does not exist.
            UnavailableError: Kafka refuses us for good.
            Exception: whatever a callback raised.
        """
        ...

    def commit(self, offsets: dict[Partition, tuple[int, str]]) -> None:
        """Commit (offset, metadata) for each partition and wait for the answer.

        Raises:
            RebalancedError: the group has moved on without us; go on polling.
            UnavailableError: no answer in time, or refused.
        """
        ...

    def committed(self, partitions: list[Partition]) -> dict[Partition, tuple[int, str]]:
        """Return (offset, metadata) of those partitions that have a commit."""
        ...

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """Ask the broker for the first offset there is and the one the next record will get."""
        ...

    def known_end(self, topic: str, partition: int) -> int:
        """Give the end of one of our partitions as the last fetch has seen it, without asking; -1 if none has."""
        ...

    def is_void(self, topic: str, partition: int, start: int, end: int) -> bool:
        """Read whether offsets from `start` up to `end` hold no record: ends of transactions take offsets too."""
        ...

    def close(self) -> None:
        """Leave the group at once. Calls nothing back: finish and commit before."""
        ...


class KafkaInbox:
    """A member of a consumer group that starts where it is told to and commits only what it is told to.

    Args:
        settings: the [kafka] table.
        group: the consumer group's name.
        group_protocol: `consumer` (Kafka >= 4.0; joins in 0.1 s) or `classic` (3 s).
        group_instance_id: a name that keeps the partitions over a clean restart of this worker. After a crash the
            `consumer` protocol refuses the name until the old session is over, which ends the process at once; it
            pays only with `classic`.
        ahead_kib: how much is fetched of each partition before it is wanted; a fetch may overshoot it by its own size.
        gather_ms: how long the broker lets records gather before it answers a fetch; 0 for an answer at the first one.

    Example:
        >>> inbox = KafkaInbox({"bootstrap.servers": "127.0.0.1:9092"}, "flights.features")  # doctest: +SKIP
        >>> inbox.subscribe(["flights.log"], lambda new: dict.fromkeys(new, BEGINNING), print, print)  # doctest: +SKIP
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        group: str,
        *,
        group_protocol: Literal["consumer", "classic"] = "consumer",
        group_instance_id: str | None = None,
        ahead_kib: int = 1_024,
        gather_ms: int = 0,
    ) -> None:
        own: dict[str, Any] = {
            "queued.max.messages.kbytes": ahead_kib,
            "group.id": group,
            "group.protocol": group_protocol,
            "enable.partition.eof": False,
        }
        if gather_ms:
            # What is no number is refused below.
            most = [int(settings[name]) for name in MOST_FETCHED if settings.get(name, "").isdigit()]
            own |= {"fetch.wait.max.ms": gather_ms, "fetch.min.bytes": min([GATHERED_BYTES, *most])}
        if group_protocol == "classic":
            own["partition.assignment.strategy"] = "cooperative-sticky"
        if group_instance_id is not None:
            own["group.instance.id"] = group_instance_id
        self._client = Subscriber(settings, group, **own)
        self._handle = handle_of(self._client.consumer)
        self._wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting = select.poll()
        self._waiting.register(self._wake_up, select.POLLIN)
        self._events = ConsumerEvents(self._handle, self._wake_up)
        # Loads kernels: the first record does not wait for them.
        FetchedRecords("", 0, np.empty(0, np.int64), WeakSet()).release()
        self._queues: dict[Partition, PartitionQueue] = {}
        self._starts: dict[Partition, int] = {}
        self._failure: Exception | None = None
        self._is_closing = False

    def subscribe(self, topics: list[str], on_assign: OnAssign, on_revoke: OnRevoke, on_lost: OnRevoke) -> None:
        """See `Inbox.subscribe`."""

        def assigned(_: Consumer, partitions: list[TopicPartition]) -> None:
            def start() -> None:
                starts = on_assign(_names(partitions))
                self._starts.update({where: starts[where] for where in _names(partitions)})
                self._assign(_names(partitions))

            self._run(start)

        def revoked(callback: OnRevoke) -> Callable[[Consumer, list[TopicPartition]], None]:
            def released(_: Consumer, partitions: list[TopicPartition]) -> None:
                self._run(lambda: callback(_names(partitions)))
                self._run(lambda: self._release(_names(partitions)))

            return released

        self._client.consumer.subscribe(
            topics, on_assign=assigned, on_revoke=revoked(on_revoke), on_lost=revoked(on_lost)
        )

    def poll(self, wanted: Mapping[Partition, int], timeout_s: float) -> list[Records]:
        """See `Inbox.poll`."""
        found = self._take(wanted)
        if not found and timeout_s > 0:
            self._wait(timeout_s)
            found = self._take(wanted)
        return found

    def _take(self, wanted: Mapping[Partition, int]) -> list[Records]:
        own = self._client.first(0.0)  # callbacks run in here; records are in queues of their own
        if self._failure is not None:
            raise self._failure
        if own is not None and own.error() is None:  # it would be lost: nothing may be read past a partition's queue
            raise UnavailableError(f"{own.topic()}[{own.partition()}]: a record came past its partition's queue")
        troubles: list[Any] = [] if own is None else [own]
        found: list[Records] = []
        for where, most in wanted.items():
            records = self._queues[where].take(most) if where in self._queues else None
            if records is not None and records.has_troubles:
                troubles += records.troubles()
                records = records.without_troubles()
            if records is not None and records.offsets.size:
                found.append(records)
        self._client.checked(troubles, has_records=bool(found))
        return found

    def _wait(self, timeout_s: float) -> None:
        self._waiting.poll(timeout_s * 1000)
        with suppress(BlockingIOError):
            os.read(self._wake_up, 8)

    def commit(self, offsets: dict[Partition, tuple[int, str]]) -> None:
        """See `Inbox.commit`."""
        if not offsets:
            return  # the client would take nothing to mean everything it has delivered
        wanted = [TopicPartition(*where, offset, metadata) for where, (offset, metadata) in offsets.items()]

        def ask() -> None:
            done = self._client.consumer.commit(offsets=wanted, asynchronous=False)
            _raise_first(done or [])

        with self._client.lifeline.held():  # a commit without a coordinator returns after a minute
            self._client.ask(ask, f"commit {', '.join(f'{topic}[{partition}]' for topic, partition in offsets)}")

    def committed(self, partitions: list[Partition]) -> dict[Partition, tuple[int, str]]:
        """See `Inbox.committed`."""

        def ask() -> list[TopicPartition]:
            wanted = [TopicPartition(*where) for where in partitions]
            found = self._client.consumer.committed(wanted, timeout=ANSWER_S)
            _raise_first(found)
            return list(found)

        found = self._client.ask(ask, "read the group's commits") if partitions else []
        return {(one.topic, one.partition): (one.offset, one.metadata or "") for one in found if one.offset >= 0}

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """See `Inbox.watermarks`."""
        return self._client.watermarks(topic, partition)

    def known_end(self, topic: str, partition: int) -> int:
        """See `Inbox.known_end`."""
        found = self._client.consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return max(-1, int(found[1]))

    def is_void(self, topic: str, partition: int, start: int, end: int) -> bool:
        """See `Inbox.is_void`."""
        found = next(read_all(self._client.settings, topic, partition, start), None)
        return found is None or found.offset() >= end

    def close(self) -> None:
        """See `Inbox.close`."""
        self._is_closing = True
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()
        self._events.close()
        self._client.close()
        os.close(self._wake_up)

    def _run(self, callback: Callable[[], None]) -> None:
        # The client prints what a callback raises and carries on; `poll` must raise it instead.
        if self._failure is not None or self._is_closing:
            return
        try:
            callback()
        except KafkaException as error:
            self._failure = translate(error, self._client.settings, "take partitions")
        except Exception as error:  # noqa: BLE001 -- raised again by poll
            self._failure = error

    def _assign(self, partitions: list[Partition]) -> None:
        # Offsets go in with the assignment: a seek before it is an error, one after it races with the first fetch.
        for where in partitions:
            self._queues[where] = PartitionQueue(self._handle, *where, self._wake_up)
        if partitions:
            wanted = [TopicPartition(*where, self._starts[where]) for where in partitions]
            self._client.consumer.incremental_assign(wanted)

    def _release(self, partitions: list[Partition]) -> None:
        if partitions:
            self._client.consumer.incremental_unassign([TopicPartition(*where) for where in partitions])
        for where in partitions:
            self._starts.pop(where, None)
            if where in self._queues:
                self._queues.pop(where).close()


def _names(partitions: list[TopicPartition]) -> list[Partition]:
    return [(one.topic, one.partition) for one in partitions]


def _raise_first(partitions: list[TopicPartition]) -> None:
    for one in partitions:
        if one.error is not None:
            raise KafkaException(one.error)
