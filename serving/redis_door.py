"""The door to Redis: one connection that writes key rows in batches and reads a key back, and several that only read.

Only the script is used to write (key_script.py). Redis forgets scripts when it restarts: what it does not know is told
once more, and the batch is sent again, which changes nothing where it had arrived.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.key_rows import KeyRows
from serving.key_script import SCRIPT, Form, Written, key_prefix, render_calls
from streams.errors import PipelineError, StoreError

TIMEOUT_S = 1.0  # of connecting, and of every answer: a batch takes 10 ms, so a second is a Redis in trouble
_OPTIONS: Any = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "protocol": 2}
MOST_READING = 32  # connections that a reader opens; who finds none free waits for one

UNREACHABLE, SLOW, LOGIN, FULL, REFUSED = "unreachable", "slow", "login", "full", "refused"


class Stored(NamedTuple):
    """What Redis holds for a key; `lives_s` is None for a key that stays for ever."""

    fields: dict[str, bytes]
    lives_s: float | None


class RedisDoor:
    """One connection to Redis, made on first use and again after an error. Not thread-safe.

    Args:
        url: `[serve] redis`.
        form: what the calls of the pipeline share; not needed for reading.

    Raises:
        PipelineError: the URL has options that the client does not know.

    Example:
        >>> RedisDoor("redis://:secret@127.0.0.1:6379/0").address
        'redis://127.0.0.1:6379/0'
    """

    def __init__(self, url: str, form: Form | None = None) -> None:
        self.address = shown_url(url)
        self._form = form
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                retry=Retry(NoBackoff(), 0),  # when to try again is for the breaker to say
                **_OPTIONS,
            )
            self._connection: Any = self._pool.make_connection()
        except (TypeError, ValueError) as error:
            raise _no_such_url(error) from None

    def write(self, rows: KeyRows) -> Written:
        """Write rows, at most one of each key, in one pipelined exchange.

        Raises:
            StoreError: some or all of them may not have been written.
        """
        assert self._form is not None  # noqa: S101 - a door that only reads has none
        calls, count = render_calls(rows, self._form)
        try:
            answers = self._exchange(calls, count)
            if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
                self._connection.send_command("SCRIPT LOAD", SCRIPT)
                self._connection.read_response()
                answers = self._exchange(calls, count)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        except (redis.exceptions.RedisError, OSError) as error:
            raise _translated(self.address, error) from None
        written, older = (sum(column) for column in zip(*answers, strict=True))
        return Written(written, older, rows.size - written - older)

    def _exchange(self, calls: memoryview, count: int) -> list[Any]:
        """Send calls and take all their answers, errors among them.

        When one does not come the client closes the connection, so that it is not taken for another's later.
        """
        self._connection.send_packed_command([calls])
        answers: list[Any] = []
        for _ in range(count):
            try:
                answers.append(self._connection.read_response())
            except redis.exceptions.ResponseError as error:
                answers.append(error)
        return answers

    def read(self, pipeline: str, key: str) -> Stored | None:
        """Give what is held for a key, None if there is nothing.

        Raises:
            StoreError: Redis cannot be asked, or the key holds something that is not ours.
        """
        name = key_prefix(pipeline) + key
        try:
            client: Any = redis.Redis(connection_pool=self._pool)
            found, lives_ms = client.hgetall(name), client.pttl(name)
        except (redis.exceptions.RedisError, OSError) as error:
            raise _translated(self.address, error) from None
        fields = {field.decode(): value for field, value in found.items()}
        return Stored(fields, None if lives_ms < 0 else lives_ms / 1e3) if fields else None

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.disconnect()
        self._pool.disconnect()


class KeyReader:
    """Reads keys for an event loop, which goes on meanwhile; connections are made as they are needed.

    Args:
        url: `[serve] redis`.

    Raises:
        PipelineError: the URL has options that the client does not know.
    """

    def __init__(self, url: str) -> None:
        self._address = shown_url(url)
        try:
            self._pool = redis.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=MOST_READING,
                timeout=TIMEOUT_S,
                retry=AsyncRetry(NoBackoff(), 0),
                **_OPTIONS,
            )
            cast("Any", self._pool).make_connection()  # refuses what it does not know; nothing is connected yet
        except (TypeError, ValueError) as error:
            raise _no_such_url(error) from None
        self._client: Any = redis.asyncio.Redis(connection_pool=self._pool)

    async def read(self, pipeline: str, key: str) -> dict[str, bytes] | None:
        """Give the fields that are held for a key, None if there is nothing.

        Raises:
            StoreError: Redis cannot be asked, or the key holds something that is not ours.
        """
        try:
            found = await self._client.hgetall(key_prefix(pipeline) + key)
        except (redis.exceptions.RedisError, OSError) as error:
            raise _translated(self._address, error) from None
        return {field.decode(): value for field, value in found.items()} or None

    async def close(self) -> None:
        """Let go of the connections."""
        await self._pool.disconnect()


def _no_such_url(error: Exception) -> PipelineError:
    return PipelineError([f"[serve] redis: the client takes no such URL: {error}"])


def _translated(address: str, error: Exception) -> StoreError:
    """Say what is wrong in one line that holds no secret."""
    text = str(error).rstrip(".")
    if isinstance(error, redis.exceptions.AuthenticationError):
        return StoreError(LOGIN, f"{address} refuses the name or password of [serve] redis: {text}")
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        return StoreError(SLOW, f"{address} does not answer within {TIMEOUT_S:g} s")
    if isinstance(error, redis.exceptions.ConnectionError | OSError):
        return StoreError(UNREACHABLE, f"{address} cannot be reached: {text}")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command not allowed" in text:
        return StoreError(FULL, f"{address} is full: raise its maxmemory, or let it evict (volatile-ttl)")
    return StoreError(REFUSED, f"{address} refuses: {text}")


def shown_url(url: str) -> str:
    """Give a URL as it may be shown: without user, password and options.

    >>> shown_url("rediss://ann:secret@cache:6380/2?ssl_ca_certs=/etc/ca.pem")
    'rediss://cache:6380/2'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"
