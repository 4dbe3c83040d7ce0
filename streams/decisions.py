"""P.decisions as it goes on: who reigns, followed by whoever serves, learns or shows it.

The succession is the fold of `reign.py`, read to the end at the start and from then on as records come, without
waiting. It says who is to answer; whether a version of that candidate can answer is for serve to find out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from streams.kafka import BEGINNING, Reader
from streams.pipeline import Pipeline
from streams.reign import Reign, first_reign, followed, promotion_in

FOLLOW_EVERY_US = 200_000  # a look costs some microseconds, but a tick comes every 50 ms
MOST_RECORDS = 1_000  # in one look


class DecisionLog(Protocol):
    """What a succession needs of Kafka; the tests have one in memory."""

    def read_new(self) -> list[bytes]:
        """Give records that have come and were not given before, in order, without waiting."""

    def read_to_end(self) -> list[bytes]:
        """Give all records not given before, up to the end as it is now."""


class KafkaDecisionLog:
    """P.decisions over Kafka, from its first record on, outside any group."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._topic = f"{pipeline.name}.decisions"
        self._reader = Reader(pipeline.kafka)
        self._reader.assign(self._topic, {0: BEGINNING})
        self._position = 0

    def read_new(self) -> list[bytes]:
        """Give what was fetched; another look finds what comes later."""
        return self._read(0.0)

    def read_to_end(self) -> list[bytes]:
        """Read to the end as the broker has it now.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        end = self._reader.end_offsets(self._topic, [0])[0]
        found: list[bytes] = []
        while self._position < end:
            found += self._read(0.1)
        return found

    def _read(self, wait_s: float) -> list[bytes]:
        messages = self._reader.poll(MOST_RECORDS, wait_s)
        last = messages[-1].offset() + 1 if messages else 0
        self._position = max(self._position, last, self._reader.reached(self._topic, 0))
        return [message.value() or b"" for message in messages]

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()


class Succession:
    """The present reign, kept up to date. Threads may share it.

    Args:
        champion: the pipeline file's, who reigns until a record says otherwise.
        candidates: those of the file; records of others change nothing.
        log: where records come from; without one the file's champion reigns for ever.

    Attributes:
        first: the pipeline file's champion.
        reign: the present one.

    Example:
        >>> Succession("a", ("a", "b")).reign.champion
        'a'
    """

    def __init__(self, champion: str, candidates: Iterable[str], log: DecisionLog | None = None) -> None:
        self.first = champion
        self.reign: Reign = first_reign(champion)
        self._candidates = tuple(candidates)
        self._log = log
        self._next_follow_us = 0
        self._turn = threading.Lock()

    @classmethod
    def of(cls, pipeline: Pipeline, log: DecisionLog | None = None) -> Succession:
        """Give that of a pipeline."""
        return cls(pipeline.serve.champion, (model.name for model in pipeline.models), log)

    def catch_up(self) -> Reign:
        """Read to the end as it is now; called once, before the first `follow`."""
        return self._take([] if self._log is None else self._log.read_to_end())

    def follow(self, now_us: int) -> Reign:
        """Take what has come, a few times a second however often it is called; never waits."""
        if self._log is None or now_us < self._next_follow_us:
            return self.reign
        with self._turn:
            self._next_follow_us = now_us + FOLLOW_EVERY_US
            return self._take(self._log.read_new())

    def _take(self, records: Iterable[bytes]) -> Reign:
        for record in records:
            promoted = promotion_in(record)
            if promoted is not None:
                self.reign = followed(self.reign, promoted, self._candidates)
        return self.reign
