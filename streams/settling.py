"""The label's life, row by row: events get their vector and wait, labels settle them, clocks settle the rest.

One compiled pass over a partition's rows in order. Every event row leaves at once; its label row leaves when the label
comes, or as missing once `label_clock` has passed event time + wait, or more wait than may. After each row the clocks
stand as the batch says, and what they make due leaves in the order (deadline, number) with that row as its cause.
Nothing here depends on how rows were cut into batches, on the wall clock, or on where tables keep their entries.
"""

from __future__ import annotations

import math

from streams import accounts as count
from streams import ledger as known
from streams import pending as kept
from streams.compiled import bare, inlined, straight
from streams.deadlines import NO_SLOT, WAITING, due_kernel, push_kernel, remove_kernel
from streams.entities import arena_need_kernel
from streams.featuring import count_due_labels_kernel, fill_vector_kernel, hold_label_kernel
from streams.forgetting import pass_idle_kernel
from streams.frames import END, EVENT, LABEL, MISSING, NO_OUTCOME, RETRACTED, SET
from streams.inputs import Input, copy_others_kernel, is_there_kernel
from streams.key_queues import has_queues_kernel, oldest_kernel, queue_kernel
from streams.label_rows import (
    emit_kept_names_kernel,
    recall_vector_kernel,
    send_label_row_kernel,
    settle_missing_kernel,
)
from streams.label_terms import BY_BOTH, BY_KEY, Terms
from streams.outputs import DELAYS, Output, copy_row_kernel, emit_kernel, emit_names_kernel, fill_row_kernel
from streams.plan import Plan, Totals
from streams.prefetching import prefetch_kernel
from streams.remembering import (
    MOST_DROPPED,
    correct_kernel,
    find_kernel,
    remember_others_kernel,
    remember_vector_kernel,
)
from streams.stage import Stage, has_room_kernel


@straight
@bare
def take_rows_kernel(
    rows: Input,
    plan: Plan,
    terms: Terms,
    stage: Stage,
    output: Output,
    totals: Totals,
    start: int,
    text_need: int,
) -> int:
    """Take rows from `start` on; gives the row at which some table lacks room, or the number of rows."""
    arena_need = arena_need_kernel(plan)
    for row in range(start, rows.kind.size):
        prefetch_kernel(rows, row, plan, stage)
        if rows.kind[row] == EVENT or rows.kind[row] == LABEL:
            if plan.delays_D.size:
                stage.counters[count.LATEST] = max(stage.counters[count.LATEST], rows.time[row])
                if not count_due_labels_kernel(plan, stage, arena_need, text_need):
                    return row
            if not has_room_kernel(stage, plan, arena_need, text_need):
                return row
            if rows.kind[row] == EVENT:
                _take_event(rows, row, plan, terms, stage, output, totals)
            elif terms.match == BY_KEY:
                _take_nameless(rows, row, plan, terms, stage, output)
            else:
                _take_label(rows, row, plan, terms, stage, output)
        _pass_time(rows, row, plan, terms, stage, output)
    return rows.kind.size


@inlined
def _take_event(rows: Input, row: int, plan: Plan, terms: Terms, stage: Stage, output: Output, totals: Totals) -> None:
    counters, ledger, name, time_us = stage.counters, stage.ledger, rows.names[row], rows.time[row]
    counters[count.EVENTS] += 1
    place = find_kernel(stage, name)
    kind = known.kind_kernel(ledger, ledger.words[place], counters[count.CLOCK])
    if kind not in (known.EMPTY, known.EARLY):
        counters[count.DUPLICATE] += 1
        return

    number = counters[count.NUMBERED]
    counters[count.NUMBERED] += 1
    event = emit_kernel(output, EVENT, NO_OUTCOME, row, time_us, rows.produced[row], number, math.nan)
    emit_names_kernel(rows, row, output, event)
    copy_others_kernel(output.others, event, rows.others, row)
    if plan.column_F.size < output.vectors_BF.shape[1]:  # later stages fill in the others
        fill_row_kernel(output.vectors_BF, event, math.nan)
    is_known = terms.is_keyed and is_there_kernel(rows.key.valid, row)
    fill_vector_kernel(rows, row, plan, is_known, stage, totals, output.vectors_BF, event)
    if kind == known.EARLY:
        at = known.slot_kernel(ledger.words[place])
        label, label_us = stage.early.labels[at], stage.early.times[at]
        remove_kernel(stage.early.waiting, at)
        counters[count.WAITING] -= 1
        if label_us <= time_us + terms.wait_us:
            at = emit_kernel(output, LABEL, SET, row, label_us, rows.produced[row], number, label)
            emit_names_kernel(rows, row, output, at)
            recall_vector_kernel(stage, output, at, output.vectors_BF, event)
            copy_others_kernel(output.others, at, rows.others, row)
            _count_join(stage, output, label_us - time_us)
            hold_label_kernel(plan, stage, rows.keys[row], label, label_us)
            counters[count.SETTLED] += 1
            counters[count.LABEL_ROWS] += 1
            until_us = label_us + terms.keep_us
            known.settle_kernel(ledger, place, name, rows.keys[row], known.SETTLED_SET, number, label, until_us)
            remember_others_kernel(ledger, place, rows.others, row)
            remember_vector_kernel(ledger, place, output.vectors_BF, event)
            return
        counters[count.TOO_LATE] += 1
    if not terms.has_labels:
        _settle_at_once(rows, row, terms, stage, output, event, place)
        return
    slot = push_kernel(stage.pending.waiting, time_us + terms.wait_us, number, name)
    kept.keep_row_kernel(stage.pending, slot, rows, row, number)
    if kept.keeps_vectors_kernel(stage.pending):
        copy_row_kernel(stage.pending.vectors_PF, slot, output.vectors_BF, event)
    counters[count.PENDING] += 1
    known.wait_kernel(ledger, place, name, known.PENDING, slot)
    if has_queues_kernel(stage.queues):
        queue_kernel(stage.queues, stage.pending.rows, slot)


