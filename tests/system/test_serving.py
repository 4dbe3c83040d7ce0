"""A live pipeline as a user runs it: `millrace up FILE --embedded` in a process of its own, from outside only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from serving.overview import fetch_metrics
from streams.kafka import BEGINNING, KafkaOutbox, Reader, Topics
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
pytestmark = pytest.mark.timeout(300)


class Shop:
    """The running pipeline, and what comes out of it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "shop.toml"
        self.file.write_text(PIPELINE, encoding="utf-8")
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
            if "run" in command and job in command and "serving.cli" in command and not _is_guard(command):
                return int(process.pid)
        return None

    def metric(self, name: str) -> float:
        """Sum a metric over all processes that answer."""
        targets = json.loads((self.run_dir / "targets.json").read_text())
        texts = [fetch_metrics(int(target["targets"][0].split(":")[1])) for target in targets]
        return sum(one.value for text in texts if text for one in parse(text) if one.name == name)

    def _find(self, id_: str) -> dict[str, Any] | None:
        self.answers += [json.loads(message.value() or b"") for message in self._reader.poll(100, 0.05)]
        return next((answer for answer in self.answers if answer["id"] == id_), None)

    def _is_up(self, file: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return (self.run_dir / file).exists()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One pipeline for all tests here; the last of them stops it."""
    found = Shop(tmp_path_factory.mktemp("shop"))
    try:
        found.connect()
        until(lambda: found.metric("millrace_version_examples") == 0 and _all_answer(found), START_WAIT_S)
        yield found
    finally:
        if found.process.poll() is None:
            found.process.terminate()
            found.process.wait(30)


def test_a_published_event_is_answered(shop: Shop) -> None:
    id_ = shop.order()
    answer = shop.answer(id_)

    assert (answer["id"], answer["key"], answer["model"], answer["version"]) == (id_, "c1", "logistic", "0.0")
    assert answer["probability"] == 0.5


def test_a_label_is_learned_and_the_new_version_answers(shop: Shop) -> None:
    id_ = shop.order()
    shop.answer(id_)
    shop.publish("shop.refunds", {"order": id_, "customer": "c2", "refunded": True})
    until(lambda: shop.metric("millrace_version_examples") == 1, ANSWER_WAIT_S)
    answer = shop.answer(shop.order())

    assert answer["version"] == "0.1"
    assert answer["probability"] > 0.5


def test_a_key_is_in_redis_with_what_was_answered_last(shop: Shop) -> None:
    store = redis.Redis.from_url((shop.run_dir / "redis").read_text())
    answers = {answer["key"]: answer for answer in (shop.answer(shop.order()) for _ in range(10))}
    wanted = {key: answer["id"] for key, answer in sorted(answers.items())}

    def held() -> dict[str, dict[bytes, bytes]]:
        return {key: store.hgetall(f"shop:key:{key}") for key in wanted}  # type: ignore[misc]  # no future here

    until(lambda: {key: json.loads(row.get(b"prediction", b"{}")).get("id") for key, row in held().items()} == wanted)
    for key, row in held().items():
        assert json.loads(row[b"prediction"]) == answers[key]
        features = json.loads(row[b"features"])
        earlier = sum(answer["key"] == key for answer in shop.answers) - 1
        assert list(features) == ["amount", "country", "orders_1h"]
        assert (features["amount"], features["orders_1h"]) == (10, earlier)
        assert (int(row[b"generation"]), int(row[b"number"])) == (answers[key]["generation"], answers[key]["number"])
        assert row[b"topic_id"].decode() == Topics(shop.kafka).uuid("shop.features")
    assert shop.metric("millrace_store_open") == 0


def test_a_bad_record_becomes_a_dead_letter_and_stops_nothing(shop: Shop) -> None:
    shop.publish("shop.orders", {"order": "bad", "customer": "c1", "amount": "ten"})
    shop.answer(shop.order())
    until(lambda: shop.metric("millrace_dead_letters_total") == 1, ANSWER_WAIT_S)
    command = [sys.executable, "-m", "serving.cli", "deadletters", str(shop.file), "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    letters = [json.loads(line) for line in shown.stdout.splitlines()]

    assert [(letter["topic"], letter["error"], letter["is_replayed"]) for letter in letters] == [
        ("shop.orders", "invalid", False)
    ]
    assert "$.amount" in letters[0]["reason"]


@pytest.mark.parametrize("job", ["ingest", "features", "learn", "serve"])
def test_a_killed_role_is_started_again_and_goes_on(shop: Shop, job: str) -> None:
    """What it did before the kill is neither lost nor done again."""
    before = [shop.order() for _ in range(3)]
    for id_ in before:
        shop.answer(id_)
    killed = shop.pid_of(job)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    after = [shop.order() for _ in range(3)]
    for id_ in after:
        shop.answer(id_)
    until(lambda: shop.pid_of(job) not in {killed, None} and _all_answer(shop), START_WAIT_S)
    last = shop.order()
    shop.answer(last)

    counts = Counter(answer["id"] for answer in shop.answers)
    assert set(counts.values()) == {1}
    assert counts.keys() >= {*before, *after, last}
    assert f"{job} was killed by SIGKILL" in shop.log.read_text()


def test_no_row_is_unaccounted_for_after_the_kills(shop: Shop) -> None:
    shop.answer(shop.order())
    until(lambda: _all_answer(shop) and shop.metric("millrace_unaccounted_rows") == 0, ANSWER_WAIT_S)


def test_sigterm_stops_everything_within_seconds_and_leaves_nothing(shop: Shop) -> None:
    family = psutil.Process(shop.process.pid).children(recursive=True)
    assert len(family) >= 6  # four roles, a JVM and a redis-server, and their guards

    began = time.monotonic()
    shop.process.send_signal(signal.SIGTERM)
    code = shop.process.wait(60)
    took_s = time.monotonic() - began

    assert code == 0
    assert took_s < STOP_LIMIT_S
    until(lambda: not any(process.is_running() for process in family), wait_s=2)
    assert not (shop.run_dir / "broker").exists()
    assert not (shop.run_dir / "redis").exists()


def _is_guard(command: list[str]) -> bool:
    return any(part.endswith("child_guard.py") for part in command)


def _all_answer(shop: Shop) -> bool:
    targets = json.loads((shop.run_dir / "targets.json").read_text())
    return all(fetch_metrics(int(target["targets"][0].split(":")[1])) for target in targets)
