"""What stands before the HTTP API, over an application that says yes to everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serving import api_guard
from serving.api_guard import Guard
from streams.metrics import RoleMetrics

TOKEN = "sixteen-and-more"  # noqa: S105 - of a server that lives in this process


async def _yes(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def ask(
    token: str | None = None,
    path: str = "/models",
    host: str = "localhost:8080",
    metrics: RoleMetrics | None = None,
    **request: Any,
) -> httpx.Response:
    """Send one request through the guard."""

    async def send() -> httpx.Response:
        guard = Guard(_yes, metrics or RoleMetrics("api", "p"), token)
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(request.pop("method", "GET"), path, **request)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("shown", "status"),
    [(None, 401), ("Bearer wrong", 401), (TOKEN, 401), (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 401)],
)
def test_only_the_token_opens(shown: str | None, status: int) -> None:
    headers = {} if shown is None else {"authorization": shown}

    assert ask(TOKEN, headers=headers).status_code == status


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 200), ("/readyz/x", 401), ("/docs", 401)])
def test_who_keeps_the_process_up_needs_no_token(path: str, status: int) -> None:
    assert ask(TOKEN, path).status_code == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8080", None, 200),
        ("127.0.0.1:8080", None, 200),
        ("[::1]:8080", None, 200),
        ("evil.example:8080", None, 403),
        ("localhost:8080", "http://localhost:8080", 200),
        ("localhost:8080", "https://evil.example", 403),
        ("localhost:8080", "null", 403),
    ],
)
def test_a_web_page_elsewhere_cannot_act_in_its_readers_name(host: str, origin: str | None, status: int) -> None:
    """Not by a form, nor by a name of its own that leads to this machine."""
    headers = {} if origin is None else {"origin": origin}

    assert ask(host=host, headers=headers).status_code == status


def test_with_a_token_any_name_of_the_machine_will_do() -> None:
    assert ask(TOKEN, host="api.example", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("named", ["from-the-client", "a" * 129, "two words", None])
def test_every_answer_has_a_request_id(named: str | None) -> None:
    """The client's own, if it is a sound one."""
    headers = {} if named is None else {"x-request-id": named}
    found = ask(headers=headers).headers["x-request-id"]

    assert (found == named) == (named == "from-the-client")
    assert 1 <= len(found) <= 128


def test_a_body_is_taken_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its length is told beforehand or not."""
    monkeypatch.setattr(api_guard, "MOST_BODY_BYTES", 10)

    async def parts(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"12345"

    told = [ask(method="POST", content=b"x" * size).status_code for size in (10, 11)]
    found = [ask(method="POST", content=parts(count)).status_code for count in (2, 3)]

    assert (told, found) == ([200, 413], [200, 413])


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_guard, "BODY_S", 0.01)

    async def never() -> AsyncIterator[bytes]:
        yield b"1"
        await asyncio.sleep(5)

    async def receive() -> Any:
        await asyncio.sleep(5)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/events", "method": "POST", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(_yes, RoleMetrics("api", "p"), None)(scope, receive, send))

    assert sent[0]["status"] == 408


def test_a_body_in_drops_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for the whole of it: each part may be in time."""
    monkeypatch.setattr(api_guard, "BODY_S", 0.05)

    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b"1"
            await asyncio.sleep(0.01)

    assert ask(method="POST", content=drops()).status_code == 408


def test_an_answer_that_has_begun_goes_on_whatever_becomes_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of predictions listens for the end of the connection, and a second answer would break it."""
    monkeypatch.setattr(api_guard, "BODY_S", 0.01)
    monkeypatch.setattr(api_guard, "MOST_BODY_BYTES", 1)
    heard, sent = [{"type": "http.request", "body": b"12", "more_body": True}], []

    async def receive() -> Any:
        if heard:
            return heard.pop()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "more_body": True})

    scope = {"type": "http", "path": "/predictions", "method": "GET", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(stream, RoleMetrics("api", "p"), None)(scope, receive, send))

    assert sent == ["http.response.start", "http.response.body"]


def test_answers_are_counted_by_route_never_by_path() -> None:
    """A path that was only asked for may not become a series."""
    metrics = RoleMetrics("api", "p")
    ask(path="/whatever/1", metrics=metrics)
    ask(path="/whatever/2", metrics=metrics, method="BREW")
    base = {"pipeline": "p", "role": "api", "candidate": "", "route": "none", "status": "200"}

    def counted(method: str) -> float | None:
        return metrics.registry.get_sample_value("millrace_http_requests_total", {**base, "method": method})

    assert (counted("GET"), counted("other")) == (1.0, 1.0)
