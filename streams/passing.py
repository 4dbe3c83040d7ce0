"""A stage in the middle of a chain, row by row: events get the columns of its entity, settled labels enter its windows.

Every row goes on as it came but for those columns. What settled an event in the first stage counts here from its own
time on (held.py); amended and retracted labels change no window, they were settled before. Label rows carry their
event's entities, so they follow it into the same partition of every stage.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams import accounts as count
from streams.compiled import bare, straight
from streams.entities import arena_need_kernel
from streams.featuring import count_due_labels_kernel, fill_vector_kernel, hold_label_kernel
from streams.forgetting import pass_idle_kernel
from streams.frames import EVENT, LABEL, MISSING, SET
from streams.inputs import NO_KEY, Input
from streams.plan import Plan, Totals
from streams.prefetching import prefetch_kernel
from streams.stage import Stage, has_room_kernel


@straight
@bare
def pass_rows_kernel(
    rows: Input,
    plan: Plan,
    is_keyed: bool,
    stage: Stage,
    vectors_BF: npt.NDArray[np.float64],
    totals: Totals,
    start: int,
) -> int:
    """Take rows from `start` on; gives the row at which some table lacks room, or the number of rows.

    `vectors_BF` are the rows' own; the stage's columns are filled in.
    """
    arena_need = arena_need_kernel(plan)
    for row in range(start, rows.kind.size):
        prefetch_kernel(rows, row, plan, stage)
        is_event = rows.kind[row] == EVENT
        if is_event or rows.kind[row] == LABEL:
            if plan.delays_D.size:
                if is_event or rows.outcome[row] == SET:  # others are not in the order of time (merging.py)
                    stage.counters[count.LATEST] = max(stage.counters[count.LATEST], rows.time[row])
                if not count_due_labels_kernel(plan, stage, arena_need, 0):
                    return row
            if not has_room_kernel(stage, plan, arena_need, 0):
                return row
            if is_event:
                is_known = is_keyed and rows.keys[row] != NO_KEY
                fill_vector_kernel(rows, row, plan, is_known, stage, totals, vectors_BF, row)
            elif rows.outcome[row] in (SET, MISSING):
                hold_label_kernel(plan, stage, rows.keys[row], rows.label[row], rows.time[row])
        if plan.is_bounded:
            pass_idle_kernel(plan, stage, rows.clock[row])
    return rows.kind.size
