"""Reading from Kafka: the rules every consumer of ours follows, and a reader outside any group.

Part of the Kafka door. Passing trouble (broker away, coordinator moving) is logged once and waited out; a position that
is not in the topic, a topic that is not there and a refusal are errors of the tree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from streams.errors import CutError, TopicError
from streams.kafka_errors import (
    AT_END,
    CLIENT_SETTINGS,
    MISSING_TOPIC,
    OUT_OF_RANGE,
    REBALANCED,
    REFUSED,
    TRANSIENT,
    WAITED_IN_VAIN,
    Complaints,
    Patience,
    RebalancedError,
    config_error,
    error_of,
    translate,
)
from streams.kafka_lifeline import Lifeline

Partition = tuple[str, int]
"""A topic's name and a partition's number."""
R = TypeVar("R")

BEGINNING = int(OFFSET_BEGINNING)
"""Start offset meaning the earliest record there is."""
END = int(OFFSET_END)
"""Start offset meaning only records that are still to come."""

ANSWER_S = 10.0
"""How long one answer is waited for before the question is repeated."""
MISSING_TOPIC_S = 20.0
"""How long a question about a topic is repeated that brokers who are there do not know."""
RETRY_WAIT_S = 0.05
MISSING_TOPIC_GRACE_S = 10.0
"""A topic just created may be unknown to another broker for a moment."""

CONSUMER_SETTINGS: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # `earliest` and `latest` silently double or skip
    "fetch.queue.backoff.ms": 5,  # default 1000 stalls a fast reader
    "fetch.min.bytes": 1,  # the broker answers at the first record, but to roles that let it gather some
    "fetch.wait.max.ms": 500,  # with nothing to read one request stays open: an idle consumer costs nothing
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 4_096,  # per partition; a fetch may overshoot it by its own size
    "allow.auto.create.topics": False,
}


class Message(Protocol):
    """One record as it was read. The client's own object, so that reading a field costs no copy."""

    # ruff: noqa: D102 -- the names say it all

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]:
        """Return (type, milliseconds)."""
        ...

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes]] | None: ...


def outside_groups(settings: Mapping[str, str]) -> dict[str, Any]:
    """Give what a consumer is told that joins no group: one is demanded, and never used, for nothing is committed."""
    return {"group.id": settings.get("group.id", "millrace.reader"), "group.protocol": "classic"}


