"""The door to Kafka: what a worker reads from (`Inbox`), writes to (`Outbox`), and their real forms.

No transactions and no automatic commits: rows carry their own numbers, the start offset of every assignment is given by
the worker, and a commit is only the witness of a snapshot. The door's other rooms are `kafka_reader`, `kafka_outbox`,
`kafka_topics` and `kafka_errors`; everything to be used elsewhere is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.kafka_errors import RebalancedError
from streams.kafka_outbox import KafkaOutbox
from streams.kafka_reader import BEGINNING, CALL_DEADLINE_S, END, Message, Partition, Reader, Subscriber, read_all
from streams.kafka_topics import Topics
from streams.records import Packed

__all__ = [
    "BEGINNING",
    "END",
    "Inbox",
    "KafkaInbox",
    "KafkaOutbox",
    "Message",
    "Outbox",
    "Partition",
    "Reader",
    "RebalancedError",
    "Topics",
    "read_all",
]

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

    def poll(self, max_messages: int, timeout_s: float) -> list[Message]:
        """Return what is there, at most `max_messages`, waiting up to `timeout_s` only for the first one.

        Raises:
            SnapshotError: the position is not (or no longer) in the topic.
            TopicError: the topic does not exist.
            UnavailableError: Kafka refuses us for good.
            Exception: whatever a callback raised.
        """
        ...

    def pause(self, partitions: list[Partition]) -> None:
        """Stop fetching these until `resume`; partitions that are not ours are ignored."""
        ...

    def resume(self, partitions: list[Partition]) -> None:
        """Fetch these again."""
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

    def close(self) -> None:
        """Leave the group at once. Calls nothing back: finish and commit before."""
        ...


class Outbox(Protocol):
    """What a worker writes to."""

    def produce(
        self,
        topic: str,
        partition: int | None,
        value: bytes | None,
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


class KafkaInbox:
    """A member of a consumer group that starts where it is told to and commits only what it is told to.

    Args:
        settings: the [kafka] table.
        group: the consumer group's name.
        group_protocol: `consumer` (Kafka >= 4.0; joins in 0.1 s) or `classic` (3 s).
        group_instance_id: a name that keeps the partitions over a clean restart of this worker. After a crash the
            `consumer` protocol refuses the name until the old session is over, which ends the process at once; it
            pays only with `classic`.

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
    ) -> None:
        own: dict[str, Any] = {
            "group.id": group,
            "group.protocol": group_protocol,
            "enable.partition.eof": False,
        }
        if group_protocol == "classic":
            own["partition.assignment.strategy"] = "cooperative-sticky"
        if group_instance_id is not None:
            own["group.instance.id"] = group_instance_id
        self._client = Subscriber(settings, group, **own)
        self._failure: Exception | None = None
        self._starts: dict[Partition, int] = {}
        self._revoked: set[Partition] = set()
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
                self._release(_names(partitions))

            return released

        self._client.consumer.subscribe(
            topics, on_assign=assigned, on_revoke=revoked(on_revoke), on_lost=revoked(on_lost)
        )

    def poll(self, max_messages: int, timeout_s: float) -> list[Message]:
        """See `Inbox.poll`."""
        first = self._client.first(timeout_s)
        self._revoked.clear()
        messages = [] if first is None else [first, *self._client.more(max_messages - 1)]
        if self._failure is not None:
            raise self._failure
        if self._revoked:
            messages = self._without_revoked(messages)
        return self._client.checked(messages)

    def pause(self, partitions: list[Partition]) -> None:
        """See `Inbox.pause`."""
        self._client.consumer.pause([TopicPartition(*where) for where in partitions if where in self._starts])

    def resume(self, partitions: list[Partition]) -> None:
        """See `Inbox.resume`."""
        self._client.consumer.resume([TopicPartition(*where) for where in partitions if where in self._starts])

    def commit(self, offsets: dict[Partition, tuple[int, str]]) -> None:
        """See `Inbox.commit`."""
        if not offsets:
            return  # the client would take nothing to mean everything it has delivered
        wanted = [TopicPartition(*where, offset, metadata) for where, (offset, metadata) in offsets.items()]

        def ask() -> None:
            done = self._client.consumer.commit(offsets=wanted, asynchronous=False)
            _raise_first(done or [])

        self._client.ask(ask, f"commit {', '.join(f'{topic}[{partition}]' for topic, partition in offsets)}")

    def committed(self, partitions: list[Partition]) -> dict[Partition, tuple[int, str]]:
        """See `Inbox.committed`."""

        def ask() -> list[TopicPartition]:
            wanted = [TopicPartition(*where) for where in partitions]
            found = self._client.consumer.committed(wanted, timeout=CALL_DEADLINE_S)
            _raise_first(found)
            return list(found)

        found = self._client.ask(ask, "read the group's commits") if partitions else []
        return {(one.topic, one.partition): (one.offset, one.metadata or "") for one in found if one.offset >= 0}

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """See `Inbox.watermarks`."""
        return self._client.watermarks(topic, partition)

    def close(self) -> None:
        """See `Inbox.close`."""
        self._is_closing = True
        self._client.close()

    def _run(self, callback: Callable[[], None]) -> None:
        # The client prints what a callback raises and carries on; `poll` must raise it instead.
        if self._failure is not None or self._is_closing:
            return
        try:
            callback()
        except Exception as error:  # noqa: BLE001 -- raised again by poll
            self._failure = error

    def _assign(self, partitions: list[Partition]) -> None:
        # Offsets go in with the assignment: a seek before it is an error, one after it races with the first fetch.
        if partitions:
            wanted = [TopicPartition(*where, self._starts[where]) for where in partitions]
            self._client.consumer.incremental_assign(wanted)

    def _release(self, partitions: list[Partition]) -> None:
        for where in partitions:
            self._starts.pop(where, None)
            self._revoked.add(where)
        if partitions:
            self._client.consumer.incremental_unassign([TopicPartition(*where) for where in partitions])

    def _without_revoked(self, messages: list[Any]) -> list[Any]:
        # A rebalance while messages were being gathered: those of revoked partitions are no longer ours to work on.
        # One that came back in the same moment starts over, for what was gathered may lie before its new start.
        again = [where for where in self._revoked if where in self._starts]
        if again:
            self._client.consumer.incremental_unassign([TopicPartition(*where) for where in again])
            self._assign(again)
        return [message for message in messages if (message.topic(), message.partition()) not in self._revoked]


def _names(partitions: list[TopicPartition]) -> list[Partition]:
    return [(one.topic, one.partition) for one in partitions]


def _raise_first(partitions: list[TopicPartition]) -> None:
    for one in partitions:
        if one.error is not None:
            raise KafkaException(one.error)
