"""Sliding windows by entity: one pass over a few adjacent words per event, and buckets only where rows fell.

A window of width w is made of buckets floor(time / (w/12)), aligned to the epoch. An entity's *head* holds its newest
time and, per window, the open bucket's lanes and the *closed* lanes: the sum of the eleven buckets before it, added up
again from the oldest whenever the open bucket changes and never subtracted from. So an event in the open bucket reads
no bucket at all.

Buckets that are filled lie oldest first in the window's *chunk*, a piece of one arena: a header word (which of the
ages 1 to 22 are filled, and the chunk's size class) and the lanes of each. Ages beyond 11 are kept for rows out of
order, which must see eleven buckets before their own; a bucket older than 22 is gone. So memory is bounded by 22
buckets for each window of an entity.

Head: newest time | per window: limit (first time after the open bucket), chunk (-1 = none), open lanes, closed lanes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.features import ROWS, SUM, WINDOW_WORDS, Plan
from streams.pipeline import BUCKETS_PER_WINDOW

NEVER = np.iinfo(np.int64).min  # newest time of an entity without events
COVERED = BUCKETS_PER_WINDOW - 1  # buckets before its own that a row covers
KEPT = 2 * COVERED  # the oldest age that a row out of order may need
COVERED_BITS = (1 << COVERED) - 1
KEPT_BITS = (1 << KEPT) - 1
CLASSES = 5  # chunks have room for 2, 4, 8, 16 or 22 buckets
CLASS_BITS = 3
CLASS_MASK = (1 << CLASS_BITS) - 1
NO_CHUNK = -1
NEWEST, LIMIT, CHUNK, LANES = 0, 0, 1, WINDOW_WORDS  # words of a head, and of a window within it


class Windows(NamedTuple):
    """State of all windows of E entities. Integers and floats are two views of the same words."""

    heads: npt.NDArray[np.int64]  # [E, words]
    head_lanes: npt.NDArray[np.float64]
    arena: npt.NDArray[np.int64]  # chunks
    arena_lanes: npt.NDArray[np.float64]
    free: npt.NDArray[np.int64]  # [W, CLASSES] first free chunk; a free chunk's header is the next one
    used: npt.NDArray[np.int64]  # [entities, words of the arena]
    late_W: npt.NDArray[np.int64]  # rows older than the window, since the start


@inlined
def observe_kernel(
    plan: Plan,
    windows: Windows,
    entity: int,
    time_us: int,
    values_KB: npt.NDArray[np.float64],
    row: int,
    totals_T: npt.NDArray[np.float64],
) -> float:
    """Give what the event's windows cover (`totals_T`) and the seconds since the entity's last event, then add it."""
    newest = windows.heads[entity, NEWEST]
    if time_us < newest:
        for window in range(plan.width_W.size):
            _observe_out_of_order(plan, windows, entity, window, newest, time_us, values_KB, row, totals_T)
        return math.nan
    for window in range(plan.width_W.size):
        word = plan.word_W[window]
        if time_us >= windows.heads[entity, word + LIMIT]:
            _advance(plan, windows, entity, window, newest, time_us)
        first = plan.lane_start[window]
        count = plan.lane_start[window + 1] - first
        for lane in range(count):
            value = windows.head_lanes[entity, word + LANES + lane]
            totals_T[first + lane] = windows.head_lanes[entity, word + LANES + count + lane] + value
            windows.head_lanes[entity, word + LANES + lane] = value + _amount(plan, first + lane, values_KB, row)
    windows.heads[entity, NEWEST] = time_us
    return math.nan if newest == NEVER else (time_us - newest) / 1e6


@inlined
def _amount(plan: Plan, lane: int, values_KB: npt.NDArray[np.float64], row: int) -> float:
    """What an event adds to a lane."""
    kind = plan.lane_kind_T[lane]
    if kind == ROWS:
        return 1.0
    value = values_KB[plan.lane_field_T[lane], row]
    if math.isnan(value):
        return 0.0
    return value if kind == SUM else 1.0


@inlined
def _advance(plan: Plan, windows: Windows, entity: int, window: int, newest: int, time_us: int) -> None:
    """Close the open bucket and open the one of `time_us`, which comes after it."""
    width, word = plan.width_W[window], plan.word_W[window]
    bucket = BUCKETS_PER_WINDOW * time_us // width
    windows.heads[entity, word + LIMIT] = -(-(bucket + 1) * width // BUCKETS_PER_WINDOW)
    if newest == NEVER:
        return
    step = bucket - BUCKETS_PER_WINDOW * newest // width
    chunk = windows.heads[entity, word + CHUNK]
    before = windows.arena[chunk] >> CLASS_BITS if chunk != NO_CHUNK else 0
    after = (((before << 1) | 1) << (step - 1)) & KEPT_BITS if step <= KEPT else 0
    lanes = plan.lane_start[window + 1] - plan.lane_start[window]
    head = word + LANES
    if after == 0:
        if chunk != NO_CHUNK:
            _release(windows, window, chunk)
            windows.heads[entity, word + CHUNK] = NO_CHUNK
        for lane in range(2 * lanes):
            windows.head_lanes[entity, head + lane] = 0.0
        return

    held, kept = _ones(before), _ones(after)
    gone = held + 1 - kept
    if gone == 0:
        chunk = _reserve(windows, window, chunk, held, lanes)
        windows.heads[entity, word + CHUNK] = chunk
    else:
        start = chunk + 1
        for place in range(start, start + (held - gone) * lanes):
            windows.arena_lanes[place] = windows.arena_lanes[place + gone * lanes]
    windows.arena[chunk] = (after << CLASS_BITS) | (windows.arena[chunk] & CLASS_MASK)
    last = chunk + 1 + (kept - 1) * lanes
    for lane in range(lanes):
        windows.arena_lanes[last + lane] = windows.head_lanes[entity, head + lane]
        windows.head_lanes[entity, head + lane] = 0.0
    _add_up(windows, entity, head + lanes, chunk, kept - _ones(after & COVERED_BITS), kept, lanes)


@inlined
def _add_up(windows: Windows, entity: int, place: int, chunk: int, first: int, stop: int, lanes: int) -> None:
    """Add up the buckets `first` to `stop` of a chunk, oldest first, into the head's lanes at `place`."""
    for lane in range(lanes):
        total = 0.0
        for bucket in range(first, stop):
            total += windows.arena_lanes[chunk + 1 + bucket * lanes + lane]
        windows.head_lanes[entity, place + lane] = total


