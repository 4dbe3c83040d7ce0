"""`millrace features --describe` on a real Kafka: before there is a topic, without rows, and with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from serving.cli import app
from streams.features import columns
from streams.frames import SCHEMA_HEADER, encode, features_schema
from streams.kafka import KafkaOutbox, Topics
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.tables import Stack
from streams.topic_specs import topic_specs
from tests.rows import batch_of

FILE = """
[pipeline]
name = "{name}"
partitions = 2
[events]
topic = "{name}.events"
id = "id"
key = "key"
fields = {{ amount = "number", shop = "category" }}
[labels]
topic = "{name}.labels"
id = "id"
key = "key"
value = "y"
wait = "1h"
[features]
n = {{ count = "*", by = "key", window = "1h" }}
[models.prior]
kind = "prior"
"""
ROWS = 500  # of each partition


@pytest.fixture
def file(tmp_path: Path, prefix: str) -> Path:
    """A pipeline file with a name of this test's own."""
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE.format(name=prefix), encoding="utf-8")
    return path


def describe(file: Path, kafka: str, *options: str) -> dict[str, Any]:
    """The distributions as the command writes them."""
    done = CliRunner().invoke(app, ["features", str(file), "--broker", kafka, "--describe", "--json", *options])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)["distributions"]
    return found


def write(pipeline: Pipeline, settings: dict[str, str]) -> None:
    """Rows 0 to 499 of each partition, those of partition 1 each newer by one us; four in a frame."""
    schema, outbox = features_schema(columns(pipeline)), KafkaOutbox(settings)
    for partition in range(2):
        for at, rows in enumerate(np.array_split(np.arange(ROWS), ROWS // 4)):
            sent = [
                {"kind": "event", "time": 2 * row + partition, "vector": [float(row), float(partition), np.nan]}
                for row in rows.tolist()
            ]
            for frame in encode(Stack([batch_of(schema, sent)]), np.arange(len(sent))):
                headers = [(SCHEMA_HEADER, schema.fingerprint.encode())]
                outbox.produce(f"{pipeline.name}.features", partition, frame.message(), headers=headers)
            if at % 10 == 0:
                mark = batch_of(schema, [{"kind": "mark", "time": 10**6, "vector": None}])
                headers = [(SCHEMA_HEADER, schema.fingerprint.encode())]
                outbox.produce(f"{pipeline.name}.features", partition, mark.message(), headers=headers)
    outbox.close()


def test_the_newest_rows_in_kafka_are_described(
    file: Path, kafka: str, settings: dict[str, str], topics: Topics
) -> None:
    """One line while there is nothing; then the newest of both partitions, or all of them."""
    pipeline = read_pipeline(file)

    assert describe(file, kafka)["note"].startswith(f"{pipeline.name}.features does not exist yet")

    topics.ensure(topic_specs(pipeline))

    assert describe(file, kafka)["note"].startswith(f"{pipeline.name}.features has no rows with these columns yet")

    write(pipeline, settings)
    newest, whole = describe(file, kafka, "--rows", "300"), describe(file, kafka)
    amount, shop, count = newest["columns"]

    assert (newest["rows"], whole["rows"]) == (300, 2 * ROWS)
    assert (amount["least"], amount["most"], amount["mean"]) == (350.0, 499.0, 424.5)
    assert (shop["distinct"], shop["most_frequent"]) == (2, 0.5)
    assert (count["values"], count["missing"], count["mean"]) == (0, 1.0, None)
    assert whole["columns"][0]["median"] == 249.5
