"""A running shop in which selector, serve, API and Redis are killed while orders flow and another champion comes.

What was written is then checked alone: each order answered once, by the version that the answer names, and the
decision that of a selector that nobody has killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import psutil
import pytest

from consumers.score_records import ScoresRecord, decode_scores
from consumers.standings import read_standings
from models.registry import read_version
from models.sealed import key_for
from serving.tail import rows
from serving.versions import find
from streams import features
from streams.kafka import read_all
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.reign import Promoted
from streams.state_folder import state_of
from tests.selecting import Log, Selector
from tests.system.conftest import until
from tests.system.shop import PARTITIONS, PIPELINE, START_WAIT_S, Shop, running_shop

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]
RATE = 300.0  # orders a second, each with its label
ORDERS = 24_000  # a promotion takes 10,000
NOISE = 0.1  # of labels; without any, losses fall so smoothly that blocks are no independent evidence
KILLS = {3_000: "select", 6_000: "serve", 15_000: "api", 18_000: "redis"}  # serve is back before the next one
GAP_S = 5.0  # the longest silence of answers where serve lives
SERVE_GAP_S = 30.0  # where it was killed: it starts again and loads its versions, on a busy machine
FELT_S = 8.0  # a silence that begins so long after a kill is counted as its doing
END_WAIT_S = 120.0
CANDIDATES = ("prior", "good")
MODELS = """[models.prior]
kind = "prior"

[models.good]
kind = "linear"
lr = 0.05
bits = 4

[select]
span = "1s"
max_age = "1h"

[serve]
champion = "prior"
http = "{address}"
"""


class Fire(NamedTuple):
    """The shop after the last order, when it was hit, and what was written."""

    shop: Shop
    pipeline: Pipeline
    killed_s: list[tuple[str, float]]
    answers: list[dict[str, Any]]  # repeats too
    answered_s: list[float]  # wall clock of each answer
    scores: list[ScoresRecord]
    decisions: Log


@pytest.fixture(scope="module")
def fire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fire]:
    """Sell while one process after the other is killed, and read what was written."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    text = PIPELINE.replace('[models.logistic]\nkind = "linear"\n\n[serve]\nchampion = "logistic"\n', MODELS)
    text = text.replace("{address}", address).replace("[run]", "[run]\nkeep_versions = 10000")
    with running_shop(tmp_path_factory.mktemp("fire"), text) as shop:
        killed_s = sell(shop)
        pipeline = msgspec.structs.replace(read_pipeline(shop.file), kafka=shop.kafka)
        until(lambda: len(names_of(shop)) >= ORDERS, END_WAIT_S)
        until(lambda: has_weighed(pipeline), END_WAIT_S)
        yield read_fire(shop, pipeline, killed_s)


def sell(shop: Shop) -> list[tuple[str, float]]:
    """Let orders flow at a steady rate, kill at fixed orders; gives who was killed when."""
    start_s, killed_s, random_ = time.monotonic(), list[tuple[str, float]](), random.Random(7)
    for number in range(ORDERS):
        amount, customer = number * 7 % 10, f"c{number % 5}"
        order = {"order": f"o{number}", "customer": customer, "amount": amount, "country": "NL"}
        refund = {"order": f"o{number}", "customer": customer, "refunded": (amount >= 5) != (random_.random() < NOISE)}
        for topic, record in (("shop.orders", order), ("shop.refunds", refund)):
            shop.outbox.produce(topic, None, json.dumps(record).encode(), customer.encode())
        if number in KILLS:
            killed_s.append((KILLS[number], time.time()))
            os.kill(pid_of(shop, KILLS[number]), signal.SIGKILL)
        time.sleep(max(0.0, start_s + number / RATE - time.monotonic()))
    shop.outbox.flush()
    return killed_s


def pid_of(shop: Shop, job: str) -> int:
    """Find a role's process, or Redis."""
    if job != "redis":
        found = shop.pid_of(job)
        assert found is not None, f"{job} does not run"
        return found
    children = psutil.Process(shop.process.pid).children(recursive=True)
    return next(int(one.pid) for one in children if "redis" in one.name())


def names_of(shop: Shop) -> set[tuple[int, int]]:
    """Give the events that are answered."""
    return {(one["partition"], one["number"]) for one in answers_of(shop)[0]}


def answers_of(shop: Shop) -> tuple[list[dict[str, Any]], list[float]]:
    """Give all answers, partition after partition, and when Kafka took each."""
    messages = [m for p in range(PARTITIONS) for m in read_all(shop.kafka, "shop.predictions", p)]
    return [json.loads(m.value() or b"") for m in messages], [m.timestamp()[1] / 1e3 for m in messages]


def scores_of(pipeline: Pipeline) -> list[ScoresRecord]:
    return [decode_scores(m.value() or b"") for m in read_all(pipeline.kafka, "shop.scores", 0)]


