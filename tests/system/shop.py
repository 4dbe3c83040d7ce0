"""A pipeline that runs as a user runs it: `millrace up FILE --embedded` in a process of its own, seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from serving.overview import fetch_metrics
from streams.kafka import BEGINNING, KafkaOutbox, Reader
from streams.scraping import parse
from tests.system.conftest import until

ROOT = Path(__file__).parents[2]
START_WAIT_S = 200.0  # kernels are compiled the first time; 10 s afterwards
ANSWER_WAIT_S = 60.0  # milliseconds on an idle machine, seconds after a kill
STOP_LIMIT_S = 10.0
PARTITIONS = 2
PIPELINE = """
[pipeline]
name = "shop"
partitions = 2
state = "state"

[events]
topic = "shop.orders"
id = "order"
key = "customer"

[events.fields]
amount = "number"
country = "category"

[labels]
topic = "shop.refunds"
id = "order"
key = "customer"
value = "refunded"
wait = "1h"

[features]
orders_1h = { count = "*", by = "customer", window = "1h" }

[models.logistic]
kind = "linear"

[serve]
champion = "logistic"
redis = "redis://nowhere:1/0"

[run]
snapshot_every = "1s"
publish_every = "200ms"
"""


class Shop:
    """The running pipeline, and what comes out of it."""

    def __init__(self, directory: Path, pipeline: str = PIPELINE) -> None:
        self.file = directory / "shop.toml"
        self.file.write_text(pipeline, encoding="utf-8")
        self.run_dir = directory / "state" / "run"
        self.log = directory / "up.log"
        command = [sys.executable, "-m", "serving.cli", "up", str(self.file), "--embedded"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self.answers: list[dict[str, Any]] = []
        self._orders = 0

    def connect(self) -> None:
        """Wait until Kafka and all topics are there."""
        until(lambda: self._is_up("targets.json"), START_WAIT_S)
        self.kafka = {"bootstrap.servers": (self.run_dir / "broker").read_text()}
        self.outbox = KafkaOutbox(self.kafka)
        self._reader = Reader(self.kafka)
        self._reader.assign("shop.predictions", dict.fromkeys(range(PARTITIONS), BEGINNING))

    def order(self) -> str:
        """Publish an event and give its id."""
        self._orders += 1
        id_ = f"order-{self._orders}"
        self.publish("shop.orders", {"order": id_, "customer": f"c{self._orders % 5}", "amount": 10, "country": "NL"})
        return id_

    def publish(self, topic: str, record: dict[str, Any]) -> None:
        self.outbox.produce(topic, None, json.dumps(record).encode(), record["customer"].encode())
        self.outbox.flush()

    def answer(self, id_: str) -> dict[str, Any]:
        """Wait for the prediction of an event."""
        until(lambda: self._find(id_) is not None, ANSWER_WAIT_S)
        found = self._find(id_)
        assert found is not None
        return found

    def pid_of(self, job: str) -> int | None:
        """Find the process of a role by its name in the supervisor; None while it does not run."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            is_it = job in command and (job == "served") == ("served" in command)  # which is a process of learn
            if "run" in command and is_it and "serving.cli" in command and not _is_guard(command):
                return int(process.pid)
        return None

    def metric(self, name: str, **labels: str) -> float:
        """Sum a metric over all processes that answer, of series with these labels."""
        targets = json.loads((self.run_dir / "targets.json").read_text())
        texts = [fetch_metrics(int(target["targets"][0].split(":")[1])) for target in targets]
        return sum(
            one.value
            for text in texts
            if text
            for one in parse(text)
            if one.name == name and labels.items() <= one.labels.items()
        )

    def _find(self, id_: str) -> dict[str, Any] | None:
        self.answers += [json.loads(message.value() or b"") for message in self._reader.poll(100, 0.05)]
        return next((answer for answer in self.answers if answer["id"] == id_), None)

    def _is_up(self, file: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return (self.run_dir / file).exists()


@contextmanager
def running_shop(directory: Path, pipeline: str = PIPELINE) -> Iterator[Shop]:
    """Run a pipeline until the end of the block, or until a test has stopped it."""
    found = Shop(directory, pipeline)
    try:
        found.connect()
        until(lambda: found.metric("millrace_version_examples") == 0 and all_are_ready(found), START_WAIT_S)
        yield found
    finally:
        if found.process.poll() is None:
            found.process.terminate()
            found.process.wait(30)


def _is_guard(command: list[str]) -> bool:
    return any(part.endswith("child_guard.py") for part in command)


def all_are_ready(shop: Shop) -> bool:
    targets = json.loads((shop.run_dir / "targets.json").read_text())
    return shop.metric("millrace_ready") == len(targets)
