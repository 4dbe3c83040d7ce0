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
from starlette.exceptions import HTTPException

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


class RefusedRequestError(HTTPException):
    """A request that goes no further.

    Where the application was reading the body it meets an error that it knows and answers; the guard answers the rest.
    """


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
        began, headers, body = self._clock(), dict(scope["headers"]), _Body(receive)
        named = headers.get(b"x-request-id", b"")
        request_id = named if REQUEST_ID.fullmatch(named) else uuid.uuid4().hex.encode()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, body.is_answered = message["status"], True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        if scope["method"] in BODIES:  # whatever a client calls it (curl: a form): nothing but JSON is taken here
            own = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope["headers"] = [*own, (b"content-type", b"application/json")]
        try:
            self._check(scope["path"], headers)
            await self._app(scope, body.receive, answer)
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
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > MOST_BODY_BYTES:
            raise RefusedRequestError(413, f"the body has {int(length)} bytes, at most {MOST_BODY_BYTES} are taken")


def _name(host: bytes) -> str:
    """Give a Host header's name without its port.

    >>> _name(b"[::1]:8080"), _name(b"localhost:8080")
    ('::1', 'localhost')
    """
    text = host.decode("latin-1")
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


class _Body:
    """A request's body, as long as it is not too long and does not take too long.

    Attributes:
        is_answered: the answer has begun; who still listens wants to hear that the client has gone, and is told no more
            of a body that nobody reads.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._bytes, self._is_whole = receive, 0, False
        self._until_s: float | None = None
        self.is_answered = False

    async def receive(self) -> Message:
        """Take the next part."""
        if self._is_whole:  # what comes behind it is that the client has gone, however long that takes
            return await self._receive()
        message = await self._in_time()
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BODY_BYTES and not self.is_answered:
            raise RefusedRequestError(413, f"the body is longer than the {MOST_BODY_BYTES} bytes that are taken")
        self._is_whole = not message.get("more_body", False)
        return message

    async def _in_time(self) -> Message:
        if self._until_s is None:
            self._until_s = asyncio.get_running_loop().time() + BODY_S  # of the whole: parts may come for ever
        try:
            async with asyncio.timeout_at(self._until_s):
                return await self._receive()
        except TimeoutError:
            if not self.is_answered:
                raise RefusedRequestError(408, f"the body did not come within {BODY_S:g} s") from None
        self._is_whole = True
        return await self._receive()


async def _refuse(refused: RefusedRequestError, send: Send) -> None:
    body = msgspec.json.encode({"detail": refused.detail})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status_code == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