def has_weighed(pipeline: Pipeline) -> bool:
    """Whether the selector has come to the last block."""
    blocks = [block for one in scores_of(pipeline) if one.order == "number" for block in one.blocks]
    found = read_standings(state_of(pipeline))
    return found is not None and found.time_us >= max(block.last_time_us for block in blocks)


def read_fire(shop: Shop, pipeline: Pipeline, killed_s: list[tuple[str, float]]) -> Fire:
    log = Log()
    log.values = [m.value() or b"" for m in read_all(pipeline.kafka, "shop.decisions", 0)]
    return Fire(shop, pipeline, killed_s, *answers_of(shop), scores_of(pipeline), log)


def test_each_order_is_answered_once_by_number(fire: Fire) -> None:
    """Numbers have no gap, a repeat names the same order, and no order has two numbers."""
    orders: dict[tuple[int, int], set[str]] = defaultdict(set)
    for answer in fire.answers:
        orders[answer["partition"], answer["number"]].add(answer["id"])
    ids = [id_ for found in orders.values() for id_ in found]

    assert sorted(ids) == sorted(f"o{number}" for number in range(ORDERS))
    for partition in range(PARTITIONS):
        numbers = sorted(number for place, number in orders if place == partition)
        assert numbers == list(range(len(numbers)))


def test_answers_go_on_whoever_is_killed(fire: Fire) -> None:
    """Only serve's own death is felt: of the others no answer knows."""
    moments_s = np.sort(np.array(fire.answered_s))
    gaps_s, began_s = np.diff(moments_s), moments_s[:-1]
    for job, at_s in fire.killed_s:
        gap_s = float(gaps_s[(moments_s[1:] > at_s) & (began_s < at_s + FELT_S)].max())
        sys.stdout.write(f"{job}: {gap_s:.2f} s without an answer\n")

        assert gap_s < (SERVE_GAP_S if job == "serve" else GAP_S), job


def test_the_decisions_are_those_of_a_selector_that_nobody_killed(fire: Fire) -> None:
    """Behind the same block, by the same bits."""
    settings = fire.pipeline.select
    assert settings is not None
    alone = Selector(Log(), settings, CANDIDATES, champion="prior")
    alone.read(fire.scores, 0, len(fire.scores))
    made = fire.decisions.promotions()

    assert [shared(one) for one in made] == [shared(one) for one in alone.log.promotions()]
    assert [(one.candidate, one.why) for one in made] == [("good", "evidence")]


def shared(decision: Promoted) -> Promoted:
    """Give a decision without its name, whom it follows by name, and its clock."""
    return msgspec.structs.replace(decision, id="", follows="", time_us=0)


def test_every_answer_is_what_the_version_it_names_gives(fire: Fire) -> None:
    """Repeats too, to the bit."""
    names = [column.name for column in features.columns(fire.pipeline)]
    found = rows(fire.pipeline, "features", is_from_start=True, is_following=False)
    vectors = {
        (row["partition"], row["number"]): [np.nan if row["features"][n] is None else row["features"][n] for n in names]
        for row in found
        if isinstance(row, dict) and row["kind"] == "event"
    }
    by_version: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for answer in fire.answers:
        by_version[f"{answer['model']}@{answer['version']}"].append(answer)
    untrained = sum(len(some) for version, some in by_version.items() if version.endswith("@0.0"))
    for version, some in by_version.items():
        if not version.endswith("@0.0"):
            x_BF = np.array([vectors[one["partition"], one["number"]] for one in some], np.float64)
            assert [one["probability"] for one in some] == said_by(fire.pipeline, version, x_BF)
    assert untrained < ORDERS / 10
    assert {version.partition("@")[0] for version in by_version} == set(CANDIDATES)


def said_by(pipeline: Pipeline, name: str, x_BF: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Ask a version about rows as P.features has them."""
    version, state = find(pipeline, name), state_of(pipeline)
    learner = read_version(state, version, key_for(version.kind, state), kind=version.kind)
    return [float(learner.predict(row_F[None])[0]) for row_F in x_BF]


def test_all_that_was_killed_is_back(fire: Fire) -> None:
    """The API tells who reigns, and Redis the last prediction of a customer."""
    host, port = fire.pipeline.serve.http or ("", 0)
    until(lambda: httpx.get(f"http://{host}:{port}/readyz").is_success, START_WAIT_S)
    models = httpx.get(f"http://{host}:{port}/models").json()["models"]
    last = max((one for one in fire.answers if one["key"] == "c1"), key=lambda one: one["number"])
    kept = httpx.get(f"http://{host}:{port}/keys/c1").json()

    assert [model["candidate"] for model in models if model["is_champion"]] == ["good"]
    assert kept["prediction"]["id"] == last["id"]
