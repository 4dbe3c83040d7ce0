"""Publishing raw records: from JSON lines by hand, and from the demo's flights, in time order and at a steady rate.

The topics belong to the user, so records go in as they are: what is wrong with one is for ingest to find.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streams.errors import PipelineError
from streams.kafka import KafkaOutbox, Outbox
from streams.pipeline import Events, FieldPath, Labels, Pipeline
from streams.timestamps import UNIT_US

MARK_HEADER = "millrace-mark"
MARK_EVERY_S = 0.1  # a reader that merges partitions waits this long at most for one that is empty
CHECK_RECORDS = 64  # records between two looks at the clock
LONGEST_NAP_S = 0.05  # so that marks and the caller's table go on at a low rate


class RawRecord(NamedTuple):
    """One record to publish; `time_us` only orders it among others."""

    time_us: int
    is_label: bool
    key: bytes | None
    value: bytes


class Publisher:
    """Writes raw records in the order given, not faster than `rate`.

    Args:
        pipeline: names the topics.
        outbox: where records go; it blocks while Kafka is slower than we are.
        partitions: number of partitions of each raw topic. A mark goes to each.
        rate: events a second, labels not counted; None means as fast as Kafka takes them.
        has_marks: write marks (PROTOCOL 11), as a replay does. A mark promises that nothing earlier follows.
        clock, sleep: monotonic seconds, and waiting for some.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        outbox: Outbox,
        partitions: Mapping[str, int],
        *,
        rate: float | None = None,
        has_marks: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._topics = (pipeline.events.topic, pipeline.labels.topic)
        self._outbox, self._partitions = outbox, dict(partitions)
        self._rate, self._has_marks = rate, has_marks
        self._clock, self._sleep = clock, sleep
        self.events = 0
        self.labels = 0

    def publish(self, records: Iterable[RawRecord], each_moment: Callable[[], None] = lambda: None) -> None:
        """Write all records; `each_moment` is called every few milliseconds, between two records.

        Raises:
            DeliveryError: Kafka refused a record for good.
        """
        start = marked_at = self._clock()
        for number, record in enumerate(records):
            if number % CHECK_RECORDS == 0 or self._rate is not None:
                if self._has_marks and self._clock() - marked_at >= MARK_EVERY_S:
                    self.mark_before(record.time_us)
                    marked_at = self._clock()
                if number % CHECK_RECORDS == 0:
                    each_moment()
                self._wait(start, each_moment)
            self._outbox.produce(self._topics[record.is_label], None, record.value, record.key)
            self.events += not record.is_label
            self.labels += record.is_label
        if self._has_marks:
            self.mark("end")
        self._outbox.flush()

    def mark_before(self, time_us: int) -> None:
        """Mark all that is earlier than the next record: of its very time there may be more to come."""
        self.mark(str(time_us - 1))

    def mark(self, text: str) -> None:
        """Write a mark to every raw partition: microseconds as text, or `end`."""
        for topic, partitions in self._partitions.items():
            for partition in range(partitions):
                self._outbox.produce(topic, partition, None, None, [(MARK_HEADER, text.encode())])

    def _wait(self, start: float, each_moment: Callable[[], None]) -> None:
        if self._rate is None:
            return
        while (ahead_s := self.events / self._rate - (self._clock() - start)) > 0:
            self._sleep(min(ahead_s, LONGEST_NAP_S))
            self._outbox.poll()
            each_moment()


def read_lines(lines: Iterable[bytes], declared: Events | Labels, *, is_label: bool) -> Iterator[RawRecord]:
    """Make records of JSON lines; the declared key places a record, the declared time orders it.

    A line without a readable time keeps the time of the line before it, so that it stays where it stands.
    """
    time_us = np.iinfo(np.int64).min
    for line in lines:
        value = line.strip()
        if not value:
            continue
        try:
            record = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            record = None
        key = _at(record, declared.key)
        found = _time_us(_at(record, declared.time), declared.time_unit)
        time_us = time_us if found is None else found
        yield RawRecord(time_us, is_label, None if key is None else str(key).encode(), value)


def merged(events: Iterable[RawRecord], labels: Iterable[RawRecord]) -> Iterator[RawRecord]:
    """Merge two streams, each in time order; at the same time events come first."""
    return heapq.merge(events, labels, key=lambda record: (record.time_us, record.is_label))


def check_rate(rate: float | None) -> None:
    """Refuse a rate that would never publish anything.

    Raises:
        PipelineError: the rate is not above 0.
    """
    if rate is not None and not rate > 0:
        raise PipelineError([f"--rate {rate:g}: must be above 0 events a second; leave it out for full speed"])


def _at(record: Any, path: FieldPath | None) -> Any:
    for name in path or ():
        record = record.get(name) if isinstance(record, dict) else None
    return record if path else None


def _time_us(value: Any, unit: str) -> int | None:
    if isinstance(value, str) and unit == "rfc3339":
        try:
            moment = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            return None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    if isinstance(value, int | float) and unit in UNIT_US:
        return int(value * UNIT_US[unit])
    return None


def publish_files(pipeline: Pipeline, events: str | None, labels: str | None, rate: float | None) -> Publisher:
    """Publish JSON lines from files (`-` is standard input) and return the publisher with its counts.

    Raises:
        PipelineError: nothing was named, both name standard input, or a file cannot be read.
    """
    check_rate(rate)
    if events is None and labels is None:
        raise PipelineError(["nothing to publish: give --events LINES, --labels LINES or both"])
    if labels is not None and not pipeline.labels.is_declared:
        raise PipelineError(["--labels: the pipeline has none; give --events LINES alone"])
    if events == labels:
        raise PipelineError(["--events and --labels name the same input; publish one after the other"])
    outbox = KafkaOutbox(pipeline.kafka)
    try:
        publisher = Publisher(pipeline, outbox, {}, rate=rate)
        with _lines(events) as event_lines, _lines(labels) as label_lines:
            publisher.publish(
                merged(
                    read_lines(event_lines, pipeline.events, is_label=False),
                    read_lines(label_lines, pipeline.labels, is_label=True),
                )
            )
    finally:
        outbox.close()
    return publisher


@contextmanager
def _lines(name: str | None) -> Iterator[Iterable[bytes]]:
    if name is None:
        yield ()
    elif name == "-":
        yield sys.stdin.buffer
    else:
        try:
            file = Path(name).open("rb")  # noqa: SIM115 -- closed below; only opening it is translated
        except OSError as error:
            raise PipelineError([f"{name} cannot be read: {error.strerror}"]) from None
        with file:
            yield file
