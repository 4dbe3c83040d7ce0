"""Entities: which head of the windows' state belongs to which key, and room for more of them.

A key is known by its 64-bit hash. An entity's number is the place of its head: one that a forgotten entity has left
(forgetting.py), else the next. It shows in no output, and neither does how the table lies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.intrinsics import prefetch
from streams.memory import zeros
from streams.plan import Plan
from streams.windows import (
    ARENA_DEAD,
    ARENA_END,
    ARENA_LIMIT,
    CHUNK,
    ENTITIES,
    FREE,
    HELD,
    KEPT,
    KEY,
    LIMIT,
    NEVER,
    NEWEST,
    NEWEST_LABEL,
    NO_CHUNK,
    OLDER,
    ROOM_BITS,
    Windows,
    ones_kernel,
    room_kernel,
)

SMALLEST_TABLE = 1_024  # places; always a power of two
SMALLEST_HEADS = 256
SMALLEST_ARENA = 4_096  # words
ARENA_GROWTH = 4  # an arena grows by a quarter at a time
DEAD_SHARE = 3  # an arena is packed when a third of it is what moved chunks left behind
AHEAD = 8  # entities whose chunks are asked for before they are moved


class Entities(NamedTuple):
    """Table from a key's hash to its entity."""

    table: npt.NDArray[np.int64]  # [capacity, 2] hash, entity + 1 (0 = empty)


def empty_windows(windows: int, head_words: int) -> Windows:
    """Give the state of no entity."""
    heads, arena = zeros((SMALLEST_HEADS * head_words,), np.int64), zeros((SMALLEST_ARENA,), np.int64)
    used, late = np.array([0, 0, SMALLEST_ARENA, 0, 0, 0, 0, 0]), np.zeros(windows, np.int64)
    return Windows(heads, heads.view(np.float64), arena, arena.view(np.float64), used, late)


def empty_entities(capacity: int = SMALLEST_TABLE) -> Entities:
    """Give a table without entities."""
    return Entities(zeros((capacity, 2), np.int64))


@bare
def arena_need_kernel(plan: Plan) -> int:
    """Words of the arena that one event can take at most."""
    need: int = 0
    for window in range(plan.bucket_windows):
        need += 1 + KEPT * (plan.lane_start[window + 1] - plan.lane_start[window])
    return need


@inlined
def entity_kernel(entities: Entities, plan: Plan, windows: Windows, key: int) -> int:
    """Give the entity of a key's hash; a new one gets an empty head. The caller has made sure that there is room."""
    mask = entities.table.shape[0] - 1
    place = key & mask
    while entities.table[place, 1] != 0:
        if entities.table[place, 0] == key:
            return int(entities.table[place, 1] - 1)
        place = (place + 1) & mask
    entity = _head_kernel(plan, windows)
    entities.table[place, 0] = key
    entities.table[place, 1] = entity + 1
    head = entity * plan.head_words
    for word in range(plan.head_words):
        windows.heads[head + word] = 0
    windows.heads[head + NEWEST] = windows.heads[head + NEWEST_LABEL] = NEVER
    if plan.is_bounded:
        windows.heads[head + KEY] = key
    for window in range(plan.bucket_windows):
        windows.heads[head + plan.word_W[window] + LIMIT] = NEVER
        windows.heads[head + plan.word_W[window] + CHUNK] = NO_CHUNK
    return entity


@inlined
def _head_kernel(plan: Plan, windows: Windows) -> int:
    """Give the number of a head that is free."""
    entity: int = windows.used[FREE] - 1
    if entity >= 0:
        windows.used[FREE] = windows.heads[entity * plan.head_words + OLDER]
    else:
        entity = windows.used[ENTITIES]
        windows.used[ENTITIES] = entity + 1
    windows.used[HELD] += 1
    return entity


@inlined
def lacks_entity_room_kernel(entities: Entities, plan: Plan, windows: Windows) -> bool:
    """Whether a new entity would find no head or too full a table; at the cap it takes another one's place."""
    held = windows.used[HELD]
    is_at_cap = 0 < plan.most <= held
    return bool(
        not is_at_cap and ((held + 1) * plan.head_words > windows.heads.size or is_crowded_kernel(entities, held))
    )


@inlined
def is_crowded_kernel(entities: Entities, held: int) -> bool:
    """Whether more than five eighths of the table are taken."""
    return bool(held * 8 >= entities.table.shape[0] * 5)


