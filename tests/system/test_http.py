"""The HTTP API of a running pipeline, from outside: what is published, waited for, looked up and asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import schemathesis
import tritonclient.http as oip

from models.registry import read_version
from serving.client import ApiError, AsyncClient, Client
from serving.versions import find
from streams.features import columns
from streams.kafka import Reader
from streams.pipeline_file import read_pipeline
from tests.system.conftest import until
from tests.system.shop import ANSWER_WAIT_S, PARTITIONS, PIPELINE, ROOT, START_WAIT_S, Shop, running_shop

pytestmark = pytest.mark.timeout(300)
TOKEN = "a-token-of-the-tests"  # noqa: S105 - of a server that lives for these tests
FORWARD = {"authorization": f"Bearer {TOKEN}"}


def free_address() -> str:
    """An address on loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


class Http(Shop):
    """The running pipeline, with the address of its API."""

    address = ""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """One pipeline for all tests here."""
    address = free_address()
    declared = f'redis = "redis://nowhere:1/0"\nhttp = "{address}"\ntoken = "{TOKEN}"'
    text = PIPELINE.replace('redis = "redis://nowhere:1/0"', declared)
    text += '[models.river]\nkind = "river:naive_bayes.GaussianNB"\ncategories = "drop"\n'
    with running_shop(tmp_path_factory.mktemp("http"), text) as found:
        found.__class__ = Http
        assert isinstance(found, Http)
        found.address = address
        until(lambda: is_ready(address), START_WAIT_S)
        yield found


def is_ready(address: str) -> bool:
    """Whether the API follows the predictions."""
    try:
        return httpx.get(f"http://{address}/readyz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def client(shop: Http) -> Iterator[Client]:
    """A client of the API."""
    with Client(f"http://{shop.address}", TOKEN) as found:
        yield found


def order(name: str, customer: str = "c1") -> dict[str, Any]:
    """An event of the shop."""
    return {"order": name, "customer": customer, "amount": 10.0, "country": "NL"}


def ends(shop: Http, topic: str) -> dict[int, int]:
    """Where a topic ends."""
    reader = Reader(shop.kafka)
    try:
        return reader.end_offsets(topic, list(range(PARTITIONS)))
    finally:
        reader.close()


def test_who_waits_gets_the_prediction_that_is_on_the_topic(shop: Http, client: Client) -> None:
    answer = client.publish(order("http-1"), wait_s=30)

    assert answer == shop.answer("http-1")
    assert (answer["key"], answer["model"]) == ("c1", "logistic")


def test_who_does_not_wait_is_told_where_the_event_lies(shop: Http, client: Client) -> None:
    before = ends(shop, "shop.orders")
    where = client.publish(order("http-2"))

    assert (where["id"], where["topic"]) == ("http-2", "shop.orders")
    assert where["offset"] == before[where["partition"]]
    assert shop.answer("http-2")["id"] == "http-2"


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"order": "bad"}, "Object missing required field `customer`"),
        ({**order("bad"), "amount": "much"}, "Expected `float | null`, got `str` - at `$.amount`"),
    ],
)
def test_what_would_be_a_dead_letter_is_refused_and_not_published(
    shop: Http, client: Client, event: dict[str, Any], detail: str
) -> None:
    before = ends(shop, "shop.orders")
    with pytest.raises(ApiError) as refused:
        client.publish(event, wait_s=1)

    assert (refused.value.status, refused.value.detail) == (422, detail)
    assert ends(shop, "shop.orders") == before


def test_an_id_that_was_there_is_published_and_never_predicted(client: Client) -> None:
    client.publish(order("twice"), wait_s=30)
    with pytest.raises(ApiError) as late:
        client.publish(order("twice"), wait_s=0.3)

    assert late.value.status == 504
    assert late.value.answer["id"] == "twice"


def test_a_key_has_the_features_and_prediction_of_its_last_event(client: Client) -> None:
    for name in ("key-1", "key-2"):
        answer = client.publish(order(name, "cora"), wait_s=30)
    number = answer["number"]
    until(lambda: has_number(client, "cora", number), ANSWER_WAIT_S)
    found = client.features("cora", min_number=number)

    assert found["prediction"] == answer
    assert (found["features"]["amount"], found["features"]["orders_1h"]) == (10.0, 1.0)
    assert (found["number"], found["time_us"]) == (number, answer["time_us"])
    assert 0 <= found["age_s"] < 300
    with pytest.raises(ApiError, match=r"409: number \d+ is stored, 1000000 was asked for"):
        client.features("cora", min_number=1_000_000)
    with pytest.raises(ApiError, match="404: nothing is stored for this key"):
        client.features("nobody/at all")


