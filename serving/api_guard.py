"""What stands before every request of the HTTP API: request ids, who may ask, limits of size and time, metrics.

A plain ASGI layer (https://asgi.readthedocs.io), so that it costs microseconds and holds for every route there will be.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from streams.metrics import RoleMetrics
from streams.pipeline_http import is_loopback

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 1_048_576
BODY_S = 10.0  # a client that takes longer to send its body is let go
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # who keeps the process up has no token
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
UNKNOWN_ROUTE = "none"  # in metrics: no path that was only asked for may become a series
BODIES = frozenset({"POST", "PUT", "PATCH"})
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class RefusedRequestError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """Wraps an application.

    Args:
        app: what is guarded.
        metrics: counts answers.
        token: that requests must show; None: none.
        clock: monotonic seconds.
    """

    def __init__(
        self, app: App, metrics: RoleMetrics, token: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._metrics, self._clock = app, metrics, clock
        self._is_local = token is None  # the pipeline file allows that on loopback only
        self._token = None if token is None else b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, headers = self._clock(), dict(scope["headers"])
        named = headers.get(b"x-request-id", b"")
        request_id = named if REQUEST_ID.fullmatch(named) else uuid.uuid4().hex.encode()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        if scope["method"] in BODIES:  # whatever a client calls it (curl: a form): nothing but JSON is taken here
            own = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope["headers"] = [*own, (b"content-type", b"application/json")]
        try:
            self._check(scope["path"], headers)
            await self._app(scope, _Body(receive, headers).receive, answer)
        except RefusedRequestError as refused:
            await _refuse(refused, answer)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.answered(route, method, status, self._clock() - began)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise RefusedRequestError(403, "a web page of another origin may not ask in its reader's name")
        if self._is_local and not is_loopback(_name(host)):
            raise RefusedRequestError(403, "without a token only this machine is answered, by its own name")
        if self._token is not None and path not in OPEN_PATHS:
            shown = headers.get(b"authorization", b"")
            if not hmac.compare_digest(shown, self._token):
                raise RefusedRequestError(401, "the token is missing or wrong: Authorization: Bearer <token>")


def _name(host: bytes) -> str:
    """Give a Host header's name without its port.

    >>> _name(b"[::1]:8080"), _name(b"localhost:8080")
    ('::1', 'localhost')
    """
    text = host.decode("latin-1")
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


class _Body:
    """A request's body, as long as it is not too long and does not take too long."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes]) -> None:
        self._receive, self._bytes, self._is_whole = receive, 0, False
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > MOST_BODY_BYTES:
            raise RefusedRequestError(413, f"the body has {int(length)} bytes, at most {MOST_BODY_BYTES} are taken")

    async def receive(self) -> Message:
        """Take the next part."""
        if self._is_whole:  # what comes behind it is that the client has gone, however long that takes
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_S):
                message = await self._receive()
        except TimeoutError:
            raise RefusedRequestError(408, f"the body did not come within {BODY_S:g} s") from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BODY_BYTES:
            raise RefusedRequestError(413, f"the body is longer than the {MOST_BODY_BYTES} bytes that are taken")
        self._is_whole = not message.get("more_body", False)
        return message


async def _refuse(refused: RefusedRequestError, send: Send) -> None:
    body = msgspec.json.encode({"detail": refused.detail})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
