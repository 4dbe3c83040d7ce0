"""`millrace key` and the embedded Redis it finds, from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serving.brokers import REDIS_FILE
from serving.key_rows import KeyRows
from serving.key_script import form_of
from serving.redis_door import RedisDoor
from streams.embedded import EmbeddedRedis
from streams.pipeline_file import read_pipeline
from streams.records import pack

ROOT = Path(__file__).parents[2]
PIPELINE = """
[pipeline]
name = "shop"
state = "state"
[events]
topic = "visits"
key = "customer"
[events.fields]
price = "number"
country = "category"
[labels]
topic = "orders"
id = "visit"
key = "customer"
value = "bought"
wait = "1h"
[models.prior]
kind = "prior"
[serve]
redis = "redis://:hunter2@127.0.0.1:1/0"
"""
ANSWER = {
    "id": "v-7", "key": "ann", "time_us": 1_357_035_420_000_000, "prediction": 1, "probability": 0.75,
    "model": "prior", "version": "0.12", "generation": 2, "partition": 3, "number": 41, "latency_ms": 1.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis that holds one key of the shop."""
    with EmbeddedRedis(tmp_path_factory.mktemp("state")) as found:
        door = RedisDoor(found.url, form_of("shop", ("price", "country", "gone"), 604_800_000, "t1"))
        vector = np.array([[12.5, 3417240587219.0, np.nan]])
        names, times = np.array([2_000_000_000_041]), np.array([ANSWER["time_us"]])
        door.write(KeyRows(pack([b"ann"]), pack([msgspec.json.encode(ANSWER)]), names, times, vector))
        door.close()
        yield found


def asked(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "serving.cli", "key", str(file), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline file whose Redis is not there."""
    path = tmp_path / "shop.toml"
    path.write_text(PIPELINE)
    return path


def test_a_key_is_shown_with_its_features_prediction_and_age(file: Path, server: EmbeddedRedis) -> None:
    """In the Redis of the running `up --embedded`, found by the file it leaves."""
    run = read_pipeline(file).state / "run"
    run.mkdir(parents=True)
    (run / REDIS_FILE).write_text(server.url)
    found = asked(file, "ann")

    assert (found.returncode, found.stderr) == (0, "")
    shown = [re.split(r" {2,}", line.strip()) for line in found.stdout.splitlines()]
    assert ["shop, key ann:"] in shown
    assert ["event", "v-7"] in shown
    assert ["prediction", "1 with probability 0.75"] in shown
    assert ["by", "prior 0.12"] in shown
    assert ["name", "generation 2, partition 3, number 41"] in shown
    assert ["price", "12.5"] in shown
    assert ["country", "3417240587219", "category, as a hash"] in shown
    assert ["gone", "-", "missing"] in shown
    assert re.search(r"time +2013-01-01 10:17:00 UTC, \d+ days ago", found.stdout)
    assert re.search(r"kept +written [0-9.]+ m?s ago, for another 7 days", found.stdout)


def test_a_key_that_is_not_stored_is_one_line(file: Path, server: EmbeddedRedis) -> None:
    """With an exit code that a script can tell."""
    found = asked(file, "bob", "--redis", server.url)

    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "nothing is stored for the key 'bob': no event of it was answered in the last 7 days\n"


def test_a_redis_that_is_not_there_is_one_line_without_its_password(file: Path) -> None:
    """It names the place that the file names."""
    found = asked(file, "ann")

    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr.startswith("redis://127.0.0.1:1/0 cannot be reached: ")
    assert len(found.stderr.splitlines()) == 1
    assert "hunter2" not in found.stderr


def test_a_pipeline_without_a_store_says_what_to_declare(file: Path) -> None:
    """A mistake of the file."""
    file.write_text(PIPELINE[: PIPELINE.index("[serve]")])
    found = asked(file, "ann")

    assert found.returncode == 2
    assert found.stderr.startswith("[serve] redis is missing: the pipeline has no online store; declare one")
