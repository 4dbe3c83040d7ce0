"""A client of the HTTP API, for programs: publish events, read predictions, look up keys and models.

with Client("http://127.0.0.1:8080") as client:
answer = client.publish({"flight": "UA1", "tail": "N1", ...}, wait_s=2.0)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from streams.errors import MillraceError

TIMEOUT_S = 10.0
EVENTS, PREDICTIONS, MODELS, DECISIONS = "/events", "/predictions", "/models", "/decisions"


class ApiError(MillraceError):
    """The API has refused: `status` is HTTP's, `detail` says why, `answer` is the whole of what it said."""

    def __init__(self, status: int, answer: Mapping[str, Any]) -> None:
        self.status, self.answer, self.detail = status, answer, str(answer.get("detail", ""))
        super().__init__(f"{status}: {self.detail}")


class LostError(ApiError):
    """Predictions were read too slowly, and this reader is told no more. Asking again gives those from then on."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(200, {**answer, "detail": answer["lost"]})

    def __str__(self) -> str:
        return self.detail


class Client:
    """Asks one API.

    Args:
        url: where it answers.
        token: that it asks for, if any.
        timeout_s: of every request; a wait for a prediction comes on top.
        transport: how requests travel, if not over the network.

    Example:
        >>> client = Client("http://127.0.0.1:8080")
        >>> client.models()  # doctest: +SKIP
        >>> client.close()
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.Client(base_url=url, headers=_headers(token), timeout=timeout_s, transport=transport)

    def publish(self, event: Mapping[str, Any], wait_s: float | None = None) -> dict[str, Any]:
        """Publish an event; gives where it lies, or with `wait_s` its prediction.

        Raises:
            ApiError: it is no event (422), was not predicted in time (504), or Kafka is away (503).
        """
        return _told(self._http.post(EVENTS, **_event(event, wait_s, self._timeout_s)))

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Give all predictions from now on, as they are made; close the iterator to stop.

        Raises:
            ApiError: it was refused.
            LostError: they were read more slowly than they were made; some are not told.
        """
        with self._http.stream("GET", PREDICTIONS, timeout=_endless(self._timeout_s)) as answer:
            if answer.is_error:
                answer.read()
                _told(answer)
            lines = _Lines()
            for part in answer.iter_bytes():
                for line in lines.take(part):
                    yield _prediction(line)

    def features(self, key: str, min_number: int | None = None) -> dict[str, Any]:
        """Give a key's last features and prediction.

        Raises:
            ApiError: nothing is stored (404), or what is is older than `min_number` (409).
        """
        return _told(self._http.get(_key(key), params=_least(min_number)))

    def models(self) -> list[dict[str, Any]]:
        """Give the league: each candidate with its newest version, None where there is none yet."""
        found: list[dict[str, Any]] = _told(self._http.get(MODELS))["models"]
        return found

    def decisions(self, most: int = 100) -> list[dict[str, Any]]:
        """Give the newest decisions, the newest first."""
        found: list[dict[str, Any]] = _told(self._http.get(DECISIONS, params={"most": most}))["decisions"]
        return found

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """Asks one API, from an event loop; see `Client`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(token), timeout=timeout_s, transport=transport)

    async def publish(self, event: Mapping[str, Any], wait_s: float | None = None) -> dict[str, Any]:
        """See `Client.publish`."""
        return _told(await self._http.post(EVENTS, **_event(event, wait_s, self._timeout_s)))

    async def predictions(self) -> AsyncIterator[dict[str, Any]]:
        """See `Client.predictions`."""
        async with self._http.stream("GET", PREDICTIONS, timeout=_endless(self._timeout_s)) as answer:
            if answer.is_error:
                await answer.aread()
                _told(answer)
            lines = _Lines()
            async for part in answer.aiter_bytes():
                for line in lines.take(part):
                    yield _prediction(line)

    async def features(self, key: str, min_number: int | None = None) -> dict[str, Any]:
        """See `Client.features`."""
        return _told(await self._http.get(_key(key), params=_least(min_number)))

    async def models(self) -> list[dict[str, Any]]:
        """See `Client.models`."""
        found: list[dict[str, Any]] = _told(await self._http.get(MODELS))["models"]
        return found

    async def decisions(self, most: int = 100) -> list[dict[str, Any]]:
        """See `Client.decisions`."""
        found: list[dict[str, Any]] = _told(await self._http.get(DECISIONS, params={"most": most}))["decisions"]
        return found

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Lines:
    """Cuts what comes into lines. Not httpx's: a text may hold what Unicode takes for a line's end, such as U+2028."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, part: bytes) -> list[bytes]:
        """Give the lines that have ended."""
        *whole, self._rest = (self._rest + part).split(b"\n")
        return whole


def _prediction(line: bytes) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.json.decode(line)
    if "lost" in told and "id" not in told:  # which every prediction has
        raise LostError(told)
    return told


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _event(event: Mapping[str, Any], wait_s: float | None, timeout_s: float) -> dict[str, Any]:
    params = {} if wait_s is None else {"wait": f"{round(wait_s * 1000)}ms"}
    body, headers = msgspec.json.encode(event), {"content-type": "application/json"}
    return {"content": body, "params": params, "headers": headers, "timeout": timeout_s + (wait_s or 0.0)}


def _endless(timeout_s: float) -> httpx.Timeout:
    """Predictions may be far apart."""
    return httpx.Timeout(timeout_s, read=None)


def _key(key: str) -> str:
    return f"/keys/{quote(key, safe='')}"


def _least(min_number: int | None) -> dict[str, int]:
    return {} if min_number is None else {"min_number": min_number}


def _told(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        told = {"detail": answer.text[:200]}
    if answer.is_error:
        raise ApiError(answer.status_code, told if isinstance(told, dict) else {"detail": str(told)})
    found: dict[str, Any] = told
    return found
