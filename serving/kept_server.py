"""An embedded server that is started again when it dies, as the supervisor does it with roles."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from consumers.supervisor import FIRST_BACKOFF_S, HEALTHY_AFTER_S, LONGEST_BACKOFF_S, ending
from streams.errors import UnavailableError


class Server(Protocol):
    """What is kept up; `streams.embedded.EmbeddedRedis` in production."""

    name: str

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""

    def restart(self) -> None:
        """Start it after its end, where it answered before."""


class KeptServer:
    """Looks after one server that has been started.

    Args:
        server: the server.
        say: takes one line about a death or a restart.
        clock: monotonic seconds.

    Example:
        >>> kept = KeptServer(redis, print)  # doctest: +SKIP
        >>> kept.tend()  # doctest: +SKIP
    """

    def __init__(self, server: Server, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._say, self._clock = server, say, clock
        self._started_at = clock()
        self._retry_at: float | None = None
        self._deaths = 0  # in a row

    def tend(self) -> None:
        """Start the server again if it has died and it is time; call it a few times a second.

        A start takes about 0.1 s. One that fails is tried again, later each time: nothing waits for this server.
        """
        if self._retry_at is not None:
            if self._clock() >= self._retry_at:
                self._start()
        elif (code := self._server.exit_code()) is not None:
            if self._clock() - self._started_at >= HEALTHY_AFTER_S:
                self._deaths = 0
            self._put_off(f"embedded {self._server.name} {ending(code)}")

    def _start(self) -> None:
        try:
            self._server.restart()
        except UnavailableError as error:
            self._put_off(str(error))
            return
        self._started_at, self._retry_at = self._clock(), None

    def _put_off(self, reason: str) -> None:
        self._deaths += 1
        backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (self._deaths - 1))
        self._retry_at = self._clock() + backoff_s
        self._say(f"{reason}; starts again in {backoff_s:g} s")