@inlined
def _observe_out_of_order(
    plan: Plan,
    windows: Windows,
    entity: int,
    window: int,
    newest: int,
    time_us: int,
    values_KB: npt.NDArray[np.float64],
    row: int,
    totals_T: npt.NDArray[np.float64],
) -> None:
    """As `observe_kernel` for one window and an event older than the entity's newest: it covers closed buckets only."""
    width, word = plan.width_W[window], plan.word_W[window]
    age = BUCKETS_PER_WINDOW * newest // width - BUCKETS_PER_WINDOW * time_us // width
    first_lane = plan.lane_start[window]
    lanes = plan.lane_start[window + 1] - first_lane
    head = word + LANES
    chunk = windows.heads[entity, word + CHUNK]
    filled = windows.arena[chunk] >> CLASS_BITS if chunk != NO_CHUNK else 0
    within = min(age, KEPT)
    first = _ones(filled >> (within + COVERED))
    stop = first + _ones((filled >> within) & COVERED_BITS)
    for lane in range(lanes):
        total = 0.0
        for bucket in range(first, stop):
            total += windows.arena_lanes[chunk + 1 + bucket * lanes + lane]
        totals_T[first_lane + lane] = total

    if age > COVERED:
        windows.late_W[window] += 1
    if age == 0:
        for lane in range(lanes):
            windows.head_lanes[entity, head + lane] += _amount(plan, first_lane + lane, values_KB, row)
    elif age <= KEPT:
        if filled & (1 << (age - 1)) == 0:
            chunk = _insert(windows, window, chunk, age, lanes)
            windows.heads[entity, word + CHUNK] = chunk
            filled |= 1 << (age - 1)
        place = chunk + 1 + _ones(filled >> age) * lanes
        for lane in range(lanes):
            windows.arena_lanes[place + lane] += _amount(plan, first_lane + lane, values_KB, row)
        held = _ones(filled)
        _add_up(windows, entity, head + lanes, chunk, held - _ones(filled & COVERED_BITS), held, lanes)


@inlined
def _insert(windows: Windows, window: int, chunk: int, age: int, lanes: int) -> int:
    """Put an empty bucket of this age among the others; gives the chunk, which may be another one now."""
    filled = windows.arena[chunk] >> CLASS_BITS if chunk != NO_CHUNK else 0
    held, older = _ones(filled), _ones(filled >> age)
    chunk = _reserve(windows, window, chunk, held, lanes)
    windows.arena[chunk] |= (1 << (age - 1)) << CLASS_BITS
    place = chunk + 1 + older * lanes
    for word in range(chunk + (held + 1) * lanes, place + lanes - 1, -1):
        windows.arena_lanes[word] = windows.arena_lanes[word - lanes]
    for lane in range(lanes):
        windows.arena_lanes[place + lane] = 0.0
    return chunk


@inlined
def _reserve(windows: Windows, window: int, chunk: int, held: int, lanes: int) -> int:
    """Make room for one bucket more than the `held` ones; moves them to a larger chunk if theirs is full."""
    size_class = windows.arena[chunk] & CLASS_MASK if chunk != NO_CHUNK else -1
    if size_class >= 0 and held < _room(size_class):
        return chunk
    size_class += 1
    larger: int = windows.free[window, size_class]
    if larger == NO_CHUNK:
        larger = windows.used[1]
        windows.used[1] += 1 + _room(size_class) * lanes
    else:
        windows.free[window, size_class] = windows.arena[larger]
    windows.arena[larger] = size_class
    if chunk != NO_CHUNK:
        windows.arena[larger] |= (windows.arena[chunk] >> CLASS_BITS) << CLASS_BITS
        for word in range(1, 1 + held * lanes):
            windows.arena_lanes[larger + word] = windows.arena_lanes[chunk + word]
        _release(windows, window, chunk)
    return larger


@inlined
def _release(windows: Windows, window: int, chunk: int) -> None:
    size_class = windows.arena[chunk] & CLASS_MASK
    windows.arena[chunk] = windows.free[window, size_class]
    windows.free[window, size_class] = chunk


@inlined
def _room(size_class: int) -> int:
    """How many buckets a chunk of this class holds."""
    return min(2 << size_class, KEPT)


@inlined
def _ones(bits: int) -> int:
    """Count the ones among the lower 32 bits (compiles to one instruction)."""
    bits = bits - ((bits >> 1) & 0x55555555)
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return ((bits * 0x01010101) & 0xFFFFFFFF) >> 24
