"""What stages that keep windows have in common: an event's columns, and labels on their way into windows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams import accounts as count
from streams.compiled import inlined
from streams.entities import ask_for_kernel, entity_kernel
from streams.forgetting import labelled_entity_kernel, touched_entity_kernel
from streams.held import count_label_kernel, due_label_kernel, hold_kernel
from streams.inputs import NO_ENTITY, NO_KEY, Input
from streams.observing import observe_kernel
from streams.plan import Plan, Totals
from streams.stage import Stage, has_room_kernel
from streams.vectors import write_vector_kernel


@inlined
def fill_vector_kernel(
    rows: Input,
    row: int,
    plan: Plan,
    is_known: bool,
    stage: Stage,
    totals: Totals,
    vectors_BF: npt.NDArray[np.float64],
    at: int,
) -> None:
    """Compute an event's columns; `is_known` says whether it has an entity and is asked for it."""
    elapsed_s = math.nan
    if is_known:
        entity = rows.entities[row]
        if plan.is_bounded:
            entity = touched_entity_kernel(plan, stage, entity, rows.keys[row])
        elif entity == NO_ENTITY:
            entity = entity_kernel(stage.entities, plan, stage.windows, rows.keys[row])
        elapsed_s = observe_kernel(
            plan, stage.windows, stage.exact, entity, rows.time[row], rows.values_KB, row, totals
        )
    write_vector_kernel(plan, rows.values_KB, row, rows.time[row], elapsed_s, totals, is_known, vectors_BF, at)


@inlined
def count_due_labels_kernel(plan: Plan, stage: Stage, arena_need: int, text_need: int) -> bool:
    """Add the labels to their windows whose time the log has reached; false when they need room first."""
    due = due_label_kernel(stage.held, stage.counters[count.LATEST])
    while due >= 0:
        if not has_room_kernel(stage, plan, arena_need, text_need):
            return False
        entity = labelled_entity_kernel(plan, stage, stage.held.waiting.names[due])
        count_label_kernel(stage.held, plan, stage.windows, due, entity)
        due = due_label_kernel(stage.held, stage.counters[count.LATEST])
    return True


@inlined
def hold_label_kernel(plan: Plan, stage: Stage, key: int, label: float, time_us: int) -> None:
    """Keep a label for its entity's label features, if there are any and it is one."""
    if plan.delays_D.size and key != NO_KEY and not math.isnan(label):
        ask_for_kernel(stage.entities, key)
        hold_kernel(stage.held, plan, key, label, time_us)
