"""A live pipeline as a user runs it: `millrace up FILE --embedded` in a process of its own, from outside only."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import psutil
import pytest
import redis

from streams.kafka import Topics
from tests.system.conftest import until
from tests.system.shop import ANSWER_WAIT_S, ROOT, START_WAIT_S, STOP_LIMIT_S, Shop, all_are_ready, running_shop

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One pipeline for all tests here; the last of them stops it."""
    with running_shop(tmp_path_factory.mktemp("shop")) as found:
        yield found


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


def test_what_was_answered_is_scored_beside_the_candidate(shop: Shop) -> None:
    """The one event with a label was answered by an untrained model, as the candidate itself said of it."""
    of = {"candidate": "served"}
    for candidate in ("served", "logistic"):
        until(partial(_has_loss, shop, candidate), ANSWER_WAIT_S)
        assert _loss(shop, candidate) == pytest.approx(math.log(2))
    until(lambda: _answered(shop) == len(shop.answers), ANSWER_WAIT_S)
    assert shop.metric("millrace_served_answers", **of, model="logistic") == len(shop.answers)


def _loss(shop: Shop, candidate: str) -> float:
    return shop.metric("millrace_model_quality", candidate=candidate, figure="log_loss", span="start")


def _has_loss(shop: Shop, candidate: str) -> bool:
    return _loss(shop, candidate) > 0


def _answered(shop: Shop) -> float:
    return shop.metric("millrace_served_events", state="answered")


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


@pytest.mark.parametrize("job", ["ingest", "features", "learn", "serve", "served"])
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
    until(lambda: shop.pid_of(job) not in {killed, None} and all_are_ready(shop), START_WAIT_S)
    last = shop.order()
    shop.answer(last)

    counts = Counter(answer["id"] for answer in shop.answers)
    assert set(counts.values()) == {1}
    assert counts.keys() >= {*before, *after, last}
    assert f"{'learn.served' if job == 'served' else job} was killed by SIGKILL" in shop.log.read_text()


def test_every_answer_is_counted_once_after_the_kills(shop: Shop) -> None:
    """Of serve, of what scores the answers, and of all between; only serve's may have been repeated."""
    shop.answer(shop.order())
    until(lambda: all_are_ready(shop) and _answered(shop) == len({one["id"] for one in shop.answers}), ANSWER_WAIT_S)

    assert shop.metric("millrace_served_events", state="unanswered") == 0


def test_no_row_is_unaccounted_for_after_the_kills(shop: Shop) -> None:
    shop.answer(shop.order())
    until(lambda: all_are_ready(shop) and shop.metric("millrace_unaccounted_rows") == 0, ANSWER_WAIT_S)


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
