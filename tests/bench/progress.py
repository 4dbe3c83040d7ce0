"""How far a run is and how fast it went, from the end offsets of the topics it writes.

Only end offsets are asked for while the clock runs; the broker has then acknowledged what is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from confluent_kafka import KafkaException, Message

from tests.bench.kafka import BenchError, Broker, read

POLL_EVERY_S = 0.02
STALL_S = 0.75  # output that rests so long is looked through
STALL_MESSAGES = 8  # marks, once a second and partition, are no output
LOW, HIGH = 0.10, 0.95  # the part of the work that counts: start-up and the emptying of the last batches are outside
HELD_BACK_S = 0.5  # so long a producer may have sent nothing, while it connected

Weight = Callable[[Message], float]  # how many events a message stands for


class Output:
    """A topic that a run writes: how many events had gone into it at which time.

    What arrived is read and weighed only when the output rests, so that neither marks nor repeats count and nothing is
    decoded while the clock runs. Without a weight every message is one event and nothing is read.
    """

    def __init__(self, broker: Broker, topic: str, events: int, weight: Weight | None = None) -> None:
        self.topic, self.events = topic, events
        self._broker, self._weight = broker, weight
        self._times_s: list[float] = []
        self._offsets: list[list[int]] = []  # by sample, then by partition
        self._before: list[list[float]] = []  # by partition: events in the messages before each offset
        self._looked_s = 0.0

    def sample(self) -> None:
        """Note the end offsets now; a topic that is not there yet is passed over."""
        if not self._before:
            self._before = [[0.0] for _ in range(self._broker.partitions(self.topic))]
        if self._before:
            try:
                offsets = self._broker.end_offsets(self.topic, len(self._before))
            except KafkaException:
                return  # just made, without a leader yet
            self._times_s.append(time.monotonic())
            self._offsets.append(offsets)

    def done(self) -> float:
        """Give the events written so far; with a weight, as of the last time the output rested."""
        if not self._offsets:
            return 0.0
        if self._weight is not None and self._is_resting():
            self._weigh(self._weight)
        return self._events_at(self._offsets[-1])

    def messages(self) -> int:
        """Give the messages written so far, of whatever weight."""
        return sum(self._offsets[-1]) if self._offsets else 0

    def weigh(self) -> None:
        """Weigh all that was written by the last sample, though more may come."""
        if self._weight is not None and self._offsets:
            self._weigh(self._weight)

    def curve(self) -> tuple[list[float], list[float]]:
        """Give the times of the samples, and the events written by then."""
        return self._times_s, [self._events_at(offsets) for offsets in self._offsets]

    def _events_at(self, offsets: list[int]) -> float:
        if self._weight is None:
            return float(sum(offsets))
        return sum(before[min(at, len(before) - 1)] for before, at in zip(self._before, offsets, strict=True))

    def _is_resting(self) -> bool:
        now_s, at = self._times_s[-1], len(self._times_s) - 1
        while at >= 0 and now_s - self._times_s[at] < STALL_S:
            at -= 1
        if at < 0 or now_s - self._looked_s < STALL_S:
            return False
        return sum(self._offsets[-1]) - sum(self._offsets[at]) <= STALL_MESSAGES

    def _weigh(self, weight: Weight) -> None:
        self._looked_s = self._times_s[-1]
        start = [len(before) - 1 for before in self._before]
        for message in read(self._broker, self.topic, start, self._offsets[-1]):
            before = self._before[message.partition() or 0]
            before += [before[-1]] * ((message.offset() or 0) + 1 - len(before))
            before.append(before[-1] + weight(message))


def watch(outputs: Sequence[Output], limit_s: float, check: Callable[[], None]) -> None:
    """Sample outputs until all are complete; `check` is called twice a second and raises when a process has died.

    Raises:
        BenchError: the limit has passed before all events were there.
    """
    start_s = time.monotonic()
    checked_s = start_s
    while True:
        for output in outputs:
            output.sample()
        if all(output.done() >= output.events for output in outputs):
            return
        now_s = time.monotonic()
        if now_s - start_s > limit_s:
            state = ", ".join(f"{output.topic} {output.done():,.0f} of {output.events:,}" for output in outputs)
            raise BenchError(f"not complete after {limit_s:.0f} s: {state}")
        if now_s - checked_s > 0.5:
            check()
            checked_s = now_s
        time.sleep(max(0.0, POLL_EVERY_S - (time.monotonic() - now_s)))


def watch_for(output: Output, duration_s: float, limit_s: float, check: Callable[[], None]) -> None:
    """Sample one output until it is complete or `duration_s` after its first event, for programs that take too long."""
    output.sample()
    first_s, before = None, output.messages()
    start_s = time.monotonic()
    while output.done() < output.events:
        output.sample()
        now_s = time.monotonic()
        if first_s is None and output.messages() > before:
            first_s = now_s
        if first_s is not None and now_s - first_s > duration_s:
            output.weigh()
            return
        if first_s is None and now_s - start_s > limit_s:
            raise BenchError(f"nothing in {output.topic} after {limit_s:.0f} s")
        check()
        time.sleep(POLL_EVERY_S)


def steady_rate(times_s: list[float], done: list[float], low: float = LOW, high: float = HIGH) -> float:
    """Give the speed in the steady phase, by straight lines between the samples.

    Raises:
        ValueError: the samples show no progress.
    """
    phase = steady_phase(times_s, done, low, high)
    before, after = np.interp(phase, times_s, done)
    return float((after - before) / (phase[1] - phase[0]))


def steady_phase(times_s: list[float], done: list[float], low: float, high: float) -> tuple[float, float]:
    """Give the moments between which speed counts: about those at which `low` and `high` of the work were done.

    Start-up, the first slow batches and the emptying of the last one are outside, and so is what a producer held back
    while it connected, which comes all at once: the phase begins no earlier than half a second after the first output,
    or with half of the work if that is done sooner. `done` never falls.

    Raises:
        ValueError: the samples show no progress.
    """
    total = done[-1]
    low_s, half_s, high_s = (_reached(times_s, done, share * total) for share in (low, 0.5, high))
    first_s = next((time_s for time_s, events in zip(times_s, done, strict=True) if events > 0), high_s)
    start_s = max(low_s, min(first_s + HELD_BACK_S, half_s))
    if total <= 0 or high_s <= start_s:
        raise ValueError(f"no steady phase: {total:.0f} done in {len(done)} samples; give it more events")
    return start_s, high_s


def _reached(times_s: list[float], done: list[float], level: float) -> float:
    for at in range(1, len(done)):
        if done[at] >= level and done[at] > done[at - 1]:
            share = max(0.0, level - done[at - 1]) / (done[at] - done[at - 1])
            return times_s[at - 1] + share * (times_s[at] - times_s[at - 1])
    return times_s[-1]


def slowest(outputs: Sequence[Output]) -> tuple[list[float], list[float]]:
    """Give the curve of what all outputs have reached: at each sample the one furthest behind (samples are in step)."""
    curves = [output.curve() for output in outputs]
    rounds = min(len(times_s) for times_s, _ in curves)
    times_s = curves[0][0][-rounds:]
    behind = [min(done[-rounds:][at] / output.events for (_, done), output in zip(curves, outputs, strict=True))
              for at in range(rounds)]  # fmt: skip
    events = max(output.events for output in outputs)
    return times_s, [share * events for share in behind]
