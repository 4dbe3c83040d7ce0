"""Moving a state to another layout: the words that both outlines name, wherever they stand there; all others are empty.

Heads, buckets and the rows of exact windows are moved word by word, vectors that wait column by column. What a window
has filled stays filled: a part that begins now is empty in all its buckets. What is not laid out by features (entities,
ledger, early labels, numbers, clocks) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.deadlines import chosen_deadlines
from streams.entities import arena_limit
from streams.exact import empty_exact, exact_state
from streams.outline import WHOLE, Outline, Part, WindowOutline
from streams.pipeline import BUCKETS_PER_WINDOW
from streams.plan import COUNTER_BITS, COUNTER_MASK, EXACT_WORDS, FeaturePlan
from streams.stage import empty_stage, stage_state
from streams.windows import (
    ARENA_DEAD,
    ARENA_END,
    ARENA_LIMIT,
    CHUNK,
    ENTITIES,
    LANES,
    LIMIT,
    NEVER,
    NO_CHUNK,
    ROOM_BITS,
    ROOM_MASK,
)

Int64s = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[Any]]


class Move(NamedTuple):
    """Words, or one counter of a word, that stand in both layouts."""

    start: int
    to: int
    words: int
    half: int = WHOLE
    to_half: int = WHOLE


def moved_state(state: Mapping[str, npt.NDArray[Any]], old: Outline, plan: FeaturePlan) -> State:
    """Give a stage's state, outlined by `old`, as `plan` lays it out; costs about a second for a million entities.

    Args:
        state: as `stage.stage_state` gave it.
        old: the outline that it was saved with.
        plan: of the new list, in which `beginnings` say what goes on.
    """
    new = plan.outline
    if not (old.is_keyed and new.is_keyed):
        return _without_entities(state, old, plan)
    moved = dict(state) | {"plan": new.to_array()}
    used = state["windows.used"].copy()
    heads = state["windows.heads"].reshape(int(used[ENTITIES]), old.head_words)
    fresh = np.zeros((heads.shape[0], new.head_words), np.int64)
    for name, word in new.head.items():
        if name in old.head:
            fresh[:, word] = heads[:, old.head[name]]
    _move(_moves(old.trails, new.trails), heads, fresh)
    arena = _move_windows(state["windows.arena"], heads, fresh, old, new)
    moved |= _moved_exact(state, heads, fresh, old, new)
    used[[ARENA_END, ARENA_DEAD]] = arena.size, 0
    used[ARENA_LIMIT] = arena_limit(arena.size)
    moved |= {"windows.heads": fresh.reshape(-1), "windows.arena": arena, "windows.used": used}
    late = dict(zip(old.late, state["windows.late"].tolist(), strict=True))
    moved["windows.late"] = np.array([late.get(name, 0) for name in new.late], np.int64)
    moved |= _moved_held(state, old.delays, new.delays)
    return moved | _all_vectors(state, old, plan)


def _without_entities(state: Mapping[str, npt.NDArray[Any]], old: Outline, plan: FeaturePlan) -> State:
    """Give a stage's state where one of the two lists keeps no entities: none is known from then on."""
    moved, empty = dict(state), stage_state(empty_stage(plan), plan)
    kept = ("ledger.", "early.", "pending.", "counters")
    moved |= {name: array for name, array in empty.items() if not name.startswith(kept)}
    return moved | _all_vectors(state, old, plan)


def _moves(old: Sequence[Part], new: Sequence[Part]) -> list[Move]:
    """Pair the parts of two layouts by name."""
    known = {part.name: part for part in old}
    pairs = [(known[part.name], part) for part in new if part.name in known]
    return [Move(was.word, part.word, part.words, was.half, part.half) for was, part in pairs]


def _move(moves: list[Move], words: Int64s, fresh: Int64s, at: int = 0, to: int = 0) -> None:
    """Move words of each row; those of the old layout count from `at`, those of the new one from `to`."""
    for move in moves:
        start, end = at + move.start, to + move.to
        if move.half == WHOLE:
            fresh[:, end : end + move.words] = words[:, start : start + move.words]
        else:
            counter = (words[:, start] >> (COUNTER_BITS * move.half)) & COUNTER_MASK
            fresh[:, end] |= counter << (COUNTER_BITS * move.to_half)


# Windows of buckets


