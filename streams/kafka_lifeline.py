"""Brings back a client that has lost all its brokers. Part of the Kafka door.

The last broker of a cluster names no brokers at all, though topics, in what it answers while it shuts down. librdkafka
then lets go of every broker it knows, those of `bootstrap.servers` too, and asks nobody ever again (its issue 5301,
since 2.10; `metadata.recovery.strategy` does not help, for no broker is left to be found down). Who has read such an
answer is given `bootstrap.servers` anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from streams.librdkafka import lib

LOOK_EVERY_S, LOOK_SELDOM_S = 1.0, 60.0
_NO_CONTROLLER = -1  # in metadata: no broker is alive


class Lifeline:
    """Holds one client.

    Args:
        handle: the client's rd_kafka_t *; it has to outlive this.
        settings: the [kafka] table.
    """

    def __init__(self, handle: int, settings: Mapping[str, str]) -> None:
        self._handle = handle
        self._brokers = settings.get("bootstrap.servers", "").encode()
        self._wait_s, self._next_look = LOOK_EVERY_S, time.monotonic() + LOOK_EVERY_S

    def look(self) -> None:
        """Give the client its brokers again if it has lost them; for loops, hence at most every LOOK_EVERY_S.

        While that does not help, because nobody is there, it is done ever more seldom: the client keeps each list.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        is_lost = lib.rd_kafka_controllerid(self._handle, 0) == _NO_CONTROLLER
        self._wait_s = min(2 * self._wait_s, LOOK_SELDOM_S) if is_lost else LOOK_EVERY_S
        self._next_look = now + self._wait_s
        if is_lost:
            lib.rd_kafka_brokers_add(self._handle, self._brokers)  # those it has stay as they are
