"""`millrace backfill`: the features of all events in the log, with their labels, as a Parquet dataset.

The rows are those the stream has sent (serving/recomputation.py), one for each event with the label that settled it.
An event leaves with its label row, so the order is that of settling, and only what waits for a label is held: what the
role holds too, and 8 bytes for each event since the oldest that waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from consumers.process import KafkaControlLog
from serving.dataset import PartitionFiles, clear, dataset_rows, dataset_schema, within
from serving.event_times import EventTimes
from serving.feed import Bounds, Feed, KafkaFeed, bounds
from serving.progress import progress
from serving.recomputation import Recomputation
from serving.table import console, number
from streams.control import Control
from streams.durations import duration_text
from streams.errors import PipelineError, UnavailableError
from streams.features import columns
from streams.frames import END, EVENT, LABEL, MISSING, SET, Rows
from streams.kafka import Topics
from streams.pipeline import Pipeline
from streams.topic_specs import longest_reach_us

DRAIN_ROWS = 100_000  # of events without a label, put out at once at the end of the log


class Period(NamedTuple):
    """Which events are written, by their time: at or after `start_us` and before `stop_us`; None is no limit."""

    start_us: int | None = None
    stop_us: int | None = None


class Backfill:
    """The rows of one partition on their way from the log to files.

    Args:
        pipeline: says which features and how long labels are waited for.
        partition: of the log.
        control: resolves the log's sources.
        out: the dataset's directory.
        period: which events are written; all are computed.

    Attributes:
        rows: how many were written.
        corrections: labels that changed after their event was settled, which the dataset does not show.
    """

    def __init__(self, pipeline: Pipeline, partition: int, control: Control, out: Path, period: Period) -> None:
        self._recomputation = Recomputation(pipeline, partition, control)
        self._wait_us = pipeline.labels.wait_us
        self._period = period
        self._schema = dataset_schema(columns(pipeline))
        self._files = PartitionFiles(out, partition, self._schema)
        self._times = EventTimes()
        self.corrections = 0

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self._files.rows

    def run(self, feed: Feed, end: int, seen: Callable[[int], None]) -> None:
        """Go over the log up to `end`; `seen` is told how many of its messages each step took."""
        with closing(feed.read(end)) as parts:
            for records in parts:
                self._put(self._recomputation.take(records), is_settled=True)
                seen(records.offsets.size)
        self._drain()
        self._files.close()

    def _put(self, outputs: Sequence[Rows], *, is_settled: bool) -> None:
        for output in outputs:
            if output.topic != "examples":
                continue
            kind, outcome = output.table.numbers("kind"), output.table.numbers("outcome")
            self._times.add(output.table.numbers("time")[kind == EVENT])
            settled = np.flatnonzero((kind == LABEL) & ((outcome == SET) | (outcome == MISSING)))
            self.corrections += int((kind == LABEL).sum()) - settled.size
            if settled.size:
                rows = output.table.take(settled)
                event_us = self._times.settle(rows.numbers("number"))
                made = dataset_rows(self._schema, rows, event_us, is_settled=is_settled)
                self._files.add(within(made, *self._period))

    def _drain(self) -> None:
        """Put out the events that still wait, without labels: the task itself gives them when their time is over."""
        deadlines = np.sort(self._times.waiting()) + self._wait_us
        for clock_us in (*deadlines[DRAIN_ROWS::DRAIN_ROWS].tolist(), int(END)):
            self._put(self._recomputation.settle(clock_us), is_settled=False)


def run_backfill(pipeline: Pipeline, out: Path, partitions: Sequence[int], period: Period, *, is_forced: bool) -> None:
    """Write the dataset of some partitions (none named: all), as the log is now, and say how it went.

    Raises:
        PipelineError: there is no such partition, or the directory is not empty.
        TopicError: there is no log.
    """
    began, show = time.monotonic(), console()
    partitions = chosen_partitions(pipeline, partitions)
    topic = f"{pipeline.name}.log"
    found = bounds(pipeline.kafka, topic, partitions)
    clear(out, is_forced=is_forced)
    for partition, (start, _) in found.items():
        if start:
            show.print(cut_line(pipeline, partition, start), soft_wrap=True)
    rows, corrections = _write_all(pipeline, found, out, period)
    took_s = time.monotonic() - began
    if corrections:
        words = "labels were corrected or taken back after their event was settled"
        show.print(f"{number(corrections)} {words}; the dataset has what was settled", soft_wrap=True)
    show.print(f"{out}: {number(rows)} rows in {took_s:.1f} s, {number(rows / took_s)} rows/s", soft_wrap=True)


def chosen_partitions(pipeline: Pipeline, wanted: Sequence[int]) -> list[int]:
    """Give the partitions of the log that were asked for, all if none was.

    Raises:
        PipelineError: there is no such partition.
        TopicError: there is no log.
    """
    topics = Topics(pipeline.kafka)
    try:
        count = topics.partitions(f"{pipeline.name}.log")
    finally:
        topics.close()
    wrong = [partition for partition in wanted if not 0 <= partition < count]
    if wrong:
        raise PipelineError([f"--partition {wrong[0]}: {pipeline.name}.log has partitions 0 to {count - 1}"])
    return sorted(set(wanted)) or list(range(count))


def cut_line(pipeline: Pipeline, partition: int, start: int) -> str:
    """Say that a log does not begin with its first row, and what that means for the features."""
    longest_us = longest_reach_us(pipeline)
    begins = (
        f"{pipeline.name}.log partition {partition} begins at offset {start}: the rows before were cut by retention"
    )
    stretch = f"the first {duration_text(longest_us)}" if longest_us else "its first rows"
    return f"{begins}; features of {stretch}, and of what has an entity's last event before it, may differ"


def _write_all(pipeline: Pipeline, found: Mapping[int, Bounds], out: Path, period: Period) -> tuple[int, int]:
    """Write one partition after another, so that the state of one is held; gives rows and corrections of all."""
    log, rows, corrections = KafkaControlLog(pipeline), 0, 0
    control = Control(log)
    try:
        for partition, (start, end) in found.items():
            made = Backfill(pipeline, partition, control, out, period)
            feed = KafkaFeed(pipeline.kafka, f"{pipeline.name}.log", partition, start)
            with progress(console()) as bars:
                bar = bars.add_task(f"partition {partition}", total=end - start)
                made.run(feed, end, partial(bars.advance, bar))
            rows, corrections = rows + made.rows, corrections + made.corrections
    except OSError as error:
        raise UnavailableError(f"{out} cannot be written: {error.strerror or error}; make room, start again") from None
    finally:
        log.close()
    return rows, corrections