def has_number(client: Client, key: str, number: int) -> bool:
    """Whether the store has come to an event."""
    try:
        return bool(client.features(key)["number"] >= number)
    except ApiError:
        return False


def test_a_real_client_of_the_open_inference_protocol_is_answered(shop: Http, client: Client) -> None:
    """Its values are those of the version it names, read from the state and asked directly."""
    client.publish(order("oip"), wait_s=30)
    shop.publish("shop.refunds", {"order": "oip", "customer": "c1", "refunded": True})
    until(lambda: client.models()[0]["version"] is not None, ANSWER_WAIT_S)
    asking = oip.InferenceServerClient(shop.address)
    inputs = [
        oip.InferInput("amount", [2, 1], "FP64"),
        oip.InferInput("country", [2, 1], "BYTES"),
        oip.InferInput("orders_1h", [2, 1], "FP64"),
    ]
    inputs[0].set_data_from_numpy(np.array([[25.0], [1e9]]), binary_data=False)
    inputs[1].set_data_from_numpy(np.array([["NL"], ["ZZ"]], object), binary_data=False)
    inputs[2].set_data_from_numpy(np.array([[3.0], [-4.0]]), binary_data=False)
    wanted = [oip.InferRequestedOutput("probability", binary_data=False)]

    assert asking.is_server_live(headers=FORWARD)
    assert asking.is_server_ready(headers=FORWARD)
    assert asking.is_model_ready("logistic", headers=FORWARD)
    metadata = asking.get_model_metadata("logistic", headers=FORWARD)
    assert [one["name"] for one in metadata["inputs"]] == ["amount", "country", "orders_1h"]
    found = asking.infer("logistic", inputs, outputs=wanted, headers=FORWARD)
    response = found.get_response()
    pipeline = read_pipeline(shop.file)
    version = find(pipeline, f"logistic@{response['model_version']}")
    learner = read_version(pipeline.state, version)
    X_BF = np.array([[25.0, code("NL"), 3.0], [1e9, code("ZZ"), -4.0]])
    assert [column.name for column in columns(pipeline)] == ["amount", "country", "orders_1h"]
    assert found.as_numpy("probability").tolist() == learner.predict(X_BF).tolist()
    assert [one["name"] for one in response["outputs"]] == ["probability"]


def test_any_candidate_may_be_asked(shop: Http) -> None:
    """Also one of River, which needs what other processes go without; whatever the client calls its JSON."""
    body = {"inputs": [{"name": "amount", "shape": [1], "datatype": "FP64", "data": [25.0]}]}
    for name in ("logistic", "river"):
        url = f"http://{shop.address}/v2/models/{name}/infer"
        form = {**FORWARD, "content-type": "application/x-www-form-urlencoded"}
        answer = httpx.post(url, content=json.dumps(body), headers=form, timeout=30)
        said = {one["name"]: one["data"] for one in answer.json()["outputs"]}

        assert 0.0 <= said["probability"][0] <= 1.0


def code(country: str) -> float:
    """A category's code, as `millrace tail` shows it in vectors."""
    from streams.computed_steps import category_number

    return category_number(country)


def test_the_league_is_what_the_command_writes(client: Client) -> None:
    found = [(one["candidate"], one["is_champion"]) for one in client.models()]

    assert found == [("logistic", True), ("river", False)]
    assert client.decisions() == []


def test_predictions_stream_to_several_readers(shop: Http, client: Client) -> None:
    """A synchronous and an asynchronous one see what others publish, in its order."""

    async def read() -> tuple[list[str], list[str]]:
        async with (
            AsyncClient(f"http://{shop.address}", TOKEN) as one,
            AsyncClient(f"http://{shop.address}", TOKEN) as two,
        ):
            readers = [asyncio.create_task(first(one, 3)), asyncio.create_task(first(two, 3))]
            await asyncio.sleep(0.5)  # both are listening: a stream has no answer before its first line
            for name in ("stream-1", "stream-2", "stream-3"):
                await one.publish(order(name, "sam"), wait_s=30)
            found = await asyncio.gather(*readers)
            return found[0], found[1]

    assert asyncio.run(read()) == (["stream-1", "stream-2", "stream-3"],) * 2


async def first(client: AsyncClient, count: int) -> list[str]:
    """The first predictions of one customer that are streamed."""
    found: list[str] = []
    async for answer in client.predictions():
        if answer["key"] == "sam":
            found.append(answer["id"])
        if len(found) == count:
            break
    return found


