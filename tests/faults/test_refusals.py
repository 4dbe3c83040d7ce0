"""What no role may go on from: state, topics and commits that do not fit stop it with one line and an exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.kafka import KafkaOutbox, Reader, Topics, read_all
from streams.topic_specs import TopicSpec, topic_specs
from tests.faults.harness import MILLRACE, PARTITIONS, ROLES, System, until, write_pipeline
from tests.faults.traffic import Traffic

pytestmark = pytest.mark.timeout(600)  # kernels may have to be compiled first
FETCH_S = 1.0  # the broker holds a request for half a second; one still open would be answered with what is cut later
END_S = 100.0  # a role starts in 4 s; on a busy machine in much more


def run(role: str, file: Path) -> tuple[int, str]:
    """Run a role that must end by itself; gives its exit code and what it said."""
    done = subprocess.run(
        [*MILLRACE, "run", role, str(file)], capture_output=True, text=True, timeout=END_S, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def assert_refused(role: str, system: System, code: int, *words: str) -> None:
    """The role ends with this code and one line that has these words."""
    found, said = run(role, system.file)

    assert (found, said.count("\n")) == (code, 1), said
    assert all(word in said for word in words), said


@pytest.fixture(scope="module")
def topics(broker: str) -> Iterator[Topics]:
    """The topics of the broker."""
    with closing(Topics({"bootstrap.servers": broker})) as door:
        yield door


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, broker: str) -> System:
    """A pipeline that has run, has snapshots and commits everywhere, and was stopped. Tests damage and mend it."""
    made = System(tmp_path_factory.mktemp("refusals"), "refusals", broker)
    traffic = Traffic(made.pipeline, seed=3, rate=0)
    traffic.publish(500)
    made.start()
    for role in ROLES:
        made.until(
            lambda role=role: (
                len(made.of(role)[0].series("millrace_mark_seconds")) >= PARTITIONS[role]  # type: ignore[misc]
                and bool(made.of(role)[0].series("millrace_rows_in_total"))
            ),
            f"rows for {role}",
        )
    made.stop()
    return made


@pytest.mark.parametrize(("role", "code", "words"), [("features", 5, "the snapshots are gone"), ("serve", 5, "gone")])
def test_a_missing_snapshot_directory_stops_the_role(role: str, code: int, words: str, system: System) -> None:
    directory = system.pipeline.state / "snapshots" / role
    aside = shutil.move(directory, directory.with_suffix(".aside"))

    assert_refused(role, system, code, words)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.move(aside, directory)


INPUTS = [("ingest", "labels"), ("features", "log"), ("learn", "examples"), ("serve", "features")]


@pytest.mark.parametrize(("role", "topic"), [pair for pair in INPUTS if pair[0] != "learn"])
def test_a_log_cut_by_retention_stops_the_role(role: str, topic: str, system: System, topics: Topics) -> None:
    cut_all(system, topics, topic)

    assert_refused(role, system, 5, f"{system.pipeline.name}.{topic}", "cut by retention")


def test_a_candidate_whose_examples_were_cut_begins_a_new_lineage(system: System, topics: Topics) -> None:
    cut_all(system, topics, "examples")
    learn = system.of("learn")[0]
    learn.start()
    decisions = f"{system.pipeline.name}.decisions"
    models = len(system.pipeline.models)

    def restarted() -> list[Any]:
        values = [record.value() or b"" for record in read_all(system.pipeline.kafka, decisions, 0)]
        return [one for one in map(msgspec.json.decode, values) if one["decision"] == "restarted"]

    until(lambda: len(restarted()) >= models, "a decision for every candidate")
    learn.child.stop()

    found = restarted()
    assert {one["candidate"] for one in found} == {model.name for model in system.pipeline.models}
    assert {(one["decision"], one["lineage"], one["generation"]) for one in found} == {("restarted", 1, 1)}
    assert all("cut by retention" in one["reason"] for one in found)


@pytest.mark.parametrize(("role", "topic"), INPUTS)
def test_a_recreated_topic_stops_the_role(role: str, topic: str, system: System, topics: Topics) -> None:
    topics.delete([f"{system.pipeline.name}.{topic}"])
    topics.ensure(topic_specs(system.pipeline))

    assert_refused(role, system, 5, f"{system.pipeline.name}.{topic}", "recreated")


def test_a_log_cut_under_a_running_role_stops_it(tmp_path: Path, broker: str, topics: Topics) -> None:
    system = System(tmp_path, "cutlive", broker)
    features = system.of("features")[0]
    features.start()
    until(lambda: len(features.series("millrace_mark_seconds")) == 2, "features running")
    os.kill(features.child.pid, signal.SIGSTOP)
    time.sleep(FETCH_S)
    cut_all(system, topics, "log")
    os.kill(features.child.pid, signal.SIGCONT)

    assert features.child.wait(END_S) == 3  # a restart finds out whether it can go on
    assert len(features.log_path.read_text().splitlines()) == 1
    assert "cutlive.log" in features.child.tail()


def cut_all(system: System, topics: Topics, topic: str) -> None:
    """Append records to a topic's partitions and delete all there are, as retention does to a role that lags."""
    name = f"{system.pipeline.name}.{topic}"
    with closing(KafkaOutbox(system.pipeline.kafka)) as outbox, closing(Reader(system.pipeline.kafka)) as reader:
        partitions = list(range(topics.partitions(name)))
        for partition in partitions:
            outbox.produce(name, partition, b"{}")
        outbox.flush()
        for partition, end in reader.end_offsets(name, partitions).items():
            topics.cut(name, partition, end)


def test_an_inner_topic_with_other_partitions_is_refused(tmp_path: Path, broker: str, topics: Topics) -> None:
    file = write_pipeline(tmp_path, "lopsided", broker)
    topics.ensure([TopicSpec("lopsided.log", 3, -1)])

    code, said = run("ingest", file)

    assert (code, said.count("\n")) == (4, 1), said
    assert "lopsided.log has partitions 3, the pipeline needs 2" in said


def test_a_broken_pipeline_file_is_refused(tmp_path: Path, broker: str) -> None:
    file = write_pipeline(tmp_path, "broken", broker)
    file.write_text(file.read_text().replace('champion = "logistic"', 'champion = "logistics"'))

    code, said = run("serve", file)

    assert (code, said.count("\n")) == (2, 1), said
    assert "champion" in said
