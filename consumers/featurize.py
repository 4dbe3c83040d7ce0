"""The features role on one partition: rows of the log in, event rows and label rows with feature vectors out.

`FeatureTask` is a pure function of its partition's rows: it knows neither Kafka nor the wall clock, and gives the same
rows however the log is cut into batches and wherever it is interrupted and restored. It is the only stage where all
features are of the events' key; else it is the first of a chain (streams/stages.py), whose others are in
chain_tasks.py, and its rows go to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from consumers.stage_task import LOG, StageTask, longest_names
from streams.accounts import ROW_ACCOUNT, SETTLED_MISSING, accounts
from streams.frames import Batch, Rows
from streams.inputs import make_input
from streams.label_terms import CODES, Terms
from streams.metrics import RoleMetrics
from streams.outputs import DELAYS
from streams.pipeline import Pipeline
from streams.plan import empty_totals
from streams.settling import take_rows_kernel

MOST_DELAYS = 1_000_000  # label delays kept between two measurements


class FeatureTask(StageTask):
    """Ledger, windows and pending rows of one partition.

    Example:
        >>> task = FeatureTask(pipeline, partition=0, source=7)
        >>> features, examples = task.process(batch)
        >>> task.unaccounted_rows()
        0
    """

    def __init__(
        self,
        pipeline: Pipeline,
        partition: int,
        source: int,
        examples_partition: int = 0,
        tell: Callable[[str], None] = LOG.warning,
    ) -> None:
        """Begin without rows; `source` numbers the rows that this partition puts out."""
        super().__init__(pipeline, 1, partition, source, examples_partition, tell)
        labels = pipeline.labels
        missing = math.nan if labels.missing is None else labels.missing
        self._terms = Terms(
            labels.wait_us,
            labels.keep_us,
            missing,
            self._plan.is_keyed,
            labels.most_pending,
            labels.is_declared,
            CODES[labels.match],
            labels.within_us,
        )
        self._delays: list[npt.NDArray[np.int64]] = []
        self._noted_delays = 0

    def process(self, batch: Batch) -> list[Rows]:
        """Take rows in order and give the rows they cause; cost is about 0.5 us a row."""
        total = batch.rows.num_rows
        if total == 0:
            return []
        rows, plan = make_input(batch, self._plan), self._plan.plan
        room, totals = self._room(rows, int(rows.label_clock.max())), empty_totals(plan)
        text_need, taken = longest_names(rows), 0
        while taken < total:
            taken = take_rows_kernel(rows, plan, self._terms, self._stage, room.output, totals, taken, text_need)
            if taken < total:
                self._grow(text_need)
        self._note_delays(room.output.delay[: int(room.output.sizes[DELAYS])])
        return self._delivery.send(room, rows)

    def _note_delays(self, delays: npt.NDArray[np.int64]) -> None:
        if delays.size and self._noted_delays < MOST_DELAYS:
            self._delays.append(delays.copy())
            self._noted_delays += delays.size

    def accounts(self) -> dict[str, tuple[int, dict[str, int]]]:
        """Give the accounts `events`, `labels` and `rows`: the total, and what became of it."""
        return accounts(self._stage.counters, self.pending_events())

    def settled_missing(self) -> int:
        """Count the events that were settled without a label."""
        return int(self._stage.counters[SETTLED_MISSING])

    def measure(self, metrics: RoleMetrics) -> None:
        """Set gauges, and hand over the label delays since the last call."""
        delays, self._delays, self._noted_delays = self._delays, [], 0
        if delays:
            metrics.label_delays(np.concatenate(delays))
        metrics.pending(self._partition, self.pending_events())
        self._measure_entities(metrics)
        for name, (total, states) in self.accounts().items():
            if name != ROW_ACCOUNT or self._plan.stage.is_last:  # in a chain the last stage tells of it
                metrics.account(name, self._partition, total, states)
