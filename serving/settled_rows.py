"""Rows of P.examples on their way into a dataset: one for each event, when its label settles it.

An event leaves with its label row, so the order is that of settling, and only what waits for a label is held: what the
role holds too, and 8 bytes for each event since the oldest that waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.dataset import PartitionFiles, dataset_schema
from serving.event_times import EventTimes
from streams.example_rows import example_rows, within
from streams.features import columns
from streams.frames import END, EVENT, LABEL, MISSING, SET, Rows
from streams.pipeline import Pipeline

DRAIN_ROWS = 100_000  # of events without a label, put out at once at the end of the log


class Period(NamedTuple):
    """Which events are written, by their time: at or after `start_us` and before `stop_us`; None is no limit."""

    start_us: int | None = None
    stop_us: int | None = None


class SettledRows:
    """The rows of one partition.

    Args:
        pipeline: says which features and how long labels are waited for.
        partition: of P.features.
        out: the dataset's directory.
        period: which events are written.

    Attributes:
        corrections: labels that changed after their event was settled, which the dataset does not show.
    """

    def __init__(self, pipeline: Pipeline, partition: int, out: Path, period: Period) -> None:
        self._wait_us = pipeline.labels.wait_us
        self._period = period
        self._schema = dataset_schema(columns(pipeline), pipeline.task.classes)
        self._files = PartitionFiles(out, partition, self._schema)
        self._times = EventTimes()
        self.corrections = 0

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self._files.rows

    def put(self, outputs: Sequence[Rows], *, is_settled: bool) -> None:
        """Take what the last stage has put out.

        Args:
            outputs: rows of P.examples count.
            is_settled: whether labels have settled these events, not only the end of the log.
        """
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
                made = example_rows(self._schema, rows, event_us, is_settled=is_settled)
                self._files.add(within(made, *self._period))

    def deadlines(self) -> list[int]:
        """Say where clocks must stand one after another for all that still waits to leave, not too much at once."""
        deadlines: npt.NDArray[np.int64] = np.sort(self._times.waiting()) + self._wait_us
        return [*deadlines[DRAIN_ROWS::DRAIN_ROWS].tolist(), int(END)]

    def close(self) -> None:
        """Write the rest."""
        self._files.close()
