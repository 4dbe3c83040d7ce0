"""Pending rows: what an event's label row will need, kept from the event until that row leaves.

A slot of `waiting` (deadlines.py) is the row's place here: its vector, number and times, and where its id and key lie
in a byte arena. The arena only grows at its end; when it is full, the texts of rows that still wait are moved together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined, straight
from streams.deadlines import (
    ITEMS,
    MEMORY,
    READ,
    SLOTS,
    Deadlines,
    deadlines_state,
    empty_deadlines,
    is_alive_kernel,
    longer_deadlines,
    restored_deadlines,
)
from streams.inputs import Input, copy_others_kernel, is_there_kernel
from streams.intrinsics import copy_items
from streams.scratch import Scratch, let_go

# Words of a row; KEY_SIZE is -1 without a key, KEY is the key's hash or NO_KEY.
TIME, NUMBER, PRODUCED, TEXT, ID_SIZE, KEY_SIZE, KEY = 0, 1, 2, 3, 4, 5, 6
WORDS = 7
USED, LIVE = 0, 1  # bytes of the arena: up to its end, and of rows that still wait
SMALLEST_ARENA_BYTES = 1 << 18


class Pending(NamedTuple):
    """Rows that wait, by slot. P slots, F features."""

    waiting: Deadlines
    rows: npt.NDArray[np.int64]  # [P, WORDS]
    vectors_PF: npt.NDArray[np.float64]
    others: npt.NDArray[np.int64]  # [P, E] hashes of the event's other entities, where there is a chain of stages
    arena: npt.NDArray[np.uint8]
    arena_sizes: npt.NDArray[np.int64]


def empty_pending(features: int, entities: int) -> Pending:
    """Give a store without rows, for vectors of so many features; the first stage of a chain keeps none."""
    waiting = empty_deadlines()
    slots = waiting.orders.size
    return Pending(
        waiting,
        np.empty((slots, WORDS), np.int64),
        np.empty((slots, features)),
        np.empty((slots, entities), np.int64),
        np.empty(SMALLEST_ARENA_BYTES, np.uint8),
        np.zeros(2, np.int64),
    )


def longer_pending(pending: Pending, scratch: Scratch) -> Pending:
    """Give the same rows with more slots."""
    used, waiting = int(pending.waiting.sizes[SLOTS]), longer_deadlines(pending.waiting, scratch)
    rows, vectors, others = (scratch.resized(table, waiting.orders.size, used) for table in _tables(pending))
    return pending._replace(waiting=waiting, rows=rows, vectors_PF=vectors, others=others)


def with_text_room(pending: Pending, text_need: int, scratch: Scratch = MEMORY) -> Pending:
    """Give the same rows with room for so many bytes of text; packed, unless somebody reads them.

    A packed arena is at least two thirds empty afterwards, so packing costs little per row.
    """
    sizes = pending.arena_sizes
    if pending.waiting.sizes[READ]:
        size, used = pending.arena.size + pending.arena.size // 2 + text_need, int(sizes[USED])
        return pending._replace(arena=scratch.resized(pending.arena, size, used))
    size = int(3 * sizes[LIVE]) + text_need
    if size <= SMALLEST_ARENA_BYTES:  # malloc's: what the last packing freed is used again, its pages are there
        arena = np.empty(SMALLEST_ARENA_BYTES, np.uint8)
    else:
        arena = scratch.zeros((size,), np.uint8)
    pack_kernel(pending, arena)
    return pending._replace(arena=arena)


def pending_state(pending: Pending) -> dict[str, npt.NDArray[np.generic]]:
    """Give what a snapshot keeps. Rows, vectors and texts are no copies: they stay as they are until `let_rows_change`.

    Until then what comes is written behind them, so that the stream goes on while they are read.
    """
    slots = pending.waiting.sizes[SLOTS]
    state: dict[str, npt.NDArray[np.generic]] = {
        f"waiting.{name}": array for name, array in deadlines_state(pending.waiting).items()
    }
    pending.waiting.sizes[READ] = 1
    state["rows"] = _to_read(pending.rows[:slots])
    state["vectors"] = _to_read(pending.vectors_PF[:slots])
    state["others"] = _to_read(pending.others[:slots])
    state["arena"] = _to_read(pending.arena[: pending.arena_sizes[USED]])
    state["arena_sizes"] = pending.arena_sizes.copy()
    return state


def let_rows_change(pending: Pending) -> None:
    """Let slots be used again, for nobody reads what `pending_state` gave; what lies in files is let go of."""
    pending.waiting.sizes[READ] = 0
    for table in (pending.waiting.heap, pending.waiting.orders, *_tables(pending), pending.arena):
        let_go(table)


def restored_pending(state: Mapping[str, npt.NDArray[Any]], scratch: Scratch) -> Pending:
    """Give the rows that `pending_state` described."""
    waiting = restored_deadlines(state, "pending.waiting.", scratch)
    rows, vectors, others = (
        scratch.copied(state[f"pending.{name}"], waiting.orders.size) for name in ("rows", "vectors", "others")
    )
    arena = scratch.copied(state["pending.arena"], max(state["pending.arena"].size, SMALLEST_ARENA_BYTES))
    return Pending(waiting, rows, vectors, others, arena, state["pending.arena_sizes"].copy())


def _tables(pending: Pending) -> tuple[npt.NDArray[Any], ...]:
    return pending.rows, pending.vectors_PF, pending.others


def _to_read(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


@inlined
def keep_row_kernel(pending: Pending, slot: int, rows: Input, row: int, number: int) -> None:
    """Keep what an event's label row will need; its vector follows."""
    words = pending.rows
    words[slot, TIME] = rows.time[row]
    words[slot, NUMBER] = number
    words[slot, KEY] = rows.keys[row]
    words[slot, PRODUCED] = rows.produced[row]
    words[slot, TEXT] = pending.arena_sizes[USED]
    copy_others_kernel(pending.others, slot, rows.others, row)
    start = rows.id.offsets[row]
    _keep_text(pending, slot, rows.id.data, start, rows.id.offsets[row + 1] - start, ID_SIZE)
    words[slot, KEY_SIZE] = -1
    if is_there_kernel(rows.key.valid, row):
        start = rows.key.offsets[row]
        _keep_text(pending, slot, rows.key.data, start, rows.key.offsets[row + 1] - start, KEY_SIZE)


