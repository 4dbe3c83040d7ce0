"""What `millrace rescale` and `millrace rebuild` ask of Kafka, and the real one; tests have it in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from consumers.process import KafkaControlLog
from streams.control import Control
from streams.kafka import Inbox, KafkaInbox, Message, Topics, read_all
from streams.pipeline import Pipeline
from streams.topic_specs import TopicSpec


class Cluster(Protocol):
    """Topics and groups; kafka.Topics in production."""

    def uuid(self, topic: str) -> str | None:
        """Give the topic's UUID, None if there is no such topic."""

    def partitions(self, topic: str) -> int:
        """Give the topic's partition count."""

    def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create the absent topics, check the present ones."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics with all their records."""

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions, if it has fewer."""

    def forget(self, group: str) -> None:
        """Delete a group with what it has committed, if there is one."""

    def members(self, group: str) -> int:
        """Count the members that a group has now."""


class Doors(NamedTuple):
    """Everything from outside.

    Attributes:
        cluster: topics and groups.
        inbox: a reader of a group's commits that never joins it.
        read: the records of a topic's partition from an offset to the end as it is now.
        control: resolves sources and schemas.
    """

    cluster: Cluster
    inbox: Callable[[str], Inbox]
    read: Callable[[str, int, int], Iterable[Message]]
    control: Control


def kafka_doors(pipeline: Pipeline) -> Doors:
    """Open the doors to a pipeline's brokers; they stay open until the process ends."""
    return Doors(
        Topics(pipeline.kafka),
        partial(KafkaInbox, pipeline.kafka),
        partial(read_all, pipeline.kafka),
        Control(KafkaControlLog(pipeline)),
    )
