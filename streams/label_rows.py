"""Label rows of events that wait: what is kept of the event leaves with its label, or as missing.

A pending row (pending.py) holds all that its label row needs: number, time, entities, id and key, and in the stage that
keeps them the vector. It leaves its slot, and its queue, as it is sent.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams import accounts as count
from streams import ledger as known
from streams import pending as kept
from streams.compiled import inlined
from streams.deadlines import remove_kernel
from streams.featuring import hold_label_kernel
from streams.frames import LABEL, MISSING
from streams.inputs import copy_others_kernel
from streams.key_queues import has_queues_kernel, unqueue_kernel
from streams.label_terms import Terms
from streams.outputs import KEYLESS, Output, copy_row_kernel, emit_kernel, emit_text_kernel, fill_row_kernel
from streams.plan import Plan
from streams.remembering import find_kernel, remember_others_kernel, remember_vector_kernel
from streams.stage import Stage

Floats = npt.NDArray[np.float64]


@inlined
def settle_missing_kernel(plan: Plan, terms: Terms, stage: Stage, output: Output, cause: int, slot: int) -> None:
    """Settle the pending event of a slot as missing."""
    pending = stage.pending
    name, words = pending.waiting.names[slot], pending.rows
    deadline_us = words[slot, kept.TIME] + terms.wait_us
    at = output.sizes[0]
    hold_label_kernel(plan, stage, words[slot, kept.KEY], terms.missing, deadline_us)
    number = send_label_row_kernel(stage, output, slot, cause, MISSING, terms.missing, deadline_us)
    emit_kept_names_kernel(pending, slot, output, at)
    stage.counters[count.PENDING] -= 1
    stage.counters[count.SETTLED_MISSING] += 1
    until_us = deadline_us + terms.keep_us
    place = find_kernel(stage, name)
    key = words[slot, kept.KEY]
    known.settle_kernel(stage.ledger, place, name, key, known.SETTLED_MISSING, number, terms.missing, until_us)
    remember_others_kernel(stage.ledger, place, pending.others, slot)
    remember_vector_kernel(stage.ledger, place, pending.vectors_PF, slot)


@inlined
def send_label_row_kernel(
    stage: Stage, output: Output, slot: int, cause: int, outcome: int, label: float, time_us: int
) -> int:
    """Send the label row of a pending row and give its number; the row's id and key follow."""
    pending = stage.pending
    number: int = pending.rows[slot, kept.NUMBER]
    at = emit_kernel(output, LABEL, outcome, cause, time_us, pending.rows[slot, kept.PRODUCED], number, label)
    recall_vector_kernel(stage, output, at, pending.vectors_PF, slot)
    copy_others_kernel(output.others, at, pending.others, slot)
    if has_queues_kernel(stage.queues):
        unqueue_kernel(stage.queues, pending.rows, slot)
    remove_kernel(pending.waiting, slot)
    kept.forget_text_kernel(pending, slot)
    stage.counters[count.SETTLED] += 1
    stage.counters[count.LABEL_ROWS] += 1
    return number


@inlined
def recall_vector_kernel(stage: Stage, output: Output, at: int, vectors_BF: Floats, row: int) -> None:
    """Give a label row its event's vector, if this is the stage that keeps it."""
    if kept.keeps_vectors_kernel(stage.pending):
        copy_row_kernel(output.vectors_BF, at, vectors_BF, row)
    else:
        fill_row_kernel(output.vectors_BF, at, math.nan)


@inlined
def emit_kept_names_kernel(pending: kept.Pending, slot: int, output: Output, at: int) -> None:
    """Write the id and key of a pending row to an output row; they are there until the next row is kept."""
    words = pending.rows
    start, id_size, key_size = words[slot, kept.TEXT], words[slot, kept.ID_SIZE], words[slot, kept.KEY_SIZE]
    emit_text_kernel(output.id_offsets, output.id_data, at, pending.arena, start, id_size)
    emit_text_kernel(output.key_offsets, output.key_data, at, pending.arena, start + id_size, max(key_size, 0))
    output.key_valid[at] = key_size >= 0
    output.sizes[KEYLESS] += key_size < 0
