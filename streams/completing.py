"""The last stage of a chain, row by row: events get their number, and their vectors wait for the label row.

It goes by the key again, so all rows of an event meet here, by the hash of its id and key and the first stage's number.
The first stage has settled them; nothing is decided here. The ledger (ledger.py) finds the vector of a label row that
comes, and the number of an event of which something is said later; it remembers each as long as the first stage does,
for the clock here is never ahead of the clock there.

An event waits for its label row, whatever the clock says: of an event that came late the first stage sends both at
once, and the clock here may move between them. Only at the end of all input, by which every label row has come, what
still waits was left behind when the first stage went on without its state (PROTOCOL 22), and is settled as missing. The
same goes for an event that is repeated then.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams import accounts as count
from streams import ledger as known
from streams import pending as kept
from streams.compiled import bare, inlined, straight
from streams.deadlines import NO_SLOT, due_kernel, push_kernel
from streams.frames import END, EVENT, LABEL, MISSING, NO_OUTCOME, SET
from streams.inputs import Input
from streams.label_rows import send_label_row_kernel, settle_missing_kernel
from streams.label_terms import Terms
from streams.outputs import Output, copy_row_kernel, emit_kernel, emit_names_kernel
from streams.plan import Plan
from streams.prefetching import prefetch_names_kernel
from streams.remembering import MOST_DROPPED, find_kernel, recall_settled_kernel, remember_vector_kernel
from streams.stage import Stage, has_room_kernel

Floats = npt.NDArray[np.float64]


@straight
@bare
def complete_rows_kernel(
    rows: Input, vectors_BF: Floats, plan: Plan, terms: Terms, stage: Stage, output: Output, start: int, text_need: int
) -> int:
    """Take rows from `start` on; gives the row at which some table lacks room, or the number of rows."""
    for row in range(start, rows.kind.size):
        prefetch_names_kernel(rows, row, stage)
        if rows.kind[row] == EVENT or rows.kind[row] == LABEL:
            if not has_room_kernel(stage, plan, 0, text_need):
                return row
            if rows.kind[row] == EVENT:
                _take_event(rows, row, vectors_BF, plan, terms, stage, output)
            elif rows.outcome[row] in (SET, MISSING):
                _complete(rows, row, terms, stage, output)
            else:
                _pass_on(rows, row, stage, output)
        _pass_time(rows, row, plan, terms, stage, output)
    return rows.kind.size


@inlined
def _take_event(
    rows: Input, row: int, vectors_BF: Floats, plan: Plan, terms: Terms, stage: Stage, output: Output
) -> None:
    counters, ledger, name, time_us = stage.counters, stage.ledger, rows.names[row], rows.time[row]
    place = find_kernel(stage, name)
    if ledger.words[place] & known.KIND_MASK == known.PENDING:
        settle_missing_kernel(plan, terms, stage, output, row, known.slot_kernel(ledger.words[place]))
    number = counters[count.NUMBERED]
    counters[count.NUMBERED] += 1
    at = emit_kernel(output, EVENT, NO_OUTCOME, row, time_us, rows.produced[row], number, math.nan)
    emit_names_kernel(rows, row, output, at)
    copy_row_kernel(output.vectors_BF, at, vectors_BF, row)
    slot = push_kernel(stage.pending.waiting, time_us + terms.wait_us, number, name)
    kept.keep_row_kernel(stage.pending, slot, rows, row, number)
    copy_row_kernel(stage.pending.vectors_PF, slot, vectors_BF, row)
    counters[count.PENDING] += 1
    known.wait_kernel(ledger, place, name, known.PENDING, slot)


@inlined
def _complete(rows: Input, row: int, terms: Terms, stage: Stage, output: Output) -> None:
    """Give a label row its event's vector and number."""
    counters, ledger, name = stage.counters, stage.ledger, rows.names[row]
    place = find_kernel(stage, name)
    if ledger.words[place] & known.KIND_MASK != known.PENDING:
        counters[count.UNKNOWN] += 1
        return
    slot, outcome, time_us = known.slot_kernel(ledger.words[place]), rows.outcome[row], rows.time[row]
    number = send_label_row_kernel(stage, output, slot, row, outcome, rows.label[row], time_us)
    emit_names_kernel(rows, row, output, output.sizes[0] - 1)
    counters[count.PENDING] -= 1
    kind = known.SETTLED_SET if outcome == SET else known.SETTLED_MISSING
    until_us = time_us + terms.keep_us
    known.settle_kernel(ledger, place, name, rows.keys[row], kind, number, rows.label[row], until_us)
    remember_vector_kernel(ledger, place, stage.pending.vectors_PF, slot)


@inlined
def _pass_on(rows: Input, row: int, stage: Stage, output: Output) -> None:
    """Give an amended or retracted label its event's number."""
    counters, ledger = stage.counters, stage.ledger
    word = ledger.words[find_kernel(stage, rows.names[row])]
    if known.kind_kernel(ledger, word, counters[count.CLOCK]) < known.SETTLED:
        counters[count.UNKNOWN] += 1
        return
    record = known.record_kernel(ledger, word)
    number = known.number_kernel(ledger, record)
    at = emit_kernel(output, LABEL, rows.outcome[row], row, rows.time[row], rows.produced[row], number, rows.label[row])
    emit_names_kernel(rows, row, output, at)
    recall_settled_kernel(ledger, record, output, at)


@inlined
def _pass_time(rows: Input, row: int, plan: Plan, terms: Terms, stage: Stage, output: Output) -> None:
    """Let the clock stand as it does after this row."""
    clock_us = rows.clock[row]
    stage.counters[count.CLOCK] = clock_us
    due = due_kernel(stage.pending.waiting, END) if clock_us == END else NO_SLOT
    while due != NO_SLOT:
        settle_missing_kernel(plan, terms, stage, output, row, due)
        due = due_kernel(stage.pending.waiting, END)
    known.drop_kernel(stage.ledger, clock_us, MOST_DROPPED)
