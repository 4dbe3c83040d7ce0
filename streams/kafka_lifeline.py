"""Brings back a client that has lost all its brokers. Part of the Kafka door.

The last broker of a cluster names no brokers at all, though topics, in what it answers while it shuts down. librdkafka
then lets go of every broker it knows, those of `bootstrap.servers` too, and asks nobody ever again (its issue 5301,
since 2.10; `metadata.recovery.strategy` does not help, for no broker is left to be found down). Who has read such an
answer is given `bootstrap.servers` anew, as they are written: `client.dns.lookup` resolves none of them.

Such a client knows no controller. Not seen is the loss where only brokers of another listener are left, for one of them
is named as the controller then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from streams.kafka_errors import LOG
from streams.librdkafka import handle_of, lib

LOOK_EVERY_S, LOOK_SELDOM_S = 1.0, 10.0
_NO_CONTROLLER = -1  # no broker was alive when metadata was told, or none was told yet


class Lifeline:
    """Holds one client.

    Args:
        handle: gives the client's rd_kafka_t *, 0 if it is closed; nobody may close it while it is looked at.
        settings: the [kafka] table.
    """

    def __init__(self, handle: Callable[[], int], settings: Mapping[str, str]) -> None:
        self._handle = handle
        self._brokers = settings.get("bootstrap.servers", "")
        self._wait_s, self._next_look = LOOK_EVERY_S, time.monotonic() + LOOK_EVERY_S
        self._had_brokers = False

    @classmethod
    def of(cls, client: Any, settings: Mapping[str, str]) -> Self:
        """Hold a consumer, producer or admin client of the Python client."""
        return cls(partial(handle_of, client), settings)

    def look(self) -> None:
        """Give the client its brokers again if it has lost them; for loops, hence at most every LOOK_EVERY_S.

        While that does not help, because nobody is there, it is done ever more seldom: the client keeps each list.
        """
        now = time.monotonic()
        if now < self._next_look or not (handle := self._handle()):
            return
        is_lost = lib.rd_kafka_controllerid(handle, 0) == _NO_CONTROLLER
        self._wait_s = min(2 * self._wait_s, LOOK_SELDOM_S) if is_lost else LOOK_EVERY_S
        self._next_look = now + self._wait_s
        if is_lost:
            lib.rd_kafka_brokers_add(handle, self._brokers.encode())  # those it has stay as they are
            if self._had_brokers:
                LOG.warning("Kafka at %s: a client was told of no brokers and asks these again", self._brokers)
        self._had_brokers = not is_lost

    @contextmanager
    def held(self) -> Iterator[None]:
        """Look again and again, from another thread, while the client is in a call that waits for its brokers."""
        is_over = threading.Event()

        def hold() -> None:
            while not is_over.wait(LOOK_EVERY_S):
                self.look()

        thread = threading.Thread(target=hold, name="lifeline", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
