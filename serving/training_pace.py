"""The pace of a replay: records are held back while candidates are trained, for a training takes wall-clock time.

A year goes by in a minute and a half, and a training takes seconds. Let go at full speed, history would be over before
the second version is there, and on a slow machine before the first. So the publisher waits behind the row at which a
training is due, never for long: what is trained, from what and when is the pipeline's own doing all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from serving.publish import RawRecord
from streams.durations import DAY_US
from streams.pipeline import Pipeline

MARGIN_US = 3 * DAY_US  # a training begins when the day of its row is over; rows of the night come late
MOST_WAIT_S = 60.0  # usually 5 s; a training that fails or hangs must not hold the replay


class _Due(NamedTuple):
    time_us: int
    candidate: str


class TrainingPace:
    """Holds records back until the trainings that are due by event time have ended.

    Args:
        pipeline: says which candidates are trained, and how often.
        trained: how many trainings of each candidate have ended.
        nap: lets a moment pass; called again and again while records wait.
        clock: monotonic seconds.

    Attributes:
        waited_s: how long records were held back.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        trained: Callable[[], Mapping[str, int]],
        nap: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every_us = {
            model.name: max(model.retrain.every_us, model.retrain.cooldown_us)
            for model in pipeline.models
            if model.retrain is not None and model.retrain.every_us is not None
        }
        self._trained, self._nap, self._clock = trained, nap, clock
        self._seen = dict.fromkeys(self._every_us, 0)
        self.waited_s = 0.0

    def clock(self) -> float:
        """Give monotonic seconds that stand still while records are held back, for a publisher to keep its rate."""
        return self._clock() - self.waited_s

    def paced(self, records: Iterable[RawRecord], before_rest: Callable[[int], None]) -> Iterator[RawRecord]:
        """Give the records, in time order, with a rest behind each row at which a training is due.

        `before_rest` gets the time of the next record, in us, so that nothing given so far need wait for that one.
        """
        due: list[_Due] = []
        for record in records:
            if not due:
                due = [_Due(record.time_us + every_us, name) for name, every_us in self._every_us.items()]
            while due and record.time_us >= (first := min(due)).time_us + MARGIN_US:
                due.remove(first)
                due.append(first._replace(time_us=first.time_us + self._every_us[first.candidate]))
                before_rest(record.time_us)
                self._wait(first.candidate)
            yield record

    def _wait(self, candidate: str) -> None:
        """Wait for one training more than the last time; one that was given up may have ended since."""
        began, wanted = self._clock(), self._seen[candidate] + 1
        while self._trained().get(candidate, 0) < wanted and self._clock() - began < MOST_WAIT_S:
            self._nap()
        self._seen[candidate] = self._trained().get(candidate, 0)
        self.waited_s += self._clock() - began
