"""`millrace rescale` on a real Kafka: real flights, real processes, a command that is killed, another that ends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.auditor import Auditor
from serving.brokers import raw_partitions
from serving.flights import read_flights
from serving.publish import Publisher, RawRecord
from serving.system import System
from streams import features, frames
from streams.errors import UnavailableError
from streams.frames import LABEL
from streams.kafka import KafkaOutbox, Topics
from streams.pipeline import Pipeline
from tests.s3_server import S3Server
from tests.system.conftest import until
from tests.system.flights_run import EXAMPLE, json_of, numbered, publish_to_the_end, table_of

FLIGHTS = 600
WAIT_S = 120.0  # kernels may have to be compiled first
FEATURES = """[features]
flights_1d = { count = "*", by = "tail", window = "1d" }
delay_1d = { mean = "dep_delay", by = "tail", window = "1d", exact = true }
since_last = { elapsed = "*", by = "tail" }
"""  # of events alone: live it is open whether a label or a later event comes first
pytestmark = [pytest.mark.timeout(600), pytest.mark.chaos]  # a minute long
Rows = dict[str, list[Any]]


def write_file(state: Path, partitions: int, url: str = "") -> Path:
    """The demo's pipeline with two fast candidates; with its state in a store it has an online store, too."""
    where = f'state = "{url}"\nlocal = "."' if url else 'state = "."'
    text = re.sub(r'^state = ".*"', where, EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^partitions = .*", f"partitions = {partitions}", text, flags=re.MULTILINE)
    text = re.sub(r"^\[features\]\n(.+\n)*", FEATURES, text, flags=re.MULTILINE)
    text = re.sub(r"^\[models\.(tree|bayes|net)\]\n(.+\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[archive\].*\n", "", text, flags=re.MULTILINE)
    text = text if url else re.sub(r"^redis = .*\n", "", text, flags=re.MULTILINE)
    file = state / "flights.toml"
    file.write_text(text, encoding="utf-8")
    return file


def publish_and_wait(system: System, records: list[RawRecord]) -> None:
    """Publish without an end, and return when every role has taken all of it."""
    outbox = KafkaOutbox(system.pipeline.kafka)
    Publisher(system.pipeline, outbox, raw_partitions(system.pipeline)).publish(iter(records), system.tend)
    outbox.close()
    events, still, deadline = sum(not record.is_label for record in records), 0, time.monotonic() + WAIT_S
    while still < 3:
        assert time.monotonic() < deadline
        system.tend()
        overview = system.look()
        is_done = overview.served == events and all(line.lag_records == 0 for line in overview.processes)
        still = still + 1 if is_done else 0
        time.sleep(0.3)


def rescale(file: Path, partitions: int, fail_point: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "serving.cli", "rescale", str(file), "--partitions", str(partitions), "--embedded"]
    variables = {**os.environ, "MILLRACE_FAIL_POINT": fail_point}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)


def examples_of(pipeline: Pipeline) -> Rows:
    """Rows by id, without what tells of partitions or of the moment."""
    table = table_of(pipeline, "examples", 0, frames.examples_schema(features.columns(pipeline)))
    found: Rows = {}
    for row in table.take(numbered(table)).to_arrow().to_pylist():
        told = (row["kind"], row["time"], row["key"], repr(row["vector"]), repr(row["label"]), row["outcome"])
        found.setdefault(row["id"], []).append(told)
    return {name: sorted(rows) for name, rows in found.items()}


def stored_of(pipeline: Pipeline) -> dict[str, str]:
    """The event of each key's last answer in the online store."""
    assert pipeline.serve.redis is not None
    client: redis.Redis = redis.Redis.from_url(pipeline.serve.redis, decode_responses=True)
    names: Any = client.keys("flights:key:*")
    found: dict[str, Any] = {name: client.hget(name, "prediction") for name in names}
    client.close()
    return {name.removeprefix("flights:key:"): json.loads(answer)["id"] for name, answer in found.items()}


def answers_of(pipeline: Pipeline) -> list[dict[str, Any]]:
    """All answers: the topic has as many partitions as there ever were."""
    topics = Topics(pipeline.kafka)
    partitions = topics.partitions(f"{pipeline.name}.predictions")
    topics.close()
    return [answer for p in range(partitions) for answer in json_of(pipeline, "predictions", p)]


def last_answers(answers: list[dict[str, Any]]) -> dict[str, str]:
    """The event of each key's last answer, in whichever partition and generation."""
    answers.sort(key=lambda answer: (answer["generation"], answer["number"]))
    return {answer["key"]: answer["id"] for answer in answers if answer["key"]}


@pytest.mark.parametrize("has_store", [False, True], ids=["on a disk", "in a store"])
def test_a_pipeline_goes_on_with_other_partitions(*, tmp_path: Path, s3: S3Server, has_store: bool) -> None:
    """By id every vector and outcome is as without it, every flight is answered and scored once; 2 become 3, then 1."""
    url = s3.url() if has_store else ""
    records = list(read_flights(FLIGHTS).records())
    parts = [records[:500], records[500:800], records[800:]]
    whole, state = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    state.mkdir()

    with System(write_file(whole, 2), is_embedded=True, most_restarts=0) as system:
        publish_to_the_end(system, iter(records))
        expected = examples_of(system.pipeline)

    with System(write_file(state, 2, url), is_embedded=True, most_restarts=0) as system:
        publish_and_wait(system, parts[0])
    file = write_file(state, 3, url)
    killed = rescale(file, 3, "after_topics:1")
    refused = subprocess.run(
        [sys.executable, "-m", "serving.cli", "up", str(file), "--embedded"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    done = rescale(file, 3)
    with System(file, is_embedded=True, most_restarts=0) as system:
        publish_and_wait(system, parts[1])
    file = write_file(state, 1, url)
    again = rescale(file, 1)
    with System(file, is_embedded=True, most_restarts=0) as system:
        before = {answer["id"] for answer in answers_of(system.pipeline)}
        overview = publish_to_the_end(system, iter(parts[2]))
        of = system.pipeline
        topics = Topics(of.kafka)
        counts = [topics.partitions(f"flights.{name}") for name in ("log", "features", "predictions", "examples")]
        topics.close()
        answers = answers_of(of)
        answered = sorted(answer["id"] for answer in answers)
        table = table_of(of, "examples", 0, frames.examples_schema(features.columns(of)))
        found = examples_of(of)
        with pytest.raises(UnavailableError, match=r"flights\.log partition 0 was made anew for another number of"):
            Auditor(of)
        if has_store:
            last = {key: id_ for key, id_ in last_answers(answers).items() if id_ not in before}  # Redis began empty
            until(lambda: stored_of(of) == last, WAIT_S)

    assert (killed.returncode, refused.returncode) == (-9, 4)
    assert "run `millrace rescale FILE --partitions 3` again" in refused.stderr
    assert (done.returncode, done.stderr, again.returncode, again.stderr) == (0, "", 0, "")
    assert "flights has 3 partitions now, it had 2" in done.stdout
    assert counts == [1, 1, 3, 1]
    assert found == expected
    assert answered == sorted(expected)
    aliases = set((table.numbers("number")[table.numbers("kind") == LABEL] >> 40).tolist())
    assert aliases == {0, 1, 2, 3, 4, 5}
    labelled = sum(row[0] == LABEL and row[4] != "nan" for rows in expected.values() for row in rows)
    assert {line.name: line.learned for line in overview.models} == {"logistic": labelled, "prior": labelled}
    assert overview.unaccounted == 0
    if has_store:
        assert not (of.state / "snapshots").exists()
