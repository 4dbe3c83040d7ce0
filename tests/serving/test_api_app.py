"""The HTTP API's application behind its guard, with nothing but models in memory behind it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import msgspec
import pytest

from serving import api, api_guard
from serving.answer_board import LOST, MOST_BEHIND, AnswerBoard, Listener
from serving.api import Doors, make_app
from serving.api_doors import LastRow
from serving.api_guard import Guard
from streams.errors import StoreError, TopicError
from streams.metrics import RoleMetrics
from tests import rows

INFER = "/v2/models/prior/infer"
AMOUNT = {"name": "amount", "shape": [1], "datatype": "FP64", "data": [25.0]}


class Models:
    """A candidate that always says the same."""

    names = ("prior",)

    def version(self, name: str) -> str:
        return "0.0"


class Throne:
    def champion(self) -> str:
        return "prior"


def ask(method: str, path: str, content: Any = None, doors: dict[str, Any] | None = None) -> httpx.Response:
    """Send one request through guard and application."""
    parts = dict.fromkeys(Doors._fields, None) | {"models": Models(), "throne": Throne(), **(doors or {})}
    metrics = RoleMetrics("api", "p")
    guard = Guard(make_app(rows.pipeline(), Doors(**cast("Any", parts)), metrics), metrics, None)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(guard)  # a second beginning of an answer fails in it
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, content=content)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("body", "place", "kind"),
    [
        ({"inputs": [{**AMOUNT, "name": math.nan}]}, ["inputs", 0, "name"], "string_type"),
        ({"inputs": [{**AMOUNT, "shape": [math.nan]}]}, ["inputs", 0, "shape", 0], "finite_number"),
        ({"inputs": "\ud800"}, ["inputs"], "list_type"),
        ({"inputs": [AMOUNT], "id": "\ud800"}, ["id"], "string_unicode"),
        ({"inputs": [{**AMOUNT, "name": "\ud800"}]}, ["inputs", 0, "name"], "string_unicode"),
    ],
)
def test_a_body_that_does_not_fit_is_told_where_and_why(body: Any, place: list[Any], kind: str) -> None:
    """Also where it holds what no answer could repeat: NaN, and half a character."""
    answer = ask("POST", INFER, json.dumps(body).encode())
    found = answer.json(parse_constant=pytest.fail)["detail"][0]

    assert (answer.status_code, found["loc"], found["type"]) == (422, ["body", *place], kind)
    assert found.keys() == {"loc", "msg", "type"}


def test_a_place_that_the_client_has_named_is_told_in_ascii() -> None:
    answer = ask("POST", INFER, json.dumps({"inputs": [AMOUNT], "outputs": [{"\ud800": 1}]}).encode())

    assert answer.status_code == 422
    assert answer.content.isascii()


async def _parts(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * 4_096


@pytest.mark.parametrize("path", ["/events", INFER])
def test_a_body_in_parts_that_grows_too_long_is_413(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is the application that reads it."""
    monkeypatch.setattr(api_guard, "MOST_BODY_BYTES", 10_000)
    answer = ask("POST", path, _parts(3))

    assert (answer.status_code, answer.json()) == (
        413,
        {"detail": "the body is longer than the 10000 bytes that are taken"},
    )
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/events", INFER])
def test_a_body_that_stalls_is_408(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_guard, "BODY_S", 0.01)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    answer = ask("POST", path, stalling())

    assert (answer.status_code, answer.json()) == (408, {"detail": "the body did not come within 0.01 s"})


def test_a_stream_that_a_reader_was_too_slow_for_says_so_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After what it was still given."""

    class Board(AnswerBoard):
        def listen(self) -> Listener:
            listener = super().listen()
            self.post([b'{"id":"a"}'])
            self.post([b'{"id":"b"}'] * MOST_BEHIND)
            return listener

    monkeypatch.setattr(api, "AnswerBoard", Board)
    answer = ask("GET", "/predictions")

    assert answer.status_code == 200
    assert [json.loads(line) for line in answer.content.split(b"\n")[:-1]] == [{"id": "a"}, {"lost": LOST}]


class Keys:
    """An online store of one key."""

    is_there = True

    def __init__(self, found: LastRow | StoreError | None) -> None:
        self.found = found

    async def read(self, key: str) -> LastRow | None:
        if isinstance(self.found, StoreError):
            raise self.found
        return self.found

    async def close(self) -> None:
        """Nothing is open."""


LAST = LastRow(7, 0, 1_700_000_000_000_000, msgspec.Raw(b'{"amount":1.0}'), msgspec.Raw(b'{"id":"a"}'))


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (LAST, 200, {"key": "c1", "number": 7, "features": {"amount": 1.0}, "prediction": {"id": "a"}}),
        (None, 404, {"detail": "nothing is stored for this key"}),
        (StoreError("refused", "it is not ours"), 503, {"detail": "it is not ours"}),
    ],
)
def test_a_key_is_found_or_not_or_cannot_be_read(found: Any, status: int, said: dict[str, Any]) -> None:
    answer = ask("GET", "/keys/c1", doors={"keys": Keys(found)})

    assert answer.status_code == status
    assert answer.json().items() >= said.items()


def test_what_cannot_be_done_now_is_503_with_one_line() -> None:
    """Whichever error of ours it is."""

    class Broken:
        def newest(self, most: int) -> None:
            raise TopicError("topic p.decisions does not exist (any more)")

    answer = ask("GET", "/decisions", doors={"decisions": Broken()})

    assert (answer.status_code, answer.json()) == (503, {"detail": "topic p.decisions does not exist (any more)"})