@inlined
def keeps_vectors_kernel(pending: Pending) -> bool:
    """Whether vectors are kept here; the first stage of a chain leaves that to the last."""
    return bool(pending.vectors_PF.shape[1] > 0)


@inlined
def _keep_text(pending: Pending, slot: int, data: npt.NDArray[np.uint8], start: int, size: int, word: int) -> None:
    """Append an id or key to the arena; `word` is where its size goes."""
    end = pending.arena_sizes[USED]
    copy_items(pending.arena, end, data, start, size)
    pending.rows[slot, word] = size
    pending.arena_sizes[USED] += size
    pending.arena_sizes[LIVE] += size


@inlined
def forget_text_kernel(pending: Pending, slot: int) -> None:
    """Count a row's text as gone; its bytes stay until the arena is packed."""
    pending.arena_sizes[LIVE] -= pending.rows[slot, ID_SIZE] + max(pending.rows[slot, KEY_SIZE], 0)


@bare
def pack_kernel(pending: Pending, arena: npt.NDArray[np.uint8]) -> None:
    """Move the texts of all waiting rows into `arena`, without gaps."""
    end = 0
    for place in range(pending.waiting.sizes[ITEMS]):
        if not is_alive_kernel(pending.waiting, place):
            continue
        slot = pending.waiting.heap[place, 2]
        start = pending.rows[slot, TEXT]
        size = pending.rows[slot, ID_SIZE] + max(pending.rows[slot, KEY_SIZE], 0)
        copy_items(arena, end, pending.arena, start, size)
        pending.rows[slot, TEXT] = end
        end += size
    pending.arena_sizes[USED] = end


@straight
@bare
def count_due_kernel(pending: Pending, clock_us: int) -> tuple[int, int]:
    """Count the rows, and the bytes of their text, that are due when the clock stands at `clock_us`.

    Walks the top of the heap only, from parent to child where the parent is due, else to the next sibling.
    """
    heap, items = pending.waiting.heap, pending.waiting.sizes[ITEMS]
    rows, size, place = 0, 0, 0
    while True:
        if place < items and heap[place, 0] < clock_us:
            if is_alive_kernel(pending.waiting, place):
                slot = heap[place, 2]
                rows += 1
                size += pending.rows[slot, ID_SIZE] + max(pending.rows[slot, KEY_SIZE], 0)
            place = 2 * place + 1
            continue
        while place > 0 and place % 2 == 0:
            place = (place - 1) >> 1
        if place == 0:
            return rows, size
        place += 1
