"""Which servers a pipeline uses, and its topics on them: what every command needs first."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from streams.errors import PipelineError, TopicError
from streams.kafka import Topics
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.state_folder import Folder, state_of
from streams.topic_specs import topic_specs

ADDRESS_FILE = "broker"  # under <state>/run: where the embedded Kafka of a running pipeline answers
REDIS_FILE = "redis"  # the same of the embedded Redis, as a URL
REBUILD_RECORD = "rebuild.json"  # the same while something is rebuilt
RESCALE_RECORD = "rescale.json"  # in the state folder while the number of partitions is being changed
CONNECT_TIMEOUT_S = 0.3


def load_pipeline(
    file: Path, broker: str | None = None, redis: str | None = None, *, needs_brokers: bool = True
) -> Pipeline:
    """Read a pipeline file and decide which servers to use.

    That is `broker` if given, else the embedded Kafka that `up --embedded` runs right now for the same state directory,
    else the file's [kafka] table; and for a pipeline with an online store `redis`, or else in the same way.

    Raises:
        PipelineError: the file is wrong, or names no brokers where they are needed.
    """
    pipeline = read_pipeline(file)
    if pipeline.serve.redis is not None:
        pipeline = with_redis(pipeline, redis or _running_redis(pipeline) or pipeline.serve.redis)
    address = broker or _running_broker(pipeline)
    if address:
        return with_broker(pipeline, address)
    if needs_brokers and "bootstrap.servers" not in pipeline.kafka:
        hint = "name the brokers, or start your own with `millrace up --embedded`"
        raise PipelineError([f'[kafka] "bootstrap.servers" is missing: {hint}'])
    return pipeline


def ensure_topics(pipeline: Pipeline) -> list[str]:
    """Create the absent topics, check the present ones, and return the names of those created.

    Raises:
        TopicError: a topic is not as the pipeline needs it, or is being made anew.
    """
    if is_rescaling(state_of(pipeline)):
        number = pipeline.partitions
        text = f"the partitions of {pipeline.name} are being changed and that was not finished"
        raise TopicError(f"{text}: run `millrace rescale FILE --partitions {number}` again")
    if is_rebuilding(state_of(pipeline)):
        raise TopicError(f"{pipeline.name} is being rebuilt and that was not finished: run `millrace rebuild` again")
    topics = Topics(pipeline.kafka)
    try:
        return topics.ensure(topic_specs(pipeline))
    finally:
        topics.close()


def is_rescaling(state: Folder) -> bool:
    """Say whether a change of the number of partitions is under way: no role may start then."""
    return _is_there(state, RESCALE_RECORD)


def is_rebuilding(state: Folder) -> bool:
    """Say whether something is being rebuilt: no role may start then."""
    return _is_there(state, REBUILD_RECORD)


def _is_there(state: Folder, name: str) -> bool:
    try:
        state.read(name)
    except OSError:
        return False
    return True


def raw_partitions(pipeline: Pipeline) -> dict[str, int]:
    """Count the partitions of the raw topics, which may have any number."""
    topics = Topics(pipeline.kafka)
    try:
        return {name: topics.partitions(name) for name in dict.fromkeys((pipeline.events.topic, pipeline.labels.topic))}
    finally:
        topics.close()


def with_broker(pipeline: Pipeline, address: str) -> Pipeline:
    """Use one plain broker in place of the whole [kafka] table."""
    return msgspec.structs.replace(pipeline, kafka={"bootstrap.servers": address})


def with_redis(pipeline: Pipeline, url: str) -> Pipeline:
    """Keep the online store in this Redis."""
    return msgspec.structs.replace(pipeline, serve=msgspec.structs.replace(pipeline.serve, redis=url))


def _running_broker(pipeline: Pipeline) -> str | None:
    path = pipeline.state / "run" / ADDRESS_FILE
    if not path.exists():
        return None
    host, _, port = (address := path.read_text().strip()).rpartition(":")
    return address if _listens(host, int(port)) else None


def _running_redis(pipeline: Pipeline) -> str | None:
    path = pipeline.state / "run" / REDIS_FILE
    if not path.exists():
        return None
    parts = urlsplit(url := path.read_text().strip())
    return url if _listens(parts.hostname or "", parts.port or 0) else None


def _listens(host: str, port: int) -> bool:
    """Whether somebody answers: the files outlive a supervisor that was killed."""
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True
