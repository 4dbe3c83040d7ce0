"""Topics as things to make, check and look up. Part of the Kafka door.

A topic that exists is never altered: what does not fit is an error in one line, and the user decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package's own types do not export them
    AdminClient,
    ConfigResource,
    ConsumerGroupDescription,
    NewPartitions,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from streams.errors import TopicError
from streams.kafka_errors import CLIENT_SETTINGS, TRANSIENT, Complaints, Patience, config_error, error_of, translate
from streams.kafka_lifeline import Lifeline
from streams.topic_specs import TopicSpec

R = TypeVar("R")

REQUEST_TIMEOUT_S = 10.0
VISIBLE_S = 20.0
"""How long a change may take to show at all brokers."""
RETRY_WAIT_S = 0.2
VISIBLE_CHECK_S = 0.02
MIN_MESSAGE_BYTES = 1_048_576
"""A frame is at most 512 KiB; an inner topic must take twice that, so that no frame is ever refused for its size."""
MESSAGE_BYTES = 1_048_588
"""Kafka's own default, written down so that a broker-wide lower one does not apply."""
FOREVER_MS = -1


class Topics:
    """The topics of one cluster.

    Args:
        settings: the [kafka] table.

    Example:
        >>> topics = Topics({"bootstrap.servers": "127.0.0.1:9092"})  # doctest: +SKIP
        >>> topics.partitions("flights.log")  # doctest: +SKIP
        4
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._complaints = Complaints(settings, "topics")
        self._patience = Patience(settings)
        try:
            # The client must outlive its futures, hence a member.
            config: dict[str, Any] = {**settings, **CLIENT_SETTINGS, "error_cb": self._complaints.add}
            self._admin = AdminClient(config)
        except (KafkaException, TypeError, ValueError) as error:
            raise config_error(error, settings, "the topic administration") from None
        self._lifeline = Lifeline.of(self._admin, settings)

    def uuid(self, topic: str) -> str | None:
        """Return the topic's UUID, None if there is no such topic. A topic made anew has another one."""
        found = self._describe([topic])[topic]
        return None if found is None else str(found.topic_id)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions.

        Raises:
            TopicError: there is no such topic.
        """
        found = self._describe([topic])[topic]
        if found is None:
            raise TopicError(f"topic {topic} does not exist; create it, or start with `millrace up`")
        return len(found.partitions)

    def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create the absent topics, check the present ones, and return the names of those created.

        Users' topics may have any partitions and any settings. Safe to call from several processes at once.

        Raises:
            TopicError: one line for each thing that does not fit.
        """
        found = self._describe([spec.name for spec in specs])
        absent = [spec for spec in specs if found[spec.name] is None]
        created = self._create(absent)
        present = [spec for spec in specs if spec.name not in created]
        found |= self._wait([spec.name for spec in absent], are_there=True)
        mistakes = self._mistakes([spec for spec in present if not spec.is_user_topic], found)
        if mistakes:
            raise TopicError("\n".join(mistakes))
        return created

    def delete(self, names: Sequence[str]) -> None:
        """Delete these topics with all their records; those that do not exist are skipped."""

        def request(name: str) -> Future[None]:
            return self._admin.delete_topics([name], request_timeout=REQUEST_TIMEOUT_S)[name]

        for name in names:
            self._ask(partial(request, name), f"delete topic {name}", unless={KafkaError.UNKNOWN_TOPIC_OR_PART})
        self._wait(names, are_there=False)

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions, if it has fewer; its records stay where they are."""
        if self.partitions(topic) >= partitions:
            return
        wanted = NewPartitions(topic, partitions)
        self._ask(
            lambda: self._admin.create_partitions([wanted], request_timeout=REQUEST_TIMEOUT_S)[topic],
            f"give topic {topic} more partitions",
        )
        deadline = time.monotonic() + VISIBLE_S
        while self.partitions(topic) < partitions and time.monotonic() < deadline:
            time.sleep(VISIBLE_CHECK_S)

    def members(self, group: str) -> int:
        """Return how many members a consumer group has now, 0 if there is no such group."""

        def request() -> Future[ConsumerGroupDescription]:
            return self._admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)[group]

        found = self._ask(request, f"describe group {group}", unless={KafkaError.GROUP_ID_NOT_FOUND})
        return 0 if found is None else len(found.members)

    def forget(self, group: str) -> None:
        """Delete a consumer group without members, with all that it has committed; if there is one."""

        def request() -> Future[None]:
            return self._admin.delete_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)[group]

        self._ask(request, f"delete group {group}", unless={KafkaError.GROUP_ID_NOT_FOUND})

    def cut(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records before `offset`, as retention would."""
        where = TopicPartition(topic, partition, offset)
        self._ask(
            lambda: self._admin.delete_records([where], request_timeout=REQUEST_TIMEOUT_S)[where],
            f"cut {topic}[{partition}]",
        )

    def brokers(self, timeout_s: float) -> int:
        """Return how many brokers answer, 0 if none does within `timeout_s`."""
        try:
            return len(self._admin.list_topics(timeout=timeout_s).brokers)
        except KafkaException:
            return 0

    def close(self) -> None:
        """Let go of the connection."""
        self._admin.poll(0)

    def _describe(self, names: Sequence[str]) -> dict[str, TopicDescription | None]:
        def request(name: str) -> Future[TopicDescription]:
            return self._admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_TIMEOUT_S)[name]

        started = {name: request(name) for name in names}  # all on their way before the first is waited for
        return {
            name: self._ask(
                partial(request, name), f"describe topic {name}", {KafkaError.UNKNOWN_TOPIC_OR_PART}, started[name]
            )
            for name in names
        }

    def _wait(self, names: Sequence[str], *, are_there: bool) -> dict[str, TopicDescription | None]:
        # The controller answers before the brokers know: who looks at once would miss a new topic, or see an old one.
        deadline = time.monotonic() + VISIBLE_S
        while True:
            found = self._describe(names)
            if all((one is not None) == are_there for one in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(VISIBLE_CHECK_S)

    def _create(self, specs: Sequence[TopicSpec]) -> list[str]:
        def request(spec: TopicSpec) -> Future[None]:
            new = NewTopic(spec.name, spec.partitions, -1, config=_config(spec))  # -1: the cluster's own replication
            return self._admin.create_topics([new], request_timeout=REQUEST_TIMEOUT_S)[spec.name]

        started = {spec.name: request(spec) for spec in specs}
        created = []
        for spec in specs:
            try:
                self._ask(partial(request, spec), f"create topic {spec.name}", first=started[spec.name])
            except TopicExists:
                continue  # another process was faster: checked like any present topic
            created.append(spec.name)
        return created

    def _mistakes(self, specs: Sequence[TopicSpec], found: Mapping[str, TopicDescription | None]) -> list[str]:
        mistakes: list[str] = []
        for spec in specs:
            description = found[spec.name]
            if description is None:
                mistakes.append(f"topic {spec.name} vanished while it was being checked; start again")
            else:
                mistakes += mismatches(spec, len(description.partitions), self._config(spec.name))
        return mistakes

    def _config(self, topic: str) -> dict[str, str | None]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._ask(
            lambda: self._admin.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)[resource],
            f"read the settings of topic {topic}",
        )
        return {name: entry.value for name, entry in entries.items()}

    def _ask(
        self,
        request: Callable[[], Future[Any]],
        doing: str,
        unless: set[int] | None = None,
        first: Future[Any] | None = None,
    ) -> Any:
        """Return the answer, None for an error in `unless`; passing trouble is waited out."""
        deadline = self._patience.deadline()
        future = first if first is not None else request()
        while True:
            self._lifeline.look()
            try:
                answer = future.result()
            except KafkaException as exception:
                error = error_of(exception)
                code = error.code() if error else None
                if unless and code in unless:
                    answer = None
                    break
                if code == KafkaError.TOPIC_ALREADY_EXISTS:
                    raise TopicExists from None
                if code not in TRANSIENT or time.monotonic() > deadline:
                    raise translate(exception, self._settings, doing) from None
                self._complaints.add(cast("KafkaError", error))
                time.sleep(RETRY_WAIT_S)
                future = request()
            else:
                break
        self._patience.answered()
        self._complaints.clear()
        return answer


