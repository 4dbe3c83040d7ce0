"""The Kafka topics a pipeline stands for: what each must look like, whoever creates it."""

from __future__ import annotations

import msgspec

from streams.durations import DAY_US, MS_US
from streams.pipeline import Pipeline
from streams.stages import stage_topics

RETENTION_US = 7 * DAY_US  # a week to notice and repair a stopped role before its input is gone
FOREVER_MS = -1
INNER_TOPICS = (  # beside them, topics between stages of features where there are several
    "log", "features", "examples", "scores", "control", "decisions", "deadletters", "predictions",
)  # fmt: skip
_TOTAL_ORDERS = {"examples", "scores", "control", "decisions", "deadletters"}  # one partition
_KEPT_FOREVER = {"control", "decisions"}  # what was promised and decided outlives the rows


class TopicSpec(msgspec.Struct, frozen=True):
    """One topic. `retention_ms` -1 keeps records for ever; a user's topic is created if absent, else left as it is.

    `is_grown`: it may have more partitions than it needs, for it had to have them before (serving/rescaling.py).
    """

    name: str
    partitions: int
    retention_ms: int
    is_compacted: bool = False
    is_user_topic: bool = False
    is_grown: bool = False


def inner_topics(pipeline: Pipeline) -> tuple[str, ...]:
    """Name the pipeline's own topics, without its name, in the order rows flow."""
    first, *others = INNER_TOPICS
    return (first, *stage_topics(pipeline), *others)


def retention_ms(pipeline: Pipeline) -> int:
    """Say how long records are kept: a week, or longer where a label or a feature reaches further back."""
    return max(RETENTION_US, pipeline.labels.wait_us + longest_reach_us(pipeline)) // MS_US


def longest_reach_us(pipeline: Pipeline) -> int:
    """Say how far back features look: over a window, and from a label's time to when it counts."""
    return max(((feature.window_us or 0) + feature.delay_us for feature in pipeline.features), default=0)


def selection_topic(pipeline: Pipeline) -> str:
    """Name the topic that keeps the selector's state; only a pipeline with `[select]` has it."""
    return f"{pipeline.name}.selection"


def topic_specs(pipeline: Pipeline) -> tuple[TopicSpec, ...]:
    """List every topic of the pipeline, the users' first, then in the order rows flow."""
    keep_ms = retention_ms(pipeline)
    users = dict.fromkeys((pipeline.events.topic, pipeline.labels.topic))
    return (
        *(TopicSpec(name, pipeline.partitions, keep_ms, is_user_topic=True) for name in users),
        *(
            TopicSpec(
                f"{pipeline.name}.{name}",
                1 if name in _TOTAL_ORDERS else pipeline.partitions,
                FOREVER_MS if name in _KEPT_FOREVER else keep_ms,
                is_compacted=name == "control",
                is_grown=name == "predictions",
            )
            for name in inner_topics(pipeline)
        ),
        *([] if pipeline.select is None else [TopicSpec(selection_topic(pipeline), 1, FOREVER_MS, is_compacted=True)]),
    )
