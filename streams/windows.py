"""Sliding windows by entity: one pass over a few adjacent words per event, and buckets only where rows fell.

A window of width w is made of buckets floor(time / (w/12)), aligned to the epoch. An entity's *head* holds its newest
time and, per window, the open bucket's lanes and the *closed* lanes: the sum of the eleven buckets before it, added up
again from the oldest whenever the open bucket changes and never subtracted from. So an event in the open bucket reads
no bucket at all.

Buckets that are filled lie oldest first in the window's *chunk*, a piece of one arena: a header word (which of the
ages 1 to 22 are filled, and for how many buckets there is room) and the lanes of each. A chunk that grows moves to the
arena's end; when that is reached, all chunks are moved together (entities.py). Ages beyond 11 are kept for rows out of
order, which must see eleven buckets before their own; a bucket older than 22 is gone: memory is bounded by 22 buckets
for each window of an entity.

Head: newest event's time | newest time that label windows have seen | of a bounded entity: hash of its key, links
(forgetting.py) | per window: limit (first time after the open bucket), chunk (-1 = none), open lanes, closed lanes |
trails (trails.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.lanes import fold_extras_kernel
from streams.pipeline import BUCKETS_PER_WINDOW
from streams.plan import WINDOW_WORDS, Plan

NEVER = np.iinfo(np.int64).min  # newest time of an entity without events
COVERED = BUCKETS_PER_WINDOW - 1  # buckets before its own that a row covers
KEPT = 2 * COVERED  # the oldest age that a row out of order may need
COVERED_BITS = (1 << COVERED) - 1
KEPT_BITS = (1 << KEPT) - 1
ROOM_BITS = 5  # of a chunk's header: for how many buckets it has room
ROOM_MASK = (1 << ROOM_BITS) - 1
NO_CHUNK = -1
# Places in `used`. Entities are named by number + 1 there and in links, 0 = none.
ENTITIES, ARENA_END, ARENA_LIMIT, ARENA_DEAD, HELD, FREE, OLDEST, YOUNGEST = range(8)
NEWEST, NEWEST_LABEL = 0, 1  # words of a head
KEY, OLDER, NEWER = 2, 3, 4  # those of a bounded entity; a free head has the next free one in OLDER
LIMIT, CHUNK, LANES = 0, 1, WINDOW_WORDS  # words of a window within it


class Windows(NamedTuple):
    """State of all windows of E entities. Counts and sums are two views of the same words."""

    heads: npt.NDArray[np.int64]  # the head of entity e begins at e * head_words
    head_sums: npt.NDArray[np.float64]
    arena: npt.NDArray[np.int64]  # chunks
    arena_sums: npt.NDArray[np.float64]
    used: npt.NDArray[np.int64]  # heads ever used; of the arena (words) its end, the end's limit, left by moved chunks;
    # heads that are held, the first free one, the ends of the list of those that are bounded
    late_W: npt.NDArray[np.int64]  # rows older than the window, since the start


@inlined
def advance_kernel(plan: Plan, windows: Windows, word: int, window: int, newest: int, time_us: int) -> None:
    """Close the open bucket and open the one of `time_us`, which comes after it. `word`: the window's, in the head."""
    width = plan.width_W[window]
    bucket = BUCKETS_PER_WINDOW * time_us // width
    windows.heads[word + LIMIT] = -(-(bucket + 1) * width // BUCKETS_PER_WINDOW)
    if newest == NEVER:
        return
    step = bucket - BUCKETS_PER_WINDOW * newest // width
    chunk = windows.heads[word + CHUNK]
    before = windows.arena[chunk] >> ROOM_BITS if chunk != NO_CHUNK else 0
    after = (((before << 1) | 1) << (step - 1)) & KEPT_BITS if step <= KEPT else 0
    lanes = plan.lane_start[window + 1] - plan.lane_start[window]
    opened = word + LANES
    if after == 0:
        if chunk != NO_CHUNK:
            windows.arena[chunk] &= ROOM_MASK
        for place in range(opened, opened + 2 * lanes):
            windows.heads[place] = 0
        return

    held, kept = ones_kernel(before), ones_kernel(after)
    gone = held + 1 - kept
    if gone == 0:
        chunk = _reserve(windows, chunk, held, lanes)
        windows.heads[word + CHUNK] = chunk
    else:
        start = chunk + 1
        for place in range(start, start + (held - gone) * lanes):
            windows.arena[place] = windows.arena[place + gone * lanes]
    windows.arena[chunk] = (after << ROOM_BITS) | (windows.arena[chunk] & ROOM_MASK)
    last = chunk + 1 + (kept - 1) * lanes
    for lane in range(lanes):
        windows.arena[last + lane] = windows.heads[opened + lane]
        windows.heads[opened + lane] = 0
    close_kernel(plan, windows, opened + lanes, window, chunk, after)


@inlined
def close_kernel(plan: Plan, windows: Windows, place: int, window: int, chunk: int, filled: int) -> None:
    """Add up the eleven buckets before the open one, oldest first, into the head's closed lanes at `place`."""
    first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
    extras = plan.extra_start_W[window]
    held = ones_kernel(filled)
    start = chunk + 1 + (held - ones_kernel(filled & COVERED_BITS)) * (stop - first) - first
    end = chunk + 1 + held * (stop - first) - first
    for lane in range(first, sums):
        windows.heads[place + lane - first] = count_up_kernel(windows, start + lane, end + lane, stop - first)
    for lane in range(sums, extras):
        windows.head_sums[place + lane - first] = sum_up_kernel(windows, start + lane, end + lane, stop - first)
    if extras < stop:
        for lane in range(extras, stop):
            windows.heads[place + lane - first] = 0
        to_words, to_sums, to = windows.heads, windows.head_sums, place - first
        from_words, from_sums = windows.arena, windows.arena_sums
        for bucket in range(start, end, stop - first):
            fold_extras_kernel(plan, extras, stop, to_words, to_sums, to, from_words, from_sums, bucket)


@inlined
def count_up_kernel(windows: Windows, start: int, end: int, lanes: int) -> int:
    """Add up a count lane over buckets, from the place in the first to that behind the last."""
    count = 0
    for place in range(start, end, lanes):
        count += windows.arena[place]
    return count


@inlined
def sum_up_kernel(windows: Windows, start: int, end: int, lanes: int) -> float:
    """Add up a sum lane over buckets, oldest first."""
    total = 0.0
    for place in range(start, end, lanes):
        total += windows.arena_sums[place]
    return total


@inlined
def insert_kernel(windows: Windows, chunk: int, age: int, lanes: int) -> int:
    """Put an empty bucket of this age among the others; gives the chunk, which may be another one now."""
    filled = windows.arena[chunk] >> ROOM_BITS if chunk != NO_CHUNK else 0
    held, older = ones_kernel(filled), ones_kernel(filled >> age)
    chunk = _reserve(windows, chunk, held, lanes)
    windows.arena[chunk] |= (1 << (age - 1)) << ROOM_BITS
    place = chunk + 1 + older * lanes
    for word in range(chunk + (held + 1) * lanes, place + lanes - 1, -1):
        windows.arena[word] = windows.arena[word - lanes]
    for lane in range(lanes):
        windows.arena[place + lane] = 0
    return chunk


@inlined
def _reserve(windows: Windows, chunk: int, held: int, lanes: int) -> int:
    """Make room for one bucket more than the `held` ones; moves them to a larger chunk if theirs is full."""
    header = windows.arena[chunk] if chunk != NO_CHUNK else 0
    if held < header & ROOM_MASK:
        return chunk
    larger: int = windows.used[ARENA_END]
    room = room_kernel(held + 1)
    windows.used[ARENA_END] += 1 + room * lanes
    if chunk != NO_CHUNK:
        windows.used[ARENA_DEAD] += 1 + (header & ROOM_MASK) * lanes
    windows.arena[larger] = (header & ~ROOM_MASK) | room
    for word in range(1, 1 + held * lanes):
        windows.arena[larger + word] = windows.arena[chunk + word]
    return larger


@inlined
def room_kernel(held: int) -> int:
    """For how many buckets a chunk has room that must hold this many: a quarter more, in steps of two."""
    return min((held + held // 4 + 1) & ~1, KEPT)


@inlined
def ones_kernel(bits: int) -> int:
    """Count the ones among the lower 32 bits (compiles to one instruction)."""
    bits = bits - ((bits >> 1) & 0x55555555)
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return ((bits * 0x01010101) & 0xFFFFFFFF) >> 24
