"""The whole loop of retraining on real Kafka: archived, trained, announced, taken up, published, answered with."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from models.registry import read_version
from models.version import Version, decode_record
from serving.brokers import raw_partitions
from serving.publish import Publisher
from serving.system import System
from serving.training_command import Wanted, run_trainings
from streams import features, frames
from streams.archive import read_rows, segments_of
from streams.kafka import KafkaOutbox, read_all
from streams.pipeline import Pipeline
from tests.system.conftest import until
from tests.system.flights_run import json_of, table_of
from tests.system.orders import START_US, STEP_US, pipeline_text, records

pytestmark = pytest.mark.timeout(300)
BEFORE, DUE = 480, 300
WAIT_S = 240.0  # 20 s where kernels are compiled and nothing else runs


class Run(NamedTuple):
    """What was written, and the version that answered in the end."""

    pipeline: Pipeline
    versions: list[Version]  # of `net`, as P.control had them
    trained: list[dict[str, Any]]  # what P.decisions says
    answers: list[dict[str, Any]]
    rows: dict[str, list[Any]]  # of P.features


@pytest.fixture(scope="module")
def run(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Publish ten days, wait until a version answers, publish some more."""
    file = tmp_path_factory.mktemp("retraining") / "pipeline.toml"
    file.write_text(pipeline_text("retraining", kafka, DUE))
    with System(file, most_restarts=0) as system:
        publish(system, 0, BEFORE)
        until(lambda: tended(system) and bool(published(system.pipeline)), WAIT_S)
        shown = BEFORE
        while not any(one["version"] != "0.0" for one in json_of(system.pipeline, "predictions", 0)):
            publish(system, shown, shown + 5)
            shown += 5
            assert shown < BEFORE + 5 * WAIT_S
            tended(system)
            time.sleep(1.0)
        pipeline = system.pipeline
        until(lambda: tended(system) and len(json_of(pipeline, "predictions", 0)) == shown, WAIT_S)
        run_trainings(pipeline, Wanted("net"))  # as `millrace train` does
        until(lambda: tended(system) and published(pipeline)[-1].lineage == 2, WAIT_S)
        until(lambda: tended(system) and len(trained_in(pipeline)) == 2, WAIT_S)
        table = table_of(pipeline, "features", 0, frames.features_schema(features.columns(pipeline)))
        found = table.to_arrow().to_pydict()
        return Run(pipeline, published(pipeline), trained_in(pipeline), json_of(pipeline, "predictions", 0), found)


def trained_in(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [record for record in json_of(pipeline, "decisions", 0) if record["decision"] == "trained"]


def tended(system: System) -> bool:
    system.tend()
    return True


def published(pipeline: Pipeline) -> list[Version]:
    messages = read_all(pipeline.kafka, f"{pipeline.name}.control", 0)
    return [decode_record(m.value() or b"") for m in messages if m.key() == b"version/net"]


def publish(system: System, start: int, stop: int) -> None:
    outbox = KafkaOutbox(system.pipeline.kafka)
    publisher = Publisher(system.pipeline, outbox, raw_partitions(system.pipeline), has_marks=False)
    publisher.publish(records(start, stop), system.tend)
    outbox.close()


def test_a_version_is_trained_from_the_archive_when_it_is_due_and_announced(run: Run) -> None:
    state = run.pipeline.state
    archived = [row for table in read_rows(state) for row in table.column("row").to_pylist()]
    assert archived == list(range(segments_of(state)[-1].last))
    assert len(archived) >= DUE

    said, by_hand = run.trained
    schema = frames.examples_schema(features.columns(run.pipeline))
    examples = table_of(run.pipeline, "examples", 0, schema).to_arrow().to_pylist()
    version, second = (decode_record(row["key"].encode()) for row in examples if row["kind"] == frames.VERSION)
    assert version.training is not None
    assert (said["candidate"], said["lineage"], said["reason"]) == ("net", 1, "examples")
    assert (by_hand["lineage"], by_hand["reason"], by_hand["parent"]) == (2, "command", version.number)
    assert second.order == (2, by_hand["examples"]) > version.order
    assert (version.order, version.kind) == ((1, said["examples"]), "torch:mlp")
    assert 0.9 * DUE <= version.training.rows <= DUE
    assert version.training.known_us == START_US + (DUE - 1) * STEP_US + STEP_US // 2
    assert (version.training.test["auc"] or 0.0) > 0.9


def test_learn_takes_them_up_and_publishes_the_trained_files_themselves(run: Run) -> None:
    blobs = list(dict.fromkeys(version.blob for version in run.versions))
    assert [run.versions[0].lineage, run.versions[-1].lineage] == [1, 2]
    assert all(blob.endswith(".safetensors") for blob in blobs)
    names = [blob.rpartition("/")[2] for blob in blobs]
    found = sorted(path.name for path in (run.pipeline.state / "models" / "net").iterdir())
    assert found == [name + end for name in names for end in ("", ".json")]
    assert len(names) == 2


def test_answers_are_what_the_version_that_they_name_says(run: Run) -> None:
    version = run.versions[0]
    learner = read_version(run.pipeline.state, version)
    vectors = {
        name: vector
        for kind, name, vector in zip(run.rows["kind"], run.rows["id"], run.rows["vector"], strict=True)
        if kind == frames.EVENT
    }
    answered = [one for one in run.answers if one["version"] == version.number]
    X = np.array([vectors[one["id"]] for one in answered])

    assert len(answered) >= 1
    assert [one["probability"] for one in answered] == learner.predict(X).tolist()
    assert {one["probability"] for one in run.answers if one["version"] == "0.0"} == {0.5}