class TopicExists(Exception):  # noqa: N818 -- a signal inside this file, not an error a user meets
    """Another process created the topic between our look and our request."""


def mismatches(spec: TopicSpec, partitions: int, config: Mapping[str, str | None]) -> list[str]:
    """Return one line for each thing about a present inner topic that is not as the pipeline needs it."""
    lines = []

    def expect(is_right: bool, what: str, found: object, needed: str) -> None:
        if not is_right:
            first = "give it others by `millrace rescale`, " if what == "partitions" else ""
            lines.append(
                f"topic {spec.name} has {what} {found}, the pipeline needs {needed}; "
                f"{first}change the topic, delete it if it may go, or name the pipeline otherwise"
            )

    has_enough = partitions == spec.partitions or (spec.is_grown and partitions > spec.partitions)
    expect(has_enough, "partitions", partitions, f"{'at least ' if spec.is_grown else ''}{spec.partitions}")
    needed = "compact" if spec.is_compacted else "delete"
    policy = config.get("cleanup.policy") or "delete"
    expect(policy == needed, "cleanup.policy", policy, needed)
    if not spec.is_compacted:
        kept = int(config.get("retention.ms") or FOREVER_MS)
        is_enough = kept == FOREVER_MS or (spec.retention_ms != FOREVER_MS and kept >= spec.retention_ms)
        needed = "-1 (for ever)" if spec.retention_ms == FOREVER_MS else f"at least {spec.retention_ms}"
        expect(is_enough, "retention.ms", kept, needed)
    size = int(config.get("max.message.bytes") or 0)
    expect(size >= MIN_MESSAGE_BYTES, "max.message.bytes", size, f"at least {MIN_MESSAGE_BYTES}")
    return lines


def _config(spec: TopicSpec) -> dict[str, str]:
    config = {"max.message.bytes": str(MESSAGE_BYTES), "retention.bytes": "-1"}
    if spec.is_compacted:
        return config | {"cleanup.policy": "compact"}
    return config | {"cleanup.policy": "delete", "retention.ms": str(spec.retention_ms)}