def _move_windows(arena: Int64s, heads: Int64s, fresh: Int64s, old: Outline, new: Outline) -> Int64s:
    """Move all windows' words of the heads, and give the arena of their chunks, those of an entity side by side."""
    known = {window.meaning: window for window in old.windows}
    sizes_EW = np.zeros((heads.shape[0], len(new.windows)), np.int64)
    for place, window in enumerate(new.windows):
        before = known.get(window.meaning)
        if before is not None:
            chunks = heads[:, before.word + CHUNK]
            has_chunk = chunks != NO_CHUNK
            sizes_EW[has_chunk, place] = 1 + (arena[chunks[has_chunk]] & ROOM_MASK) * window.lanes
    ends_EW = np.cumsum(sizes_EW).reshape(sizes_EW.shape)
    moved = np.zeros(int(sizes_EW.sum()), np.int64)
    for place, window in enumerate(new.windows):
        before = known.get(window.meaning)
        if before is None:
            _begin_window(fresh, window, new)
            continue
        moves, at, to = _moves(before.parts, window.parts), before.word + LANES, window.word + LANES
        fresh[:, window.word + LIMIT] = heads[:, before.word + LIMIT]
        _move(moves, heads, fresh, at, to)  # the open bucket
        _move(moves, heads, fresh, at + before.lanes, to + window.lanes)  # the eleven before it
        chunks, starts = heads[:, before.word + CHUNK], ends_EW[:, place] - sizes_EW[:, place]
        fresh[:, window.word + CHUNK] = np.where(chunks == NO_CHUNK, NO_CHUNK, starts)
        has_chunk = chunks != NO_CHUNK
        _move_chunks(moves, arena, moved, chunks[has_chunk], starts[has_chunk], (before.lanes, window.lanes))
    return moved


def _move_chunks(
    moves: list[Move], arena: Int64s, moved: Int64s, chunks: Int64s, starts: Int64s, lanes: tuple[int, int]
) -> None:
    """Move the buckets of chunks, the first ones of all, then the second ones, and so on."""
    headers = arena[chunks]
    moved[starts] = headers
    held = np.bitwise_count(headers >> ROOM_BITS)
    for bucket in range(int(held.max(initial=0))):
        has_bucket = held > bucket
        origins, places = (base[has_bucket] + 1 + bucket * n for base, n in zip((chunks, starts), lanes, strict=True))
        words = np.empty((origins.size, lanes[0]), np.int64)
        words[:] = arena[origins[:, None] + np.arange(lanes[0])]
        fresh = np.zeros((origins.size, lanes[1]), np.int64)
        _move(moves, words, fresh)
        moved[places[:, None] + np.arange(lanes[1])] = fresh


def _begin_window(fresh: Int64s, window: WindowOutline, new: Outline) -> None:
    """Let a window begin that was not there: its open bucket is that of the newest time its entity has seen."""
    newest = fresh[:, new.head["newest of labels" if window.is_of_labels else "newest"]]
    has_newest = newest != NEVER
    bucket = BUCKETS_PER_WINDOW * np.where(has_newest, newest, 0) // window.width_us
    limit = -(-(bucket + 1) * window.width_us // BUCKETS_PER_WINDOW)
    fresh[:, window.word + LIMIT] = np.where(has_newest, limit, NEVER)
    fresh[:, window.word + CHUNK] = NO_CHUNK


# What is not in buckets


def _moved_exact(
    state: Mapping[str, npt.NDArray[Any]], heads: Int64s, fresh: Int64s, old: Outline, new: Outline
) -> State:
    """Move the rows of exact windows; fields that they did not keep are missing in them."""
    if old.exact_word < 0 or new.exact_word < 0:
        return {f"exact.{name}": array for name, array in exact_state(empty_exact(len(new.exact))).items()}
    for word in range(EXACT_WORDS):
        fresh[:, new.exact_word + word] = heads[:, old.exact_word + word]
    values = np.full((len(new.exact), state["exact.times"].size), math.nan)
    for move in _moves(old.exact, new.exact):
        values[move.to] = state["exact.values"][move.start]
    return {"exact.values": values}


def _moved_held(state: Mapping[str, npt.NDArray[Any]], old: tuple[int, ...], new: tuple[int, ...]) -> State:
    """Hold the labels whose delay is still there; a label's order says which (see held.py)."""
    numbers = np.array([new.index(delay) if delay in new else -1 for delay in old], np.int64)
    size, orders = max(1, len(old)), state["held.waiting.orders"]
    slots, moved = chosen_deadlines(state, "held.waiting.", lambda slots: numbers[orders[slots] % size] >= 0)
    named = orders[slots] // size * len(new) + numbers[orders[slots] % size]
    moved["held.waiting.orders"] = moved["held.waiting.heap"][:, 1] = named
    return moved | {"held.labels": state["held.labels"][slots], "held.order": state["held.order"] // size * len(new)}


def _all_vectors(state: Mapping[str, npt.NDArray[Any]], old: Outline, plan: FeaturePlan) -> State:
    """Give the vectors that wait, and those of settled events as far as they are kept."""
    moved = {"pending.vectors": _moved_vectors(state["pending.vectors"], old, plan)}
    if plan.labels.is_relearned and state["ledger.vectors"].shape[1] == len(old.columns):
        moved["ledger.vectors"] = _moved_vectors(state["ledger.vectors"], old, plan)
    return moved


def _moved_vectors(vectors_PF: npt.NDArray[np.float64], old: Outline, plan: FeaturePlan) -> npt.NDArray[np.float64]:
    """Give vectors the columns of the new list, by name and kind; absent ones are missing."""
    if not plan.stage.is_last:
        return vectors_PF
    places = {column: place for place, column in enumerate(old.columns)}
    moved = np.full((vectors_PF.shape[0], len(plan.outline.columns)), math.nan)
    for place, column in enumerate(plan.outline.columns):
        if column in places:
            moved[:, place] = vectors_PF[:, places[column]]
    return moved