@inlined
def _take_nameless(rows: Input, row: int, plan: Plan, terms: Terms, stage: Stage, output: Output) -> None:
    """A label that names no event settles the oldest of its key that waits and is neither newer nor too old.

    The oldest, for where every event gets a label they come in order. Without a name a second label cannot be told from
    that of the next event, so nothing is early, amended or a duplicate, and there is nothing that a null takes back.
    """
    counters, time_us = stage.counters, rows.time[row]
    counters[count.LABELS] += 1
    if rows.outcome[row] == RETRACTED:
        counters[count.RETRACTED] += 1
        return
    after_us = time_us - min(terms.within_us, terms.wait_us + 1)  # up to its deadline itself an event waits
    at = oldest_kernel(stage.queues, stage.pending.rows, rows.keys[row], after_us, time_us)
    if at == NO_SLOT:
        counters[count.UNKNOWN] += 1
        return
    name = stage.pending.waiting.names[at]
    _join(rows, row, plan, terms, stage, output, find_kernel(stage, name), name, at)


@inlined
def _settle_at_once(rows: Input, row: int, terms: Terms, stage: Stage, output: Output, event: int, place: int) -> None:
    """Send the label row right behind the event: in a pipeline without labels there is nothing to wait for."""
    counters, time_us, number = stage.counters, rows.time[row], stage.counters[count.NUMBERED] - 1
    at = emit_kernel(output, LABEL, MISSING, row, time_us, rows.produced[row], number, terms.missing)
    emit_names_kernel(rows, row, output, at)
    recall_vector_kernel(stage, output, at, output.vectors_BF, event)
    copy_others_kernel(output.others, at, rows.others, row)
    counters[count.SETTLED] += 1
    counters[count.SETTLED_MISSING] += 1
    counters[count.LABEL_ROWS] += 1
    name, key, until_us = rows.names[row], rows.keys[row], time_us + terms.keep_us
    known.settle_kernel(stage.ledger, place, name, key, known.SETTLED_MISSING, number, terms.missing, until_us)
    remember_others_kernel(stage.ledger, place, rows.others, row)


@inlined
def _take_label(rows: Input, row: int, plan: Plan, terms: Terms, stage: Stage, output: Output) -> None:
    counters, ledger, name, time_us = stage.counters, stage.ledger, rows.names[row], rows.time[row]
    label, is_retraction = rows.label[row], rows.outcome[row] == RETRACTED
    counters[count.LABELS] += 1
    place = find_kernel(stage, name)
    word = ledger.words[place]
    kind = known.kind_kernel(ledger, word, counters[count.CLOCK])
    if kind == known.EMPTY:
        if is_retraction:
            counters[count.RETRACTED] += 1
            return
        counters[count.WAITING] += 1
        _keep_early(terms, stage, place, name, rows.keys[row], label, time_us)
    elif kind == known.EARLY:
        _take_second_early(terms, stage, place, name, rows.keys[row], label, time_us, is_retraction)
    elif kind == known.PENDING:
        at = known.slot_kernel(word)
        event_us = stage.pending.rows[at, kept.TIME]
        if is_retraction:
            counters[count.RETRACTED] += 1
        elif time_us > event_us + terms.wait_us:
            counters[count.TOO_LATE] += 1
        else:
            _join(rows, row, plan, terms, stage, output, place, name, at)
    elif kind == known.SETTLED_MISSING:
        counters[count.TOO_LATE] += 1
    else:
        record = known.record_kernel(ledger, word)
        if is_retraction == (kind == known.SETTLED_RETRACTED) and (
            is_retraction or label == ledger.values[record, known.VALUE]
        ):
            counters[count.LABEL_DUPLICATE] += 1
        else:
            correct_kernel(rows, row, stage, output, record, label, is_retraction)


