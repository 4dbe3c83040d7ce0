"""Parting entities: heads, buckets and rows of exact windows of the keys that go to one partition, in new places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.entities import Entities, arena_limit, empty_entities, empty_windows, enter_all_kernel
from streams.exact import BLOCK_ROWS, FIRST, LAST
from streams.hashing import KEYLESS_HOME, UPPER_HALF
from streams.inputs import NO_KEY
from streams.outline import Outline
from streams.plan import BOUNDS, HEAD
from streams.windows import (
    ARENA_END,
    ARENA_LIMIT,
    CHUNK,
    ENTITIES,
    HELD,
    NEVER,
    NO_CHUNK,
    OLDEST,
    ROOM_MASK,
    YOUNGEST,
)

Int64s = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[Any]]


class Joined(NamedTuple):
    """All entities of several partitions, as if there were one: numbers of chunks and blocks count through all."""

    hashes: Int64s
    heads: Int64s  # [E, head_words]
    touched_E3: Int64s  # of bounded entities when they, or one longer idle, were touched; partition; place in its list
    arena: Int64s
    exact: State
    owner_N: Int64s  # of each block of exact windows its entity, -1 of a free one


def places_of(keys: Int64s, partitions: int) -> Int64s:
    """Give the partition of each key's hash: that in which ingest, or the stage before, puts its rows (routing.py)."""
    homes = np.where(keys == NO_KEY, KEYLESS_HOME, (keys >> UPPER_HALF) & ((1 << UPPER_HALF) - 1))
    return homes % partitions


def joined(states: Sequence[State], outline: Outline) -> Joined:
    """Put the entities of all partitions behind one another."""
    hashes, heads, touched, arena_end, blocks = [], [], [], 0, 0
    for partition, state in enumerate(states):
        table = state["entities"][state["entities"][:, 1] != 0]
        table = table[np.argsort(table[:, 1])]
        own = state["windows.heads"].reshape(-1, outline.head_words)[table[:, 1] - 1].copy()
        if is_bounded(outline):
            touched.append(_touched(state, table[:, 1], outline, partition))
        for window in outline.windows:
            chunks = own[:, window.word + CHUNK]
            chunks[chunks != NO_CHUNK] += arena_end
        if outline.exact_word >= 0:
            for word in (outline.exact_word + FIRST, outline.exact_word + LAST):
                own[own[:, word] != 0, word] += blocks
        hashes.append(table[:, 0])
        heads.append(own)
        arena_end += state["windows.arena"].size
        blocks += state["exact.next"].size
    every = np.concatenate(heads)
    exact = _joined_exact(states)
    owner_N = _owners(every[:, outline.exact_word + FIRST], exact["next"]) if outline.exact_word >= 0 else np.zeros(0)
    arena = np.concatenate(
        [*(state["windows.arena"] for state in states), [0]]
    )  # never empty: look-ups of none end there
    touched_E3 = np.concatenate(touched) if touched else np.zeros((every.shape[0], 3), np.int64)
    return Joined(np.concatenate(hashes), every, touched_E3, arena, exact, owner_N.astype(np.int64))


def is_bounded(outline: Outline) -> bool:
    """Whether entities stand in a list, by which they are forgotten (forgetting.py)."""
    return BOUNDS[1] in outline.head


def _touched(state: State, numbers_E: Int64s, outline: Outline, partition: int) -> Int64s:
    """Say of entities, by number + 1, what orders them among those of other partitions."""
    heads = state["windows.heads"].reshape(-1, outline.head_words)
    newer, entity, listed = outline.head[BOUNDS[2]], int(state["windows.used"][OLDEST]), []
    while entity != 0:
        listed.append(entity)
        entity = int(heads[entity - 1, newer])
    order = np.array(listed, np.int64)
    newest = heads[order - 1][:, [outline.head[name] for name in HEAD]].max(axis=1, initial=NEVER)
    found = np.zeros((heads.shape[0] + 1, 3), np.int64)
    found[order] = np.stack([np.maximum.accumulate(newest), np.full_like(order, partition), np.arange(order.size)], 1)
    return found[numbers_E]


def _listed(heads: Int64s, touched_E3: Int64s, used: Int64s, outline: Outline) -> None:
    """Put entities in their list, the longest idle first."""
    used[HELD] = len(heads)
    if not is_bounded(outline) or not len(heads):
        return
    order = np.lexsort((touched_E3[:, 2], touched_E3[:, 1], touched_E3[:, 0]))
    older, newer = outline.head[BOUNDS[1]], outline.head[BOUNDS[2]]
    heads[order[1:], older], heads[order[0], older] = order[:-1] + 1, 0
    heads[order[:-1], newer], heads[order[-1], newer] = order[1:] + 1, 0
    used[[OLDEST, YOUNGEST]] = order[0] + 1, order[-1] + 1


