"""`millrace backfill`: the features of all events in the log, with their labels, as a Parquet dataset.

The rows are those the stream has sent (serving/recomputation.py), one for each event with the label that settled it.
Where features take several stages, all partitions go through them together (serving/chain_backfill.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from consumers.process import KafkaControlLog
from serving.chain_backfill import ChainBackfill
from serving.dataset import clear
from serving.feed import Bounds, Feed, KafkaFeed, beginning, bounds
from serving.progress import progress
from serving.recomputation import Recomputation
from serving.settled_rows import Period, SettledRows
from serving.table import console, number
from streams.control import Control
from streams.durations import duration_text
from streams.errors import PipelineError, UnavailableError
from streams.kafka import Topics
from streams.pipeline import Pipeline
from streams.stages import stage_specs
from streams.topic_specs import longest_reach_us


class Backfill:
    """The rows of one partition on their way from the log to files, where one stage does it all.

    Args:
        pipeline: says which features and how long labels are waited for.
        partition: of the log.
        control: resolves the log's sources.
        out: the dataset's directory.
        period: which events are written; all are computed.
    """

    def __init__(self, pipeline: Pipeline, partition: int, control: Control, out: Path, period: Period) -> None:
        self._recomputation = Recomputation(pipeline, partition, control)
        self._settled = SettledRows(pipeline, partition, out, period)

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self._settled.rows

    @property
    def corrections(self) -> int:
        """Labels that changed after their event was settled, which the dataset does not show."""
        return self._settled.corrections

    def run(self, feed: Feed, end: int, seen: Callable[[int], None]) -> None:
        """Go over the log up to `end`; `seen` is told how many of its messages each step took."""
        with closing(feed.read(end)) as parts:
            for records in parts:
                self._settled.put(self._recomputation.take(records), is_settled=True)
                seen(records.offsets.size)
        for clock_us in self._settled.deadlines():  # what still waits, without labels
            self._settled.put(self._recomputation.settle(clock_us), is_settled=False)
        self._settled.close()


def run_backfill(pipeline: Pipeline, out: Path, partitions: Sequence[int], period: Period, *, is_forced: bool) -> None:
    """Write the dataset of some partitions (none named: all), as the log is now, and say how it went.

    Raises:
        PipelineError: there is no such partition, or the directory is not empty.
        TopicError: there is no log.
    """
    began, show = time.monotonic(), console()
    every, wanted = chosen_partitions(pipeline, partitions)
    is_chain = not stage_specs(pipeline)[0].is_only
    topic = f"{pipeline.name}.log"
    found = bounds(pipeline.kafka, topic, every if is_chain else wanted)
    clear(out, is_forced=is_forced)
    was_parted = _was_parted(pipeline)
    for partition, (start, _) in found.items():
        if start or was_parted:
            show.print(cut_line(pipeline, topic, partition, start), soft_wrap=True)
    rows, corrections = _write_all(pipeline, found, wanted, out, period)
    took_s = time.monotonic() - began
    if corrections:
        words = "labels were corrected or taken back after their event was settled"
        show.print(f"{number(corrections)} {words}; the dataset has what was settled", soft_wrap=True)
    show.print(f"{out}: {number(rows)} rows in {took_s:.1f} s, {number(rows / took_s)} rows/s", soft_wrap=True)


def chosen_partitions(pipeline: Pipeline, wanted: Sequence[int]) -> tuple[list[int], list[int]]:
    """Give all partitions of the log, and those that were asked for: all if none was.

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
    every = list(range(count))
    return every, sorted(set(wanted)) or every


def cut_line(pipeline: Pipeline, topic: str, partition: int, start: int) -> str:
    """Say that a topic does not begin with its first row, and what that means for the features."""
    longest_us = longest_reach_us(pipeline)
    begins = f"{topic} partition {partition} {beginning(start)}"
    stretch = f"the first {duration_text(longest_us)}" if longest_us else "its first rows"
    return f"{begins}; features of {stretch}, and of what has an entity's last event before it, may differ"


def _was_parted(pipeline: Pipeline) -> bool:
    """Whether the log is not the first one: the number of partitions was changed."""
    log = KafkaControlLog(pipeline)
    try:
        control = Control(log)
        control.refresh()
        return bool(control.aliases)
    finally:
        log.close()


def _write_all(
    pipeline: Pipeline, found: Mapping[int, Bounds], wanted: Sequence[int], out: Path, period: Period
) -> tuple[int, int]:
    """Write the wanted partitions; gives rows and corrections of all."""
    log = KafkaControlLog(pipeline)
    control = Control(log)
    write = _write_each if stage_specs(pipeline)[0].is_only else _write_together
    try:
        return write(pipeline, control, found, wanted, out, period)
    except OSError as error:
        raise UnavailableError(f"{out} cannot be written: {error.strerror or error}; make room, start again") from None
    finally:
        log.close()


def _write_each(
    pipeline: Pipeline,
    control: Control,
    found: Mapping[int, Bounds],
    wanted: Sequence[int],
    out: Path,
    period: Period,
) -> tuple[int, int]:
    """Write one partition after another, so that the state of one is held."""
    rows, corrections = 0, 0
    for partition in wanted:
        start, end = found[partition]
        made = Backfill(pipeline, partition, control, out, period)
        with progress(console()) as bars:
            bar = bars.add_task(f"partition {partition}", total=end - start)
            made.run(_feed(pipeline, partition, start), end, partial(bars.advance, bar))
        rows, corrections = rows + made.rows, corrections + made.corrections
    return rows, corrections


def _write_together(
    pipeline: Pipeline,
    control: Control,
    found: Mapping[int, Bounds],
    wanted: Sequence[int],
    out: Path,
    period: Period,
) -> tuple[int, int]:
    """Take all partitions through all stages, for rows go from each to each, and write those that are wanted."""
    feeds = {partition: _feed(pipeline, partition, start) for partition, (start, _) in found.items()}
    made = ChainBackfill(pipeline, control, feeds, wanted, out, period)
    with progress(console()) as bars:
        tasks = {p: bars.add_task(f"partition {p}", total=end - start) for p, (start, end) in found.items()}
        made.run({p: end for p, (_, end) in found.items()}, lambda p, messages: bars.advance(tasks[p], messages))
    return made.rows, made.corrections


def _feed(pipeline: Pipeline, partition: int, start: int) -> Feed:
    return KafkaFeed(pipeline.kafka, f"{pipeline.name}.log", partition, start)