@inlined
def _join(
    rows: Input, row: int, plan: Plan, terms: Terms, stage: Stage, output: Output, place: int, name: int, at: int
) -> None:
    """Settle the event that waits in slot `at`, and has its word at `place`, with the label of a row."""
    pending, ledger, label, time_us = stage.pending, stage.ledger, rows.label[row], rows.time[row]
    delay_us = time_us - pending.rows[at, kept.TIME]
    hold_label_kernel(plan, stage, pending.rows[at, kept.KEY], label, time_us)
    number = send_label_row_kernel(stage, output, at, row, SET, label, time_us)
    if terms.match == BY_BOTH:
        emit_names_kernel(rows, row, output, output.sizes[0] - 1)
    else:
        emit_kept_names_kernel(pending, at, output, output.sizes[0] - 1)
    _count_join(stage, output, delay_us)
    stage.counters[count.PENDING] -= 1
    until_us = time_us + terms.keep_us
    known.settle_kernel(ledger, place, name, rows.keys[row], known.SETTLED_SET, number, label, until_us)
    remember_others_kernel(ledger, place, pending.others, at)
    remember_vector_kernel(ledger, place, pending.vectors_PF, at)


@inlined
def _keep_early(terms: Terms, stage: Stage, place: int, name: int, key: int, label: float, time_us: int) -> None:
    early = stage.early
    slot = push_kernel(early.waiting, time_us + terms.wait_us, stage.counters[count.LABELS], name)
    early.labels[slot] = label
    early.times[slot] = time_us
    early.keys[slot] = key
    known.wait_kernel(stage.ledger, place, name, known.EARLY, slot)


@inlined
def _take_second_early(
    terms: Terms, stage: Stage, place: int, name: int, key: int, label: float, time_us: int, is_retraction: bool
) -> None:
    """A label of which one waits already: it repeats, replaces or retracts that one."""
    counters, slot = stage.counters, known.slot_kernel(stage.ledger.words[place])
    if not is_retraction and label == stage.early.labels[slot]:
        counters[count.LABEL_DUPLICATE] += 1
        return
    remove_kernel(stage.early.waiting, slot)
    if is_retraction:
        counters[count.WAITING] -= 1
        counters[count.RETRACTED] += 2  # the label that waited, and the one that retracts it
        known.forget_kernel(stage.ledger, place)
        return
    counters[count.AMENDED] += 1
    _keep_early(terms, stage, place, name, key, label, time_us)


@inlined
def _count_join(stage: Stage, output: Output, delay_us: int) -> None:
    stage.counters[count.JOINED] += 1
    output.delay[output.sizes[DELAYS]] = delay_us
    output.sizes[DELAYS] += 1


@inlined
def _pass_time(rows: Input, row: int, plan: Plan, terms: Terms, stage: Stage, output: Output) -> None:
    """Let the clocks stand as they do after this row: settle what is missing, forget early labels and idle entities."""
    counters, early = stage.counters, stage.early.waiting
    counters[count.LABEL_CLOCK] = rows.label_clock[row]
    counters[count.CLOCK] = rows.clock[row]
    due = _next_missing(terms, stage, rows.label_clock[row])
    while due != NO_SLOT:
        settle_missing_kernel(plan, terms, stage, output, row, due)
        due = _next_missing(terms, stage, rows.label_clock[row])
    due = due_kernel(early, rows.clock[row])
    while due != NO_SLOT:
        name = early.names[due]
        remove_kernel(early, due)
        counters[count.WAITING] -= 1
        counters[count.UNKNOWN] += 1
        known.forget_kernel(stage.ledger, find_kernel(stage, name))
        due = due_kernel(early, rows.clock[row])
    known.drop_kernel(stage.ledger, rows.clock[row], MOST_DROPPED)
    if plan.is_bounded:
        pass_idle_kernel(plan, stage, rows.clock[row])


@inlined
def _next_missing(terms: Terms, stage: Stage, label_clock_us: int) -> int:
    """Give the next event whose label counts as missing: it is due, or the first to be due of more than may wait."""
    waiting = stage.pending.waiting
    due = due_kernel(waiting, label_clock_us)
    if due == NO_SLOT and waiting.sizes[WAITING] > terms.most:
        due = due_kernel(waiting, END)
        stage.counters[count.PENDING_EVICTED] += 1
    return due
