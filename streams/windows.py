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

Head: newest time | per window: limit (first time after the open bucket), chunk (-1 = none), open lanes, closed lanes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.features import COUNTER_BITS, EVERY_ROW, WINDOW_WORDS, Plan, Totals
from streams.pipeline import BUCKETS_PER_WINDOW

NEVER = np.iinfo(np.int64).min  # newest time of an entity without events
COVERED = BUCKETS_PER_WINDOW - 1  # buckets before its own that a row covers
KEPT = 2 * COVERED  # the oldest age that a row out of order may need
COVERED_BITS = (1 << COVERED) - 1
KEPT_BITS = (1 << KEPT) - 1
ROOM_BITS = 5  # of a chunk's header: for how many buckets it has room
ROOM_MASK = (1 << ROOM_BITS) - 1
NO_CHUNK = -1
ENTITIES, ARENA_END, ARENA_LIMIT, ARENA_DEAD = 0, 1, 2, 3  # places in `used`
NEWEST, LIMIT, CHUNK, LANES = 0, 0, 1, WINDOW_WORDS  # words of a head, and of a window within it


class Windows(NamedTuple):
    """State of all windows of E entities. Counts and sums are two views of the same words."""

    heads: npt.NDArray[np.int64]  # the head of entity e begins at e * head_words
    head_sums: npt.NDArray[np.float64]
    arena: npt.NDArray[np.int64]  # chunks
    arena_sums: npt.NDArray[np.float64]
    used: npt.NDArray[np.int64]  # entities, and of the arena (words): its end, the end's limit, left by moved chunks
    late_W: npt.NDArray[np.int64]  # rows older than the window, since the start


@inlined
def observe_kernel(
    plan: Plan,
    windows: Windows,
    entity: int,
    time_us: int,
    values_KB: npt.NDArray[np.float64],
    row: int,
    totals: Totals,
) -> float:
    """Give what the event's windows cover (`totals`) and the seconds since the entity's last event, then add it."""
    head = entity * plan.head_words
    newest = windows.heads[head + NEWEST]
    if time_us < newest:
        for window in range(plan.width_W.size):
            _observe_out_of_order(plan, windows, head, window, newest, time_us, values_KB, row, totals)
        return math.nan
    for window in range(plan.width_W.size):
        word = head + plan.word_W[window]
        if time_us >= windows.heads[word + LIMIT]:
            _advance(plan, windows, word, window, newest, time_us)
        first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
        opened = word + LANES - first
        closed = opened + stop - first
        for lane in range(first, sums):
            count = windows.heads[opened + lane]
            totals.counts_T[lane] = windows.heads[closed + lane] + count
            windows.heads[opened + lane] = count + _counted(plan, lane, values_KB, row)
        for lane in range(sums, stop):
            total = windows.head_sums[opened + lane]
            totals.sums_T[lane] = windows.head_sums[closed + lane] + total
            windows.head_sums[opened + lane] = total + _summed(plan, lane, values_KB, row)
    windows.heads[head + NEWEST] = time_us
    return math.nan if newest == NEVER else (time_us - newest) / 1e6


@inlined
def _counted(plan: Plan, lane: int, values_KB: npt.NDArray[np.float64], row: int) -> int:
    """What an event adds to a count lane."""
    added = 0
    for half in range(2):
        what = plan.lane_field_T2[lane, half]
        if what == EVERY_ROW or (what >= 0 and not math.isnan(values_KB[what, row])):
            added += 1 << (COUNTER_BITS * half)
    return added


@inlined
def _summed(plan: Plan, lane: int, values_KB: npt.NDArray[np.float64], row: int) -> float:
    """What an event adds to a sum lane."""
    value: float = values_KB[plan.lane_field_T2[lane, 0], row]
    return 0.0 if math.isnan(value) else value


@inlined
def _advance(plan: Plan, windows: Windows, word: int, window: int, newest: int, time_us: int) -> None:
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
    _close(plan, windows, opened + lanes, window, chunk, after)


@inlined
def _close(plan: Plan, windows: Windows, place: int, window: int, chunk: int, filled: int) -> None:
    """Add up the eleven buckets before the open one, oldest first, into the head's closed lanes at `place`."""
    first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
    held = ones_kernel(filled)
    start = chunk + 1 + (held - ones_kernel(filled & COVERED_BITS)) * (stop - first) - first
    end = chunk + 1 + held * (stop - first) - first
    for lane in range(first, sums):
        windows.heads[place + lane - first] = _count_up(windows, start + lane, end + lane, stop - first)
    for lane in range(sums, stop):
        windows.head_sums[place + lane - first] = _sum_up(windows, start + lane, end + lane, stop - first)


@inlined
def _count_up(windows: Windows, start: int, end: int, lanes: int) -> int:
    count = 0
    for place in range(start, end, lanes):
        count += windows.arena[place]
    return count


@inlined
def _sum_up(windows: Windows, start: int, end: int, lanes: int) -> float:
    total = 0.0
    for place in range(start, end, lanes):
        total += windows.arena_sums[place]
    return total


@inlined
def _observe_out_of_order(
    plan: Plan,
    windows: Windows,
    head: int,
    window: int,
    newest: int,
    time_us: int,
    values_KB: npt.NDArray[np.float64],
    row: int,
    totals: Totals,
) -> None:
    """As `observe_kernel` for one window and an event older than the entity's newest: it covers closed buckets only."""
    width, word = plan.width_W[window], head + plan.word_W[window]
    age = BUCKETS_PER_WINDOW * newest // width - BUCKETS_PER_WINDOW * time_us // width
    first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
    lanes = stop - first
    chunk = windows.heads[word + CHUNK]
    filled = windows.arena[chunk] >> ROOM_BITS if chunk != NO_CHUNK else 0
    within = min(age, KEPT)
    older = ones_kernel(filled >> (within + COVERED))
    start = chunk + 1 + older * lanes - first
    end = start + ones_kernel((filled >> within) & COVERED_BITS) * lanes
    for lane in range(first, sums):
        totals.counts_T[lane] = _count_up(windows, start + lane, end + lane, lanes)
    for lane in range(sums, stop):
        totals.sums_T[lane] = _sum_up(windows, start + lane, end + lane, lanes)

    if age > COVERED:
        windows.late_W[window] += 1
    if age == 0:
        opened = word + LANES - first
        for lane in range(first, sums):
            windows.heads[opened + lane] += _counted(plan, lane, values_KB, row)
        for lane in range(sums, stop):
            windows.head_sums[opened + lane] += _summed(plan, lane, values_KB, row)
    elif age <= KEPT:
        if filled & (1 << (age - 1)) == 0:
            chunk = _insert(windows, chunk, age, lanes)
            windows.heads[word + CHUNK] = chunk
            filled |= 1 << (age - 1)
        place = chunk + 1 + ones_kernel(filled >> age) * lanes - first
        for lane in range(first, sums):
            windows.arena[place + lane] += _counted(plan, lane, values_KB, row)
        for lane in range(sums, stop):
            windows.arena_sums[place + lane] += _summed(plan, lane, values_KB, row)
        _close(plan, windows, word + LANES + lanes, window, chunk, filled)


@inlined
def _insert(windows: Windows, chunk: int, age: int, lanes: int) -> int:
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
