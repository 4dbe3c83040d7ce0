"""A promotion while events flow, by a record that somebody writes: answers switch once, and none is lost or doubled."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from models.registry import read_version
from models.sealed import key_for
from models.version import Version
from serving.tail import rows
from serving.versions import find
from streams import features
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.reign import Promoted
from streams.state_folder import state_of
from tests.system.conftest import until
from tests.system.shop import ANSWER_WAIT_S, PIPELINE, Shop, running_shop

pytestmark = pytest.mark.timeout(300)
OTHERS = """
[models.tree]
kind = "river:tree.HoeffdingTreeClassifier"
grace_period = 20

[models.bayes]
kind = "naive_bayes"

[serve]"""
EVERY_S = 0.02  # between events
LABELLED = 3  # of four orders so many are known to be refunded or not


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One pipeline for all tests here, which keeps every version."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    text = PIPELINE.replace("\n[serve]", f'{OTHERS}\nhttp = "{address}"')
    text = text.replace("[run]", "[run]\nkeep_versions = 10000")
    with running_shop(tmp_path_factory.mktemp("promotion"), text) as found:
        yield found


def pipeline_of(shop: Shop) -> Pipeline:
    return msgspec.structs.replace(read_pipeline(shop.file), kafka=shop.kafka)


def decide(shop: Shop, name: str, follows: str, candidate: str) -> None:
    """Write a promotion, as a person might."""
    record = Promoted(name, follows, candidate, 0, "manual", time_us=int(time.time() * 1e6))
    shop.outbox.produce("shop.decisions", 0, msgspec.json.encode(record))
    shop.outbox.flush()


def sell(shop: Shop, orders: int) -> list[str]:
    """Let orders flow, most of which are known to be refunded or not at once."""
    sold = []
    for _ in range(orders):
        sold.append(shop.order())
        number = int(sold[-1].rpartition("-")[2])
        if number % 4 < LABELLED:
            refund = {"order": sold[-1], "customer": f"c{number % 5}", "refunded": number % 5 < 2}
            shop.publish("shop.refunds", refund)
        time.sleep(EVERY_S)
    return sold


def has_version(shop: Shop, candidate: str) -> bool:
    pipeline = pipeline_of(shop)
    return bool(list((pipeline.state / "models" / candidate).glob("*.json")))


def answers_to(shop: Shop, sold: list[str]) -> list[dict[str, Any]]:
    """Wait for the answers to orders; gives them in the order of each partition."""
    for id_ in sold:
        shop.answer(id_)
    wanted = set(sold)
    return [answer for answer in shop.answers if answer["id"] in wanted]


def changes(answers: list[dict[str, Any]]) -> dict[int, list[str]]:
    """Say for each partition who answered, one after the other."""
    models = defaultdict(list)
    for answer in answers:
        models[answer["partition"]].append(answer["model"])
    return {partition: [name for name, _ in itertools.groupby(names)] for partition, names in models.items()}


def said_by(pipeline: Pipeline, version: Version, vector: dict[str, Any]) -> float:
    """Ask a version about a row as P.features has it."""
    state = state_of(pipeline)
    learner = read_version(state, version, key_for(version.kind, state), kind=version.kind)
    names = [column.name for column in features.columns(pipeline)]
    x_BF = np.array([[np.nan if vector[name] is None else vector[name] for name in names]], np.float64)
    return float(learner.predict(x_BF)[0])


def test_a_promotion_switches_answers_once_and_loses_none(shop: Shop) -> None:
    sell(shop, 20)
    until(lambda: has_version(shop, "tree"), ANSWER_WAIT_S)
    until(lambda: shop.answer(sell(shop, 1)[0])["version"] != "0.0", ANSWER_WAIT_S)
    before = sell(shop, 40)
    shop.answer(before[-1])
    decide(shop, "first", "", "tree")
    after = sell(shop, 60)
    answers = answers_to(shop, [*before, *after])

    assert set(Counter(answer["id"] for answer in answers).values()) == {1}
    assert len(answers) == len(before) + len(after)
    assert changes(answers) == {partition: ["logistic", "tree"] for partition in changes(answers)}


def test_every_answer_is_what_the_version_it_names_gives(shop: Shop) -> None:
    pipeline = pipeline_of(shop)
    found = {(row["partition"], row["number"]): row for row in rows(pipeline, "features", is_from_start=True,
             is_following=False) if isinstance(row, dict) and row["kind"] == "event"}  # fmt: skip
    answers = [answer for answer in shop.answers if answer["version"] != "0.0"]
    versions = {(answer["model"], answer["version"]) for answer in answers}
    known = {one: find(pipeline, "@".join(one)) for one in versions}
    expected = [
        said_by(pipeline, known[a["model"], a["version"]], found[a["partition"], a["number"]]["features"])
        for a in answers
    ]

    assert {model for model, _ in versions} == {"logistic", "tree"}
    assert [answer["probability"] for answer in answers] == expected


def test_a_void_record_changes_nothing_and_a_killed_serve_knows_who_reigns(shop: Shop) -> None:
    decide(shop, "void", "", "bayes")
    killed = shop.pid_of("serve")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    answers = answers_to(shop, sell(shop, 20))

    assert {answer["model"] for answer in answers} == {"tree"}
    assert "0.0" not in {answer["version"] for answer in answers}
    assert Counter(answer["id"] for answer in shop.answers).most_common(1)[0][1] == 1


def test_over_http_and_in_metrics_it_is_seen_who_reigns(shop: Shop) -> None:
    """And whether it can be asked."""
    host, port = pipeline_of(shop).serve.http or ("", 0)
    models = httpx.get(f"http://{host}:{port}/models", timeout=30.0).json()["models"]
    ready = httpx.get(f"http://{host}:{port}/v2/health/ready", timeout=30.0)

    assert [model["candidate"] for model in models if model["is_champion"]] == ["tree"]
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    assert shop.metric("millrace_champion") == 1


def test_the_way_back_is_a_record_like_any(shop: Shop) -> None:
    before = sell(shop, 20)
    shop.answer(before[-1])
    decide(shop, "back", "first", "logistic")
    after = sell(shop, 60)
    answers = answers_to(shop, [*before, *after])

    assert changes(answers) == {partition: ["tree", "logistic"] for partition in changes(answers)}