@inlined
def remove_key_kernel(entities: Entities, key: int) -> None:
    """Take a key that is there out of the table; those behind it that it kept from their place move up."""
    table = entities.table
    mask = table.shape[0] - 1
    hole = key & mask
    while table[hole, 0] != key:
        hole = (hole + 1) & mask
    place = (hole + 1) & mask
    while table[place, 1] != 0:
        if (place - table[place, 0]) & mask >= (place - hole) & mask:
            table[hole, 0] = table[place, 0]
            table[hole, 1] = table[place, 1]
            hole = place
        place = (place + 1) & mask
    table[hole, 1] = 0


@inlined
def find_entity_kernel(entities: Entities, key: int) -> int:
    """Give the entity of a key's hash if there is one."""
    mask = entities.table.shape[0] - 1
    place = key & mask
    while entities.table[place, 1] != 0:
        if entities.table[place, 0] == key:
            break
        place = (place + 1) & mask
    return int(entities.table[place, 1] - 1)


@inlined
def ask_for_kernel(entities: Entities, key: int) -> None:
    """Ask for the table's cache line of a key's hash, which will be looked up soon."""
    prefetch(entities.table, (key & (entities.table.shape[0] - 1)) * 2)


@bare
def enter_all_kernel(entities: Entities, fresh: Entities) -> None:
    """Enter all entities into a larger table."""
    mask = fresh.table.shape[0] - 1
    for place in range(entities.table.shape[0]):
        if entities.table[place, 1] != 0:
            to = entities.table[place, 0] & mask
            while fresh.table[to, 1] != 0:
                to = (to + 1) & mask
            fresh.table[to, 0] = entities.table[place, 0]
            fresh.table[to, 1] = entities.table[place, 1]


def arena_limit(words: int) -> int:
    """Say how far an arena of so many words may go on before it is packed: a quarter of all."""
    return words + words // ARENA_GROWTH + SMALLEST_ARENA


def with_longer_arena(windows: Windows, plan: Plan, need: int) -> Windows:
    """Give the same windows with room for `need` words more and a quarter of all; packed where that frees a third."""
    end, dead = int(windows.used[ARENA_END]), int(windows.used[ARENA_DEAD])
    limit = arena_limit(end) + need
    if dead * DEAD_SHARE >= end or limit > windows.arena.size:
        return packed(windows, plan, need)
    windows.used[ARENA_LIMIT] = limit
    return windows


def packed(windows: Windows, plan: Plan, need: int) -> Windows:
    """Give the same windows with their chunks moved together, and room for `need` words more and a quarter of all."""
    # A chunk with room for one bucket more may take twice its words; what the packed ones leave is never touched.
    arena = zeros((3 * int(windows.used[ARENA_END]) + 2 * need + SMALLEST_ARENA,), np.int64)
    pack_chunks_kernel(windows, plan, arena)
    live = int(windows.used[ARENA_END])
    windows.used[ARENA_LIMIT] = arena_limit(live) + need
    return windows._replace(arena=arena, arena_sums=arena.view(np.float64))


@bare
def pack_chunks_kernel(windows: Windows, plan: Plan, arena: npt.NDArray[np.int64]) -> None:
    """Move all chunks into `arena`, entity by entity."""
    end, entities = 0, windows.used[ENTITIES]
    for entity in range(entities):
        if entity + AHEAD < entities:
            for window in range(plan.bucket_windows):
                later = windows.heads[(entity + AHEAD) * plan.head_words + plan.word_W[window] + CHUNK]
                prefetch(windows.arena, max(later, 0))
        for window in range(plan.bucket_windows):
            word = entity * plan.head_words + plan.word_W[window] + CHUNK
            chunk = windows.heads[word]
            if chunk == NO_CHUNK:
                continue
            lanes = plan.lane_start[window + 1] - plan.lane_start[window]
            filled = windows.arena[chunk] >> ROOM_BITS
            held = ones_kernel(filled)
            if held == 0:
                windows.heads[word] = NO_CHUNK
                continue
            room = room_kernel(held)
            arena[end] = (filled << ROOM_BITS) | room
            for place in range(1, 1 + held * lanes):
                arena[end + place] = windows.arena[chunk + place]
            windows.heads[word] = end
            end += 1 + room * lanes
    windows.used[ARENA_END] = end
    windows.used[ARENA_DEAD] = 0
