"""Entities: which head of the windows' state belongs to which key, and room for more of them.

A key is known by its 64-bit hash. An entity's number is its place in the order of first events, so that nothing depends
on how the table lies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.features import Plan
from streams.windows import CHUNK, CLASSES, KEPT, LIMIT, NEVER, NEWEST, NO_CHUNK, Windows

SMALLEST_TABLE = 1_024  # places; always a power of two
SMALLEST_HEADS = 256
NO_ENTITY = -1


class Entities(NamedTuple):
    """Table from a key's hash to its entity."""

    table: npt.NDArray[np.int64]  # [capacity, 2] hash, entity + 1 (0 = empty)


def empty_windows(windows: int, head_words: int) -> Windows:
    """Give the state of no entity."""
    heads = np.empty((SMALLEST_HEADS, head_words), np.int64)
    arena = np.empty(SMALLEST_TABLE, np.int64)
    free = np.full((windows, CLASSES), NO_CHUNK, np.int64)
    used, late = np.zeros(2, np.int64), np.zeros(windows, np.int64)
    return Windows(heads, heads.view(np.float64), arena, arena.view(np.float64), free, used, late)


def empty_entities(capacity: int = SMALLEST_TABLE) -> Entities:
    """Give a table without entities."""
    return Entities(np.zeros((capacity, 2), np.int64))


@bare
def arena_need_kernel(plan: Plan) -> int:
    """Words of the arena that one event can take at most."""
    need: int = 0
    for window in range(plan.width_W.size):
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
    entity: int = windows.used[0]
    windows.used[0] = entity + 1
    entities.table[place, 0] = key
    entities.table[place, 1] = entity + 1
    for word in range(windows.heads.shape[1]):
        windows.head_lanes[entity, word] = 0.0
    windows.heads[entity, NEWEST] = NEVER
    for window in range(plan.width_W.size):
        windows.heads[entity, plan.word_W[window] + LIMIT] = NEVER
        windows.heads[entity, plan.word_W[window] + CHUNK] = NO_CHUNK
    return entity


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