def test_a_wait_outlives_the_workers(shop: Http, client: Client) -> None:
    """Features and serve are killed before the event comes; who waits is answered when they are back."""
    for job in ("features", "serve"):
        pid = shop.pid_of(job)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not psutil.pid_exists(pid))  # type: ignore[misc]  # a default is no argument
    answer = client.publish(order("outlives"), wait_s=30)

    assert answer["id"] == "outlives"


def test_a_killed_api_comes_back_and_answers(shop: Http, client: Client) -> None:
    pid = shop.pid_of("api")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: is_ready(shop.address), ANSWER_WAIT_S)

    assert client.publish(order("after-the-kill"), wait_s=30)["id"] == "after-the-kill"


def test_nothing_is_told_without_the_token(shop: Http) -> None:
    asked = [httpx.get(f"http://{shop.address}{path}") for path in ("/models", "/docs", "/metrics", "/nothing")]

    assert [one.status_code for one in asked] == [401] * 4
    assert {one.headers["www-authenticate"] for one in asked} == {"Bearer"}
    assert TOKEN not in (shop.run_dir / "api.log").read_text()


def test_whatever_is_sent_is_no_server_error(shop: Http) -> None:
    """The OpenAPI document, fuzzed: every operation but the endless stream."""
    schema = schemathesis.openapi.from_url(f"http://{shop.address}/openapi.json", headers=FORWARD)
    asked, failed = 0, []
    for operation in schema.exclude(path="/predictions").get_all_operations():
        for case in generated(operation.ok(), 5):  # type: ignore[union-attr]  # ours is valid
            answer = case.call(headers=FORWARD)
            asked += 1
            if answer.status_code >= 500 and answer.status_code != 504:
                failed.append((case.method, case.formatted_path, answer.status_code, answer.text[:200]))

    assert failed == []
    assert asked > 40


def generated(operation: Any, count: int) -> list[Any]:
    """Some cases of one operation, good and bad ones."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    found: list[Any] = []
    modes = schemathesis.GenerationMode
    for mode in (modes.POSITIVE, modes.NEGATIVE):

        @seed(1)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def collect(case: Any) -> None:
            found.append(case)

        try:
            collect()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:
                raise
    return found


def test_the_document_names_every_route(shop: Http) -> None:
    document = httpx.get(f"http://{shop.address}/openapi.json", headers=FORWARD).json()

    assert {"/events", "/keys/{key}", "/models", "/decisions", "/pipeline", "/healthz", "/readyz", "/metrics"} <= set(
        document["paths"]
    )
    assert json.dumps(document).count("Open Inference Protocol") >= 1


def test_a_body_that_is_too_long_is_refused_before_it_is_read(shop: Http) -> None:
    answer = httpx.post(f"http://{shop.address}/events", content=b"x" * 1_100_000, headers=FORWARD)

    assert answer.status_code == 413
    assert answer.headers["x-request-id"]
    assert Path(shop.log).exists()


@pytest.mark.parametrize("path", ["/events", "/v2/models/logistic/infer"])
def test_a_body_in_parts_is_refused_as_soon_as_it_is_too_long(shop: Http, path: str) -> None:
    """Its length is not told beforehand; it is the application that reads it."""
    parts = (b" " * 65_536 for _ in range(17))
    answer = httpx.post(f"http://{shop.address}{path}", content=parts, headers=FORWARD)

    assert (answer.status_code, answer.json()["detail"][:22]) == (413, "the body is longer tha")
    assert answer.headers["x-request-id"]


@contextmanager
def another_api(shop: Http) -> Iterator[str]:
    """A second process of the API beside the first; gives its address."""
    address = free_address()
    file = shop.file.with_name("beside.toml")
    file.write_text(shop.file.read_text().replace(shop.address, address), encoding="utf-8")
    command = [sys.executable, "-m", "serving.cli", "run", "api", str(file)]
    with (shop.run_dir / "beside.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        until(lambda: is_ready(address), START_WAIT_S)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_two_apis_answer_side_by_side(shop: Http, client: Client) -> None:
    """Neither takes the other's predictions; and one starts though others have written to the topics it reads."""
    shop.outbox.produce("shop.decisions", 0, b"no JSON")
    shop.outbox.flush()
    with another_api(shop) as address, Client(f"http://{address}", TOKEN) as other:
        waiting = [(one, name) for name, one in [("one-1", client), ("two-1", other), ("one-2", client)]]
        answered = [one.publish(order(name, "tess"), wait_s=30)["id"] for one, name in waiting]
        until(lambda: other.models() == client.models(), ANSWER_WAIT_S)

        assert answered == ["one-1", "two-1", "one-2"]
        assert (other.decisions(), client.decisions()) == ([], [])
