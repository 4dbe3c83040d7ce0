"""`millrace report` with a real Kafka: losses, answers and texts of categories come from the pipeline's topics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from consumers.process import KafkaControlLog
from serving.brokers import with_broker
from serving.cli import app
from streams.control import Control
from streams.frames import SCHEMA_HEADER, encode, log_schema
from streams.kafka import KafkaOutbox, Topics
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.tables import Stack
from streams.topic_specs import topic_specs
from tests import reporting
from tests.reporting import SHOPS, MemoryTopics
from tests.rows import batch_of

FILE = """
[pipeline]
name = "{name}"
partitions = 2
state = "state"
[events]
topic = "{name}.events"
id = "id"
key = "key"
fields = {{ amount = "number", shop = "category", is_new = "number", miles = "number" }}
[labels]
topic = "{name}.labels"
id = "id"
key = "key"
value = "y"
wait = "3h"
[models.linear]
kind = "linear"
[models.prior]
kind = "prior"
[serve]
champion = "linear"
"""


def publish(pipeline: Pipeline, settings: dict[str, str], topics: MemoryTopics) -> None:
    """Write losses, answers to both partitions in turn, and log rows that have each category."""
    outbox, schema = KafkaOutbox(settings), log_schema(pipeline)
    for value in topics.lists["scores"]:
        outbox.produce(f"{pipeline.name}.scores", 0, value)
    for at, value in enumerate(topics.lists["predictions"]):
        outbox.produce(f"{pipeline.name}.predictions", at % 2, value)
    log = KafkaControlLog(pipeline)
    Control(log).announce(schema)
    log.close()
    rows = batch_of(schema, [{"kind": "event", "id": shop, "field.shop": shop} for shop in SHOPS])
    for frame in encode(Stack([rows]), np.arange(len(SHOPS))):
        headers = [(SCHEMA_HEADER, schema.fingerprint.encode())]
        outbox.produce(f"{pipeline.name}.log", 1, frame.message(), headers=headers)
    outbox.close()


def test_a_report_is_of_what_the_topics_say(
    tmp_path: Path, prefix: str, kafka: str, settings: dict[str, str], topics: Topics
) -> None:
    """Before the topics have anything it says so; afterwards nothing is left out."""
    file, out = tmp_path / "pipeline.toml", tmp_path / "report.html"
    file.write_text(FILE.format(name=prefix), encoding="utf-8")
    pipeline = with_broker(read_pipeline(file), kafka)
    made = reporting.fill(pipeline, reporting.happened("binary", 1_200))
    command = ["report", str(file), "--broker", kafka, "--out", str(out)]

    before = CliRunner().invoke(app, command)
    assert before.exit_code == 0, before.output
    lacks = [line for line in before.output.splitlines() if line.startswith("not in the report")]
    assert lacks[0].startswith(f"not in the report: losses: topic {prefix}.scores does not exist")
    assert lacks[1].startswith(f"not in the report: what was served: topic {prefix}.predictions does not exist")
    assert lacks[2].startswith("not in the report: names of categories: topic")
    assert len(lacks) == 3

    topics.ensure(topic_specs(pipeline))
    publish(pipeline, settings, made.topics)
    after = CliRunner().invoke(app, command)
    assert after.exit_code == 0, after.output
    assert re.fullmatch(rf"{out}: 1,200 events, 4\.\d MB\n", after.output)
    page = out.read_text(encoding="utf-8")
    for title in ("Loss over time", "Calibration", "Confusion of what was served", "Loss by slice"):
        assert f"<h3>{title}</h3>" in page
    said_N, label_N = made.said["linear"], made.happened.label_N
    right = float(np.mean((said_N >= 0.5) == (label_N > 0.5), where=np.isfinite(label_N)))
    assert f"{np.isfinite(label_N).sum():,} answers, {right * 100:.1f} % right, yes from 0.5 on." in page
    assert json.dumps(["north", "south", "east"])[1:-1] in page.replace('","', '", "')