class Reader:
    """Reads given partitions from given offsets, outside any group: for tailing and for looking things up.

    Example:
        >>> reader = Reader({"bootstrap.servers": "127.0.0.1:9092"})  # doctest: +SKIP
        >>> reader.assign("flights.control", {0: BEGINNING})  # doctest: +SKIP
        >>> reader.poll(100, timeout_s=1.0)  # doctest: +SKIP
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._client = Subscriber(settings, "reader", **outside_groups(settings), **{"enable.partition.eof": True})

    def assign(self, topic: str, offsets: dict[int, int]) -> None:
        """Read these partitions of `topic` from these offsets on; replaces what was read before."""
        self._client.ends.clear()
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        self._client.consumer.assign(wanted)

    def poll(self, max_messages: int, timeout_s: float) -> list[Message]:
        """Return what is there, waiting up to `timeout_s` only for the first one. Raises as `Inbox.poll`."""
        first = self._client.first(timeout_s)
        return self._client.checked([] if first is None else [first, *self._client.more(max_messages - 1)])

    def reached(self, topic: str, partition: int) -> int:
        """Return the end (offset of the next record) at which the reader last stood, -1 if it never stood at one.

        The last offsets of a topic may hold no record (compaction, transactions), so a message's offset cannot tell.
        """
        return self._client.ends.get((topic, partition), -1)

    def end_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        """Ask the broker for the offset the next record of each partition will get."""
        return {partition: self._client.watermarks(topic, partition)[1] for partition in partitions}

    def start_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        """Ask the broker for the first offset each partition still holds."""
        return {partition: self._client.watermarks(topic, partition)[0] for partition in partitions}

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def read_all(settings: Mapping[str, str], topic: str, partition: int, start: int = BEGINNING) -> Iterator[Message]:
    """Yield the records of a partition from `start` to the end it has now, however few offsets hold one."""
    reader = Reader(settings)
    try:
        end = reader.end_offsets(topic, [partition])[partition]
        if start >= end or end == 0:
            return
        reader.assign(topic, {partition: start})
        while reader.reached(topic, partition) < end:
            for message in reader.poll(10_000, timeout_s=1.0):
                if message.offset() >= end:
                    return
                yield message
                if message.offset() == end - 1:  # to be told of the end takes a whole `fetch.wait.max.ms`
                    return
    finally:
        reader.close()


class Subscriber:
    """A consumer with Millrace's reading rules: what the inbox and the reader share.

    Attributes:
        consumer: librdkafka's own; another one, which never reads, is kept for questions.
        lifeline: the consumer's.
        ends: where a partition's end was last met, if ends are asked for.
    """

    def __init__(self, settings: Mapping[str, str], who: str, **own: Any) -> None:
        self.settings = settings
        self.complaints = Complaints(settings, who)
        self._patience = Patience(settings)
        self.ends: dict[Partition, int] = {}
        self._refused: KafkaError | None = None
        self._missing: tuple[str, float] | None = None
        config = {**settings, **CLIENT_SETTINGS, **CONSUMER_SETTINGS, **own, "error_cb": self._on_error}
        # A group is demanded and never joined; its timeouts must fit each other whatever the user has set.
        asking = {"group.id": own["group.id"], "max.poll.interval.ms": 300_000, "session.timeout.ms": 45_000}
        try:
            self.consumer: Consumer = Consumer(config)
            self._asker: Consumer = Consumer({**settings, **CLIENT_SETTINGS, **asking, "error_cb": self._on_error})
        except (KafkaException, TypeError, ValueError) as error:
            raise config_error(error, settings, who) from None
        self.lifeline = Lifeline.of(self.consumer, settings)
        self._asker_lifeline = Lifeline.of(self._asker, settings)

    def close(self) -> None:
        """Leave the group, if any, and let go of both connections."""
        self.consumer.close()
        self._asker.close()

    def first(self, timeout_s: float) -> Any | None:
        """Wait for one message or event, serving callbacks meanwhile."""
        self.lifeline.look()
        try:
            return self.consumer.poll(timeout_s)
        except KafkaException as error:
            raise translate(error, self.settings, "read") from None

    def more(self, max_messages: int) -> list[Any]:
        """Take what else is already here."""
        try:
            return list(self.consumer.consume(max_messages, 0)) if max_messages > 0 else []
        except KafkaException as error:
            raise translate(error, self.settings, "read") from None

    def checked(self, messages: list[Any], *, has_records: bool = False) -> list[Message]:
        """Return the records among `messages`; errors among them are survived or raised.

        Args:
            messages: records and errors as they came.
            has_records: records have come another way: the connection is fine.
        """
        if self._refused is not None:
            raise translate(self._refused, self.settings, "connect")
        records = [message for message in messages if message.error() is None]
        if len(records) != len(messages):
            for message in messages:
                if message.error() is not None:
                    self._complain(message)
        if records or has_records:
            self._patience.answered()
            self.complaints.clear()
        elif self._missing is not None:
            self._look_for_missing()
        return cast("list[Message]", records)

    def ask(self, question: Callable[[], R], doing: str, passing: frozenset[int] = TRANSIENT) -> R:
        """Ask the broker, again and again while the trouble is a passing one and patience lasts."""
        deadline, missing_until = self._patience.deadline(), math.inf
        while True:
            self.lifeline.look()
            self._asker_lifeline.look()
            try:
                answer = question()
            except KafkaException as exception:
                error = error_of(exception)
                code = error.code() if error else None
                if code in REBALANCED and not (error and error.fatal()):
                    raise RebalancedError(f"cannot {doing}: the group has given the partitions away") from None
                now = time.monotonic()
                missing_until = min(missing_until, now + MISSING_TOPIC_S) if code in MISSING_TOPIC else math.inf
                if code not in passing or now > min(deadline, missing_until):
                    raise translate(exception, self.settings, doing) from None
                self.complaints.add(cast("KafkaError", error))
                time.sleep(RETRY_WAIT_S)
            else:
                self._patience.answered()
                self.complaints.clear()
                return answer

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (first offset there is, offset of the next record), as the broker has them now."""
        where = TopicPartition(topic, partition)

        def question() -> tuple[int, int]:
            try:
                # Asked over a connection of its own: on the consumer's, the answer waits behind its open fetch request.
                found = self._asker.get_watermark_offsets(where, timeout=ANSWER_S, cached=False)
            except KafkaException as exception:
                error = error_of(exception)
                if error is not None and error.code() in MISSING_TOPIC:
                    # A broker that is just back may not know its partitions, and the client keeps that for minutes.
                    self._asker.list_topics(topic, timeout=ANSWER_S)
                raise
            if found is None:  # so the client says that it has waited in vain
                raise KafkaException(KafkaError(WAITED_IN_VAIN))
            return found

        low, high = self.ask(question, f"find the ends of {topic}[{partition}]", TRANSIENT | MISSING_TOPIC)
        return int(low), int(high)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in REFUSED:
            self._refused = error
        else:
            self.complaints.add(error)

    def _complain(self, message: Any) -> None:
        error: KafkaError = message.error()
        code = error.code()
        if code in AT_END:
            self.ends[message.topic(), message.partition()] = message.offset()
        elif code in OUT_OF_RANGE:
            raise self._out_of_range(message)
        elif code in MISSING_TOPIC:
            self._missing = self._missing or (message.topic(), time.monotonic() + MISSING_TOPIC_GRACE_S)
            self.complaints.add(error)
        elif not error.fatal() and (code in TRANSIENT or error.retriable()):
            self.complaints.add(error)
        else:
            raise translate(error, self.settings, f"read {message.topic() or 'as a member of the group'}")

    def _out_of_range(self, message: Any) -> CutError:
        topic, partition = message.topic(), message.partition()
        low, high = self.watermarks(topic, partition)
        offset = message.offset()
        wanted = f"offset {offset}" if offset is not None and offset >= 0 else "the position to read from"
        return CutError(
            f"{topic}[{partition}]: {wanted} is not in the topic, which holds {low} to {high}: it was cut by "
            "retention, shortened or made anew; a restart goes on where that is possible, or says why it is not"
        )

    def _look_for_missing(self) -> None:
        topic, deadline = cast("tuple[str, float]", self._missing)
        if time.monotonic() < deadline:
            return
        found = self.ask(lambda: self.consumer.list_topics(topic, timeout=ANSWER_S), f"look for topic {topic}")
        if found.topics[topic].error is not None:
            raise TopicError(f"topic {topic} does not exist (any more); create it, or start with `millrace up`")
        self._missing = None