def _joined_exact(states: Sequence[State]) -> State:
    following, blocks = [], 0
    for state in states:
        own = state["exact.next"].copy()
        own[own != 0] += blocks
        following.append(own)
        blocks += own.size
    exact: State = {name: np.concatenate([state[f"exact.{name}"] for state in states]) for name in ("times", "newest")}
    values = np.concatenate([state["exact.values"] for state in states], axis=1)
    return exact | {"next": np.concatenate(following), "values": values}


def _owners(first_E: Int64s, next_N: Int64s) -> Int64s:
    """Say whose each block is: all entities' chains are followed at once, a block a turn."""
    owner_N = np.full(next_N.size, -1, np.int64)
    entities, blocks = np.flatnonzero(first_E), first_E[first_E != 0] - 1
    while blocks.size:
        owner_N[blocks] = entities
        following = next_N[blocks]
        entities, blocks = entities[following != 0], following[following != 0] - 1
    return owner_N


def parted(every: Joined, outline: Outline, partition: int, partitions: int) -> State:
    """Give the state of the entities that go to one partition."""
    is_ours = places_of(every.hashes, partitions) == partition
    heads = every.heads[is_ours]
    state = _parted_exact(every, heads, outline, is_ours)
    chunks_EW = heads[:, np.array([window.word + CHUNK for window in outline.windows], np.int64)]
    lanes_W = np.array([window.lanes for window in outline.windows], np.int64)
    rooms_EW = np.where(chunks_EW == NO_CHUNK, 0, every.arena[np.maximum(chunks_EW, 0)] & ROOM_MASK)
    sizes_EW = np.where(chunks_EW == NO_CHUNK, 0, 1 + rooms_EW * lanes_W)
    starts_EW = (np.cumsum(sizes_EW) - sizes_EW.reshape(-1)).reshape(sizes_EW.shape)
    arena = every.arena[spans(chunks_EW.reshape(-1), sizes_EW.reshape(-1))]
    for place, window in enumerate(outline.windows):
        heads[:, window.word + CHUNK] = np.where(chunks_EW[:, place] == NO_CHUNK, NO_CHUNK, starts_EW[:, place])
    used = empty_windows(0, outline.head_words).used
    used[[ENTITIES, ARENA_END]] = len(heads), arena.size
    used[ARENA_LIMIT] = arena_limit(arena.size)
    _listed(heads, every.touched_E3[is_ours], used, outline)
    state |= {"windows.heads": heads.reshape(-1), "windows.arena": arena, "windows.used": used}
    return state | {"entities": _table(every.hashes[is_ours])}


def _parted_exact(every: Joined, heads: Int64s, outline: Outline, is_ours: npt.NDArray[np.bool_]) -> State:
    """Give the blocks of some entities, numbered anew, and enter them in their heads."""
    chosen = np.zeros(0, np.int64)
    if outline.exact_word >= 0:
        chosen = np.flatnonzero((every.owner_N >= 0) & is_ours[every.owner_N])
    numbers = np.zeros(every.owner_N.size + 1, np.int64)  # by number + 1, as links are; 0 stays none
    numbers[chosen + 1] = np.arange(1, chosen.size + 1)
    if outline.exact_word >= 0:
        for word in (outline.exact_word + FIRST, outline.exact_word + LAST):
            heads[:, word] = numbers[heads[:, word]]
    rows = (chosen[:, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).reshape(-1)
    return {
        "exact.times": every.exact["times"][rows],
        "exact.values": every.exact["values"][:, rows],
        "exact.next": numbers[every.exact["next"][chosen]],
        "exact.newest": every.exact["newest"][chosen],
        "exact.sizes": np.array([chosen.size, 0]),
    }


def _table(hashes: Int64s) -> Int64s:
    """Give a table of keys that are numbered in this order, at most five eighths full."""
    capacity = empty_entities().table.shape[0]
    while hashes.size * 8 >= capacity * 5:
        capacity *= 2
    fresh = empty_entities(capacity)
    enter_all_kernel(Entities(np.stack([hashes, np.arange(1, hashes.size + 1)], 1)), fresh)
    return fresh.table


def spans(starts: Int64s, sizes: Int64s) -> Int64s:
    """Give the places of many spans of an array, one behind the other."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
