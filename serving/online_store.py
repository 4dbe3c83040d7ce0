"""The online store: the last feature vector and prediction of every key in Redis, written behind the answers.

It is a cache. Serving hands its rows over and goes on, whatever Redis does; a thread writes them, of each key the
newest. Redis refuses what is older than what it holds, so that a restarted or zombie worker does no harm, and a Redis
that has come back empty fills again as events come. docs/online-store.md has the format and what failures do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from serving.breaker import Breaker
from serving.key_rows import KeyRows
from serving.key_script import Written
from serving.pending_keys import PendingKeys
from streams.errors import StoreError
from streams.metrics import RoleMetrics

BATCH_KEYS = 1_024  # of an exchange with Redis: 10 ms
APART_S = 0.01  # between rounds: what comes meanwhile goes together, of each key the newest
IDLE_S = 0.5  # how long a thread without rows sleeps
TIDY_S = 0.25  # how often what waits is gone through while nothing is written, so that serve need not do it
STOP_WAIT_S = 3.0  # for the last rows; a Redis in trouble does not hold up the end for longer

LOG = logging.getLogger("serving.online_store")


class Door(Protocol):
    """What the store needs of Redis; `RedisDoor` in production."""

    address: str

    def write(self, rows: KeyRows) -> Written:
        """Write a batch; after a `StoreError` any part of it may be written."""

    def close(self) -> None:
        """Let go of the connection."""


class OnlineStore:
    """Writes key rows to Redis, in a thread of its own from `start` on. What is put before that goes nowhere.

    Args:
        door: to Redis.
        metrics: the role's metrics.
        clock: monotonic seconds.
    """

    def __init__(self, door: Door, metrics: RoleMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._metrics = metrics
        self._clock = clock
        self._breaker = Breaker(clock)
        self._pending = PendingKeys(metrics.stored)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        metrics.store_open(is_open=False)
        metrics.store_pending(lambda: self._pending.rows)

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="online store", daemon=True)
        self._thread.start()

    def put(self, rows: KeyRows) -> None:
        """Take rows to be written soon; never waits for Redis. Called by serve for every batch it answers."""
        if self._thread is not None:
            self._pending.put(rows)

    def close(self) -> None:
        """Write what waits, if Redis takes it, and stop."""
        self._stopping.set()
        self._pending.close()
        if self._thread is not None:
            self._thread.join(STOP_WAIT_S)
            if not self._thread.is_alive():
                self._door.close()

    def _run(self) -> None:
        try:
            self._write_until_stopped()
        except Exception:
            LOG.exception("online store: writing has ended; answers go on")
            self._metrics.store_failed("ended")
            self._metrics.store_open(is_open=True)

    def _write_until_stopped(self) -> None:
        while not self._stopping.is_set():
            if self._breaker.wait_s:
                self._stopping.wait(min(TIDY_S, self._breaker.wait_s))
                self._pending.tidy()
                continue
            began = self._clock()
            self.round(IDLE_S)
            self._stopping.wait(max(0.0, APART_S - (self._clock() - began)))
        if not self._breaker.is_open:
            self.round(0.0)

    def round(self, wait_s: float) -> None:
        """Write what waits, or wait so long for something; stops at a failure."""
        rows = self._pending.take(wait_s)
        if rows is None:
            return
        for start in range(0, rows.size, BATCH_KEYS):
            if not self._write(rows.part(start, min(start + BATCH_KEYS, rows.size))):
                self._pending.give_back(rows.part(start, rows.size))
                return

    def _write(self, rows: KeyRows) -> bool:
        began = self._clock()
        try:
            done = self._door.write(rows)
        except StoreError as error:
            self._note_failure(error)
            return False
        self._metrics.store_written(self._clock() - began)
        for outcome, count in done._asdict().items():
            if count:
                self._metrics.stored(outcome, count)
        if self._breaker.is_open:
            LOG.warning("online store: %s takes writes again, after %.1f s", self._door.address, self._breaker.open_s)
            self._metrics.store_open(is_open=False)
        self._breaker.succeeded()
        return True

    def _note_failure(self, error: StoreError) -> None:
        self._metrics.store_failed(error.reason)
        if self._breaker.failed():
            self._metrics.store_open(is_open=True)
            LOG.warning("online store: %s; answers go on, the newest rows wait for it", error)
