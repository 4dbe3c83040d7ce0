"""A whole pipeline on this machine: what it says where its state is elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.system import System
from streams.embedded import EmbeddedKafka
from streams.errors import UnavailableError

PIPELINE = """
[pipeline]
name = "shop"
state = "s3://ann:hunter2@bucket/shop?region=eu-west-1"
[kafka]
"bootstrap.servers" = "127.0.0.1:1"
[events]
topic = "visits"
fields = { price = "number" }
[labels]
topic = "orders"
id = "visit"
value = "bought"
wait = "1h"
[models.prior]
kind = "prior"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline with its state in a bucket."""
    path = tmp_path / "shop.toml"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


def test_embedded_kafka_says_that_its_data_is_not_in_the_store(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, without the URL's secret: the data lies in the directory beside the pipeline file."""
    said: list[str] = []

    def refuse(self: EmbeddedKafka) -> None:
        raise UnavailableError(f"no memory for {self.directory}")

    monkeypatch.setattr(EmbeddedKafka, "start", refuse)
    here = file.parent / "state" / "shop" / "kafka"
    with (
        pytest.raises(UnavailableError, match=f"no memory for {here}"),
        System(file, is_embedded=True, say=said.append),
    ):
        pass

    there = "s3://(hidden)@bucket/shop?region=eu-west-1"
    assert said == [
        "starting Kafka …",
        f"Kafka's data is on this machine only, in {here}; snapshots and models are in {there}",
    ]
