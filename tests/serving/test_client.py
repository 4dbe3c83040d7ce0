"""The client of the HTTP API, synchronous and not, on answers that the test has written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from serving.client import ApiError, AsyncClient, Client, LostError

LOST = {"lost": "this reader was too far behind"}


class Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body as it comes over a network: cut anywhere."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


def read(parts: list[bytes], *, is_async: bool, status: int = 200) -> tuple[list[Any], ApiError | None]:
    """Read predictions from a body of such parts; gives them, and what was raised at the end."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=Parts(parts)))
    found: list[Any] = []

    async def read_on() -> None:
        async with AsyncClient("http://localhost", transport=transport) as client:
            async for one in client.predictions():
                found.append(one)  # noqa: PERF401 - what came before an error is looked at, too

    try:
        if is_async:
            asyncio.run(read_on())
        else:
            with Client("http://localhost", transport=transport) as client:
                found.extend(client.predictions())
    except ApiError as error:
        return found, error
    return found, None


@pytest.mark.parametrize("is_async", [False, True])
def test_predictions_are_lines_whatever_is_in_them(*, is_async: bool) -> None:
    """However the network cuts them; and a text may hold what Unicode takes for a line's end."""
    sent: list[Any] = [{"id": "a\u2028b\x85c"}, {"id": "d", "lost": 1}]
    body = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in sent)

    assert read([body[at : at + 3] for at in range(0, len(body), 3)], is_async=is_async) == (sent, None)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_reader_that_was_let_go_is_told(*, is_async: bool) -> None:
    """After what it was still given; a stream that only ended would look like one without events."""
    found, error = read([b'{"id":"a"}\n', json.dumps(LOST).encode() + b"\n"], is_async=is_async)

    assert found == [{"id": "a"}]
    assert isinstance(error, LostError)
    assert (str(error), error.status, error.answer["lost"]) == (LOST["lost"], 200, LOST["lost"])


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_that_is_refused_says_why(*, is_async: bool) -> None:
    found, error = read([b'{"detail":"the token', b' is missing"}'], is_async=is_async, status=401)

    assert (found, str(error)) == ([], "401: the token is missing")
