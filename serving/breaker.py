"""A circuit breaker: after several failures in a row nothing is tried until a back-off has passed."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES_IN_A_ROW = 3  # one may be a connection that was closed while idle
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0  # so long, at most, goes unnoticed that it works again


class Breaker:
    """Says when something that fails may be tried.

    Args:
        clock: monotonic seconds.

    Example:
        >>> now = 0.0
        >>> breaker = Breaker(lambda: now)
        >>> [breaker.failed() for _ in range(4)], breaker.wait_s
        ([False, False, True, False], 1.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._opened_s = self._retry_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last tries have failed, and the next one is only to see whether it works again."""
        return self._failures >= FAILURES_IN_A_ROW

    @property
    def wait_s(self) -> float:
        """How long nothing is to be tried from now on; 0 if it may."""
        return max(0.0, self._retry_s - self._clock()) if self.is_open else 0.0

    @property
    def open_s(self) -> float:
        """How long it has been open."""
        return self._clock() - self._opened_s if self.is_open else 0.0

    def failed(self) -> bool:
        """Note a failure; gives whether this one has opened it."""
        self._failures += 1
        if not self.is_open:
            return False
        beyond = min(self._failures - FAILURES_IN_A_ROW, 16)  # 2**16 is far beyond the longest
        self._retry_s = self._clock() + min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**beyond)
        if beyond == 0:
            self._opened_s = self._clock()
        return beyond == 0

    def succeeded(self) -> None:
        """Note that it worked: it is closed."""
        self._failures = 0
