"""Feature stages after the first, on one partition: pure functions of its rows, like `FeatureTask`.

`MiddleTask` fills in the columns of one entity, `LastTask` numbers events and keeps their vectors until the label row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from consumers.delivery import ExamplesDelivery, StageDelivery
from consumers.featurize import FeatureTask
from consumers.stage_task import LOG, StageTask, longest_names
from streams.accounts import ROW_ACCOUNT, UNKNOWN, accounts
from streams.completing import complete_rows_kernel
from streams.frames import BEGINNING, END, Batch, Rows
from streams.inputs import make_input
from streams.label_terms import Terms
from streams.metrics import RoleMetrics
from streams.passing import pass_rows_kernel
from streams.pipeline import Pipeline
from streams.plan import empty_totals
from streams.stages import stage_specs


class MiddleTask(StageTask):
    """Windows of one entity on one partition.

    Example:
        >>> task = MiddleTask(pipeline, number=2, partition=0, source=9)
        >>> to_the_next_stage = task.process(batch)
    """

    def process(self, batch: Batch) -> list[Rows]:
        """Take rows in order and give them with the columns of this stage."""
        total = batch.rows.num_rows
        if total == 0:
            return []
        rows, plan, is_keyed = make_input(batch, self._plan), self._plan.plan, self._plan.is_keyed
        vectors_BF, totals, taken = batch.rows.matrix().copy(), empty_totals(plan), 0
        while taken < total:
            taken = pass_rows_kernel(rows, plan, is_keyed, self._stage, vectors_BF, totals, taken)
            if taken < total:
                self._grow(0)
        return cast("StageDelivery", self._delivery).pass_on(batch.rows, vectors_BF)

    def measure(self, metrics: RoleMetrics) -> None:
        """Tell of windows and entities: besides, every row goes on."""
        self._measure_entities(metrics)


class LastTask(StageTask):
    """Numbers and vectors of one partition's events.

    Example:
        >>> task = LastTask(pipeline, number=3, partition=0, source=9)
        >>> features, examples = task.process(batch)
        >>> task.unaccounted_rows()
        0
    """

    def __init__(
        self,
        pipeline: Pipeline,
        number: int,
        partition: int,
        source: int,
        examples_partition: int = 0,
        tell: Callable[[str], None] = LOG.warning,
    ) -> None:
        """Begin without rows; `source` numbers this partition's rows in P.features and P.examples."""
        super().__init__(pipeline, number, partition, source, examples_partition, tell)
        self._terms = Terms(pipeline.labels.wait_us, pipeline.labels.keep_us, math.nan, is_keyed=False)
        self._noted_unknown = 0

    def process(self, batch: Batch) -> list[Rows]:
        """Take rows in order and give the feature rows and examples they cause."""
        total = batch.rows.num_rows
        if total == 0:
            return []
        rows, plan, vectors_BF = make_input(batch, self._plan), self._plan.plan, batch.rows.matrix()
        clock = int(rows.clock.max())  # settles nothing before the end
        room, text_need, taken = self._room(rows, clock if clock == END else BEGINNING), longest_names(rows), 0
        while taken < total:
            taken = complete_rows_kernel(
                rows, vectors_BF, plan, self._terms, self._stage, room.output, taken, text_need
            )
            if taken < total:
                self._grow(text_need)
        return cast("ExamplesDelivery", self._delivery).send(room, rows)

    def accounts(self) -> dict[str, tuple[int, dict[str, int]]]:
        """Give the account `rows`: the events that were numbered, and what became of them."""
        found = accounts(self._stage.counters, self.pending_events())
        return {ROW_ACCOUNT: found[ROW_ACCOUNT]}

    def unknown_rows(self) -> int:
        """Count the label rows whose event is not known here; none unless a stage before went on without its state."""
        return int(self._stage.counters[UNKNOWN])

    def measure(self, metrics: RoleMetrics) -> None:
        """Set gauges."""
        for name, (total, states) in self.accounts().items():
            metrics.account(name, self._partition, total, states)
        new, self._noted_unknown = self.unknown_rows() - self._noted_unknown, self.unknown_rows()
        if new > 0:
            metrics.incident("unknown_label_row", new)


def make_task(
    pipeline: Pipeline, number: int, partition: int, source: int, tell: Callable[[str], None] = LOG.warning
) -> FeatureTask | MiddleTask | LastTask:
    """Make the task of a stage by its number."""
    if number == 1:
        return FeatureTask(pipeline, partition, source, tell=tell)
    is_last = stage_specs(pipeline)[number - 1].is_last
    return (LastTask if is_last else MiddleTask)(pipeline, number, partition, source, tell=tell)
