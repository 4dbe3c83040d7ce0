"""Asking for memory ahead of need: while a row is taken, the cache lines of later rows are already on their way.

With 100,000 keys the state is far larger than the caches, and a row that waits for each of its lines in turn takes
several times as long. Nothing here changes any state; a wrong guess costs time only.
"""

from __future__ import annotations

from streams.compiled import inlined
from streams.entities import ask_for_kernel, find_entity_kernel
from streams.frames import EVENT, LABEL
from streams.inputs import NO_ENTITY, Input
from streams.intrinsics import prefetch
from streams.ledger import KIND_MASK, PENDING, guess_kernel, home_kernel, slot_kernel
from streams.pending import WORDS
from streams.plan import Plan
from streams.stage import Stage
from streams.windows import CHUNK, LIMIT, NEWER, NO_CHUNK, OLDER

# Rows ahead at which tables, then what they point to, then what that points to, are asked for.
TABLES, ROWS, CHUNKS = 24, 14, 6
LINE_WORDS = 8
CHUNK_LINES = 3


@inlined
def prefetch_kernel(rows: Input, row: int, plan: Plan, stage: Stage) -> None:
    """Ask for what the rows after `row` will read."""
    total = rows.kind.size
    prefetch_names_kernel(rows, row, stage)
    if row + TABLES < total:
        ask_for_kernel(stage.entities, rows.keys[row + TABLES])
    if row + ROWS < total and rows.kind[row + ROWS] == EVENT:
        _prefetch_head(rows, row + ROWS, stage, plan)
    if row + CHUNKS < total and rows.kind[row + CHUNKS] == EVENT:
        _prefetch_chunks(stage, plan, rows.entities[row + CHUNKS], rows.time[row + CHUNKS])


@inlined
def prefetch_names_kernel(rows: Input, row: int, stage: Stage) -> None:
    """Ask for what the rows after `row` will read of the ledger and of waiting rows; the last stage has no windows."""
    total = rows.kind.size
    if row + TABLES < total:
        prefetch(stage.ledger.words, home_kernel(stage.ledger, rows.names[row + TABLES]))
    if row + ROWS < total and rows.kind[row + ROWS] == LABEL:
        _prefetch_pending(stage, rows.names[row + ROWS])


@inlined
def _prefetch_head(rows: Input, row: int, stage: Stage, plan: Plan) -> None:
    entity = find_entity_kernel(stage.entities, rows.keys[row])
    rows.entities[row] = entity
    if entity != NO_ENTITY:
        head = entity * plan.head_words
        for word in range(head, head + plan.head_words, LINE_WORDS):
            prefetch(stage.windows.heads, word)
        prefetch(stage.windows.heads, head + plan.head_words - 1)


@inlined
def _prefetch_pending(stage: Stage, name: int) -> None:
    word = guess_kernel(stage.ledger, name)
    if word & KIND_MASK == PENDING:
        slot, words = slot_kernel(word), stage.pending.vectors_PF.shape[1]
        prefetch(stage.pending.rows, slot * WORDS)
        prefetch(stage.pending.waiting.names, slot)
        prefetch(stage.pending.waiting.orders, slot)
        for word in range(0, words, LINE_WORDS):
            prefetch(stage.pending.vectors_PF, slot * words + word)


@inlined
def _prefetch_neighbours(stage: Stage, plan: Plan, entity: int) -> None:
    """Ask for the heads between which a bounded entity stands in the list, for it will leave that place."""
    heads, head = stage.windows.heads, entity * plan.head_words
    prefetch(heads, max(heads[head + OLDER] - 1, 0) * plan.head_words + NEWER)
    prefetch(heads, max(heads[head + NEWER] - 1, 0) * plan.head_words + OLDER)


@inlined
def _prefetch_chunks(stage: Stage, plan: Plan, entity: int, time_us: int) -> None:
    if entity == NO_ENTITY:
        return
    if plan.is_bounded:
        _prefetch_neighbours(stage, plan, entity)
    for window in range(plan.bucket_windows):
        word = entity * plan.head_words + plan.word_W[window]
        chunk = stage.windows.heads[word + CHUNK]
        if chunk != NO_CHUNK and time_us >= stage.windows.heads[word + LIMIT]:
            for line in range(CHUNK_LINES):
                prefetch(stage.windows.arena, chunk + line * LINE_WORDS)
