"""What the tasks of all feature stages have in common: the state of one partition, and its form in a snapshot."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy.typing as npt

from consumers.delivery import ExamplesDelivery, StageDelivery
from streams.accounts import EVICTED, EXPIRED, GONE_LABELS, PENDING_EVICTED
from streams.deadlines import WAITING
from streams.inputs import Input, longest_kernel
from streams.label_terms import Terms
from streams.layouts import ReusedMemory
from streams.list_changes import compare, refuse_other_rules
from streams.metrics import RoleMetrics
from streams.moving import moved_state
from streams.outline import read_outline
from streams.outputs import Room
from streams.pending import LIVE, count_due_kernel, let_rows_change
from streams.pipeline import Pipeline
from streams.planning import make_plan
from streams.scratch import Scratch
from streams.stage import empty_stage, restored_stage, stage_state, with_room
from streams.windows import HELD

LOG = logging.getLogger("consumers.stage_task")
SCRATCH = "scratch"  # the directory for tables that are too large for memory, beside the snapshots


class StageTask:
    """Tables of one stage on one partition, and where its rows go.

    Args:
        pipeline: the pipeline.
        number: the stage's.
        partition: its input partition.
        source: numbers the rows it puts out.
        examples_partition: of P.examples, where the last stage writes.
        tell: is told in a line each what a change of the feature list did to the state that was taken up.
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
        self._plan = make_plan(pipeline, number)
        self._plan_for = partial(make_plan, pipeline, number)
        self._tell = tell
        self.columns = self._plan.columns
        self._partition = partition
        self._scratch = Scratch(pipeline.state / SCRATCH)
        self._read: list[weakref.ref[npt.NDArray[Any]]] = []  # waiting rows of snapshots that are being written
        self._memory = ReusedMemory()
        self._stage = empty_stage(self._plan)
        self._noted = self._incidents()
        self._terms: Terms  # of the stages that keep events
        self._delivery: ExamplesDelivery | StageDelivery
        if self._plan.stage.is_last:
            self._delivery = ExamplesDelivery(pipeline, partition, source, examples_partition)
        else:
            self._delivery = StageDelivery(pipeline, self._plan, source)

    def _room(self, rows: Input, clock_us: int) -> Room:
        """Give room for what the rows can cause: each as an event and its label row, and what was due before."""
        total = 2 * rows.kind.size
        self._free_what_was_read()
        pending = self._stage.pending
        due_rows, due_bytes = count_due_kernel(pending, clock_us)
        surplus = self.pending_events() + rows.kind.size - self._terms.most
        if surplus > 0:  # so many may have to make way, and nobody knows which
            due_rows, due_bytes = due_rows + surplus, due_bytes + int(pending.arena_sizes[LIVE])
        id_bytes, key_bytes = (int(text.offsets[-1] - text.offsets[0]) for text in (rows.id, rows.key))
        if self._plan.labels.match != "id and key":  # label rows have their events' names, which may be longer
            due_bytes = int(self._stage.pending.arena_sizes[LIVE]) + id_bytes + key_bytes
        need = (total + due_rows, 2 * id_bytes + due_bytes, 2 * key_bytes + due_bytes)
        return Room(self._delivery.layout, *need, len(self._plan.stage.entities), self._memory)

    def _grow(self, text_need: int) -> None:
        self._stage = with_room(self._stage, self._plan.plan, text_need, self._scratch)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Give everything the next worker needs, as it is now: later rows change none of it, whoever reads it when."""
        state = stage_state(self._stage, self._plan) | {"sequences": self._delivery.sequences.copy()}
        self._read.append(weakref.ref(state["pending.rows"]))
        return state

    def _free_what_was_read(self) -> None:
        """Let waiting rows change again once every state that was given is written and gone."""
        if self._read and all(rows() is None for rows in self._read):
            self._read.clear()
            let_rows_change(self._stage.pending)

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on where `state` was taken; features that it was not taken for begin now.

        Raises:
            SnapshotError: when its tables go by another key, other entities or other rules of the labels.
        """
        self._stage = restored_stage(self._fitted(state), self._plan, self._scratch)
        self._read.clear()
        self._noted = self._incidents()
        self._delivery.sequences = state["sequences"].copy()

    def _fitted(self, state: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
        """Give the state as this list of features lays it out, and plan by what goes on of it."""
        found = read_outline(state["plan"])
        refuse_other_rules(found.rules, self._plan.outline.rules)
        plan = self._plan_for(found.beginnings())
        if plan.outline != found:
            change = compare(found, self._plan.outline)
            plan = self._plan_for(change.beginnings)
            state = moved_state(state, found, plan)
            for line in change.lines():
                self._tell(line)
        self._plan = plan
        return state

    def accounts(self) -> dict[str, tuple[int, dict[str, int]]]:
        """Give each account of the stage: the total, and what became of it. One in the middle has none."""
        return {}

    def unaccounted_rows(self) -> int:
        """Count the rows that an account cannot explain; 0 after every `process`."""
        return sum(abs(total - sum(states.values())) for total, states in self.accounts().values())

    def pending_events(self) -> int:
        """Count the events that wait for their label."""
        return int(self._stage.pending.waiting.sizes[WAITING])

    def late_rows(self) -> dict[int, int]:
        """Count, by window length in us, the events that were older than the window of their entity's newest."""
        late: dict[int, int] = {}
        for width, rows in zip(self._plan.plan.width_W.tolist(), self._stage.windows.late_W.tolist(), strict=True):
            late[width] = max(rows, late.get(width, 0))  # of an exact window and one of buckets as long
        return late

    def _incidents(self) -> dict[str, int]:
        """Count what happened to windows, entities and the ledger since the partition's first row."""
        counters = self._stage.counters
        return {
            "late": sum(self.late_rows().values()),
            "entity_expired": int(counters[EXPIRED]),
            "entity_evicted": int(counters[EVICTED]),
            "label_without_entity": int(counters[GONE_LABELS]),
            "pending_evicted": int(counters[PENDING_EVICTED]),
        }

    def _measure_entities(self, metrics: RoleMetrics) -> None:
        """Tell of all incidents since the last call, and how many bounded entities are known."""
        found = self._incidents()
        for what, times in found.items():
            if times > self._noted[what]:
                metrics.incident(what, times - self._noted[what])
        self._noted = found
        if self._plan.plan.is_bounded:
            metrics.entities(self._partition, int(self._stage.windows.used[HELD]))

    def is_sound(self) -> bool:
        """Always."""
        return True


def longest_names(rows: Input) -> int:
    """Give the bytes that one row's id and key can take."""
    return longest_kernel(rows.id.offsets) + longest_kernel(rows.key.offsets)
