"""The features role on one partition: rows of the log in, event rows and label rows with feature vectors out.

`FeatureTask` is a pure function of its partition's rows: it knows neither Kafka nor the wall clock, and gives the same
rows however the log is cut into batches and wherever it is interrupted and restored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.accounts import SETTLED_MISSING, accounts
from streams.deadlines import WAITING
from streams.features import columns, empty_totals, make_plan
from streams.frames import Batch, Rows, examples_schema, features_schema
from streams.inputs import make_input
from streams.metrics import RoleMetrics
from streams.outputs import DELAYS, ROWS, examples_batch, features_batch, make_output
from streams.pending import due_kernel
from streams.pipeline import Pipeline
from streams.settling import Terms, take_rows_kernel
from streams.stage import empty_stage, restored_stage, stage_state, with_room

MOST_DELAYS = 1_000_000  # label delays kept between two measurements


class FeatureTask:
    """Ledger, windows and pending rows of one partition.

    Example:
        >>> task = FeatureTask(pipeline, partition=0, source=7)
        >>> features, examples = task.process(batch)
        >>> task.unaccounted_rows()
        0
    """

    def __init__(self, pipeline: Pipeline, partition: int, source: int, examples_partition: int = 0) -> None:
        """Begin without rows; `source` numbers this partition's rows in P.features and P.examples."""
        labels = pipeline.labels
        missing = math.nan if labels.missing is None else labels.missing
        self.columns = columns(pipeline)
        self._plan = make_plan(pipeline)
        self._terms = Terms(labels.wait_us, labels.keep_us, missing, self._plan.is_keyed)
        self._partition, self._source, self._examples_partition = partition, source, examples_partition
        self._features_schema = features_schema(self.columns)
        self._examples_schema = examples_schema(self.columns)
        self._stage = empty_stage(self._plan)
        self._sequences = np.zeros(2, np.int64)  # the next of P.features and of P.examples
        self._delays: list[npt.NDArray[np.int64]] = []
        self._noted_delays = 0

    def process(self, batch: Batch) -> list[Rows]:
        """Take rows in order and give the feature rows and examples they cause; cost is about 0.5 us a row."""
        total = batch.rows.num_rows
        if total == 0:
            return []
        rows = make_input(batch, self._plan.fields)
        due_rows, due_bytes = due_kernel(self._stage.pending, int(batch.label_clock[-1]))
        id_bytes, key_bytes = (int(t.offsets[-1]) - int(t.offsets[0]) for t in (rows.id, rows.key))
        output = make_output(
            2 * total + due_rows, len(self.columns), 2 * id_bytes + due_bytes, 2 * key_bytes + due_bytes
        )
        text_need = int(np.diff(rows.id.offsets).max() + np.diff(rows.key.offsets).max())
        totals = empty_totals(self._plan.plan)
        taken = 0
        while taken < total:
            self._stage = with_room(self._stage, self._plan.plan, text_need)
            taken = take_rows_kernel(rows, self._plan.plan, self._terms, self._stage, output, totals, taken, text_need)
        self._note_delays(output.delay[: int(output.sizes[DELAYS])])
        if output.sizes[ROWS] == 0:
            return []
        first_feature, first_example = self._sequences.tolist()
        examples = examples_batch(output, self._examples_schema, self._source, first_example)
        features, causes = features_batch(examples, output, self._features_schema, self._source, first_feature)
        self._sequences += (features.num_rows, examples.num_rows)
        rows_out = [Rows("features", self._partition, features, causes)] if features.num_rows else []
        return [*rows_out, Rows("examples", self._examples_partition, examples, output.cause[: examples.num_rows])]

    def _note_delays(self, delays: npt.NDArray[np.int64]) -> None:
        if delays.size and self._noted_delays < MOST_DELAYS:
            self._delays.append(delays.copy())
            self._noted_delays += delays.size

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Give everything the next worker needs, as copies."""
        return stage_state(self._stage, self._plan) | {"sequences": self._sequences.copy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on where `state` was taken.

        Raises:
            SnapshotError: when the state was written for other features.
        """
        self._stage = restored_stage(state, self._plan)
        self._sequences = state["sequences"].copy()

    def accounts(self) -> dict[str, tuple[int, dict[str, int]]]:
        """Give the accounts `events`, `labels` and `rows`: the total, and what became of it."""
        return accounts(self._stage.counters, self.pending_events())

    def unaccounted_rows(self) -> int:
        """Count the rows that an account cannot explain; 0 after every `process`."""
        return sum(abs(total - sum(states.values())) for total, states in self.accounts().values())

    def pending_events(self) -> int:
        """Count the events that wait for their label."""
        return int(self._stage.pending.waiting.sizes[WAITING])

    def settled_missing(self) -> int:
        """Count the events that were settled without a label."""
        return int(self._stage.counters[SETTLED_MISSING])

    def late_rows(self) -> dict[int, int]:
        """Count, by window length in us, the events that were older than the window of their entity's newest."""
        return dict(zip(self._plan.plan.width_W.tolist(), self._stage.windows.late_W.tolist(), strict=True))

    def is_sound(self) -> bool:
        """Always."""
        return True

    def measure(self, metrics: RoleMetrics) -> None:
        """Set gauges, and hand over the label delays since the last call."""
        delays, self._delays, self._noted_delays = self._delays, [], 0
        if delays:
            metrics.label_delays(np.concatenate(delays))
        metrics.pending(self._partition, self.pending_events())
        for name, (total, states) in self.accounts().items():
            metrics.account(name, self._partition, total, states)
