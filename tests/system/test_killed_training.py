"""The role that archives and trains, killed with SIGKILL on real Kafka: its version is that of one that lived."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from consumers.supervisor import free_ports
from models.version import Version, decode_record
from serving.brokers import ensure_topics, raw_partitions
from serving.publish import Publisher
from streams import features, frames
from streams.archive import read_rows
from streams.kafka import KafkaOutbox, read_all
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.faults.harness import MILLRACE, Death, Process, until
from tests.system.orders import pipeline_text, records

pytestmark = [pytest.mark.timeout(900), pytest.mark.chaos]  # two minutes: each life of the role loads torch
EVENTS, DUE = 480, 300
SOME, PAUSE_S = 40, 0.5  # records at a time, so that rows come in each life of the role
WAIT_S = 400.0
REST_S = 6.0  # in which a role that has forgotten something would do it again
DEATHS = [
    Death(after_s=1.0),  # while it archives
    Death(after_s=3.0),  # while it trains
    Death("after_trained_file"),  # the version lies there, and nobody has heard of it
    Death("after_version_row"),  # it is announced, and the role does not know
]


def write_file(directory: Path, name: str, kafka: str) -> Path:
    """A network that is due once in ten days."""
    directory.mkdir()
    file = directory / "pipeline.toml"
    file.write_text(pipeline_text(name, kafka, DUE))
    return file


def trained(file: Path, deaths: list[Death]) -> tuple[Pipeline, list[Version], int]:
    """Run the roles until the version is announced; gives what rows announce, and how often train died."""
    pipeline = read_pipeline(file)
    ensure_topics(pipeline)
    roles = ("ingest", "features", "train")
    *rest, train = (
        Process(role, role, port, file, MILLRACE) for role, port in zip(roles, free_ports(len(roles)), strict=True)
    )
    train.plan = list(deaths)
    outbox, left = KafkaOutbox(pipeline.kafka), records(0, EVENTS)
    publisher = Publisher(pipeline, outbox, raw_partitions(pipeline), has_marks=False)
    for process in (*rest, train):
        process.start()

    def tend() -> None:
        for process in (*rest, train):
            process.tend()

    def is_over() -> bool:
        tend()
        return train.is_done and bool(train.series("millrace_mark_seconds")) and bool(announced(pipeline))

    try:
        while some := list(itertools.islice(left, SOME)):
            publisher.publish(iter(some), tend)
            time.sleep(PAUSE_S)
        until(is_over, "a version", WAIT_S)
        over_s = time.monotonic() + REST_S
        until(lambda: is_over() and time.monotonic() > over_s, "the end of a rest")
    finally:
        outbox.close()
        for process in (*rest, train):
            process.child.terminate()
        codes = [process.child.wait(30.0) for process in (*rest, train)]
    assert codes == [0, 0, 0], train.child.tail()
    return pipeline, announced(pipeline), train.deaths


def announced(pipeline: Pipeline) -> list[Version]:
    """The versions that rows of the examples announce."""
    schema, found = frames.examples_schema(features.columns(pipeline)), []
    for message in read_all(pipeline.kafka, f"{pipeline.name}.examples", 0):
        rows = frames.decode(message.value() or b"", schema).to_arrow().to_pylist()
        found += [decode_record(row["key"].encode()) for row in rows if row["kind"] == frames.VERSION]
    return found


def archived(pipeline: Pipeline) -> list[str]:
    """The events in the archive, in its order."""
    return [event for table in read_rows(pipeline.state) for event in table.column("id").to_pylist()]


def test_the_version_and_the_archive_are_those_of_a_role_that_never_died(
    tmp_path: Path, kafka: str, prefix: str
) -> None:
    """What was announced and is not remembered is announced again, as the same version; nothing is trained anew."""
    whole, (wanted,), _ = trained(write_file(tmp_path / "whole", f"{prefix}a", kafka), [])
    killed, found, deaths = trained(write_file(tmp_path / "killed", f"{prefix}b", kafka), DEATHS)

    assert deaths == len(DEATHS)
    assert wanted.training is not None
    assert wanted.lineage == 1
    assert {(one.order, one.digest) for one in found} == {(wanted.order, wanted.digest)}
    assert all(one.training is not None and one.training.curve == wanted.training.curve for one in found)
    assert archived(killed) == archived(whole)
