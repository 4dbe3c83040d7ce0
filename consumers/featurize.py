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

from streams.accounts import NUMBERED, SETTLED_MISSING, accounts
from streams.deadlines import WAITING
from streams.features import columns
from streams.frames import Batch, Rows, examples_schema, features_schema
from streams.inputs import longest_kernel, make_input
from streams.metrics import RoleMetrics
from streams.outputs import DELAYS, ROWS, Room
from streams.pending import count_due_kernel
from streams.pipeline import Pipeline
from streams.plan import empty_totals
from streams.planning import make_plan
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
        counters = self._stage.counters
        numbered, sent = int(counters[NUMBERED]), self._sequences.copy()
        room = self._take(batch, total)
        output = room.output
        self._note_delays(output.delay[: int(output.sizes[DELAYS])])
        self._sequences += (int(counters[NUMBERED]) - numbered, int(output.sizes[ROWS]))
        if not output.sizes[ROWS]:
            return []
        examples = room.examples(self._source, int(sent[1]))
        features, is_event = room.features(self._features_schema.layout, examples, int(sent[0]))
        cause = output.cause[: examples.num_rows]
        made = [Rows("examples", self._examples_partition, examples, np.arange(examples.num_rows), cause)]
        if is_event.size:
            made.insert(0, Rows("features", self._partition, features, is_event, cause[is_event]))
        return made

    def _take(self, batch: Batch, total: int) -> Room:
        """Run the kernel over all rows and give what it put out."""
        rows, plan = make_input(batch, self._plan), self._plan.plan
        due_rows, due_bytes = count_due_kernel(self._stage.pending, int(rows.label_clock[-1]))
        id_bytes, key_bytes = (int(text.offsets[-1] - text.offsets[0]) for text in (rows.id, rows.key))
        # At most: each row as an event and its label row, and what was due before.
        need = (2 * total + due_rows, 2 * id_bytes + due_bytes, 2 * key_bytes + due_bytes)
        room, totals = Room(self._examples_schema.layout, *need), empty_totals(plan)
        text_need, taken = longest_kernel(rows.id.offsets) + longest_kernel(rows.key.offsets), 0
        while taken < total:
            taken = take_rows_kernel(rows, plan, self._terms, self._stage, room.output, totals, taken, text_need)
            if taken < total:
                self._stage = with_room(self._stage, plan, text_need)
        return room

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
        late: dict[int, int] = {}
        for width, rows in zip(self._plan.plan.width_W.tolist(), self._stage.windows.late_W.tolist(), strict=True):
            late[width] = max(rows, late.get(width, 0))
        return late

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
