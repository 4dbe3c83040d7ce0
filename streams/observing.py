"""What windows say to an event, and what it adds to them; the same for labels, whose windows go by the label's time.

An event reads its windows, then is added to them. One that is older than its entity's newest (*out of order*) reads
closed buckets only. Windows of labels are read by events and added to by labels; in them an event or a label is out of
order if it is older than any event or label they have seen. So an event never reads a label newer than itself.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.exact import Exact, observe_exact_kernel
from streams.lanes import (
    add_extras_kernel,
    add_lanes_kernel,
    counted_kernel,
    fold_extras_kernel,
    summed_kernel,
)
from streams.pipeline import BUCKETS_PER_WINDOW
from streams.plan import Plan, Totals
from streams.trails import forget_trails_kernel, observe_trails_kernel
from streams.windows import (
    CHUNK,
    COVERED,
    COVERED_BITS,
    KEPT,
    LANES,
    LIMIT,
    NEVER,
    NEWEST,
    NEWEST_LABEL,
    NO_CHUNK,
    ROOM_BITS,
    Windows,
    advance_kernel,
    close_kernel,
    count_up_kernel,
    insert_kernel,
    ones_kernel,
    sum_up_kernel,
)

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@inlined
def observe_kernel(
    plan: Plan, windows: Windows, exact: Exact, entity: int, time_us: int, values_KB: Floats, row: int, totals: Totals
) -> float:
    """Give what the event's windows cover (`totals`) and the seconds since the entity's last event, then add it."""
    head = entity * plan.head_words
    if plan.event_windows < plan.bucket_windows:
        _read_label_windows(plan, windows, head, time_us, totals)
    newest = windows.heads[head + NEWEST]
    if plan.bucket_windows < plan.width_W.size:
        observe_exact_kernel(plan, windows.heads, windows.late_W, exact, head, newest, time_us, values_KB, row, totals)
    if time_us < newest:
        for window in range(plan.event_windows):
            age = _age(plan, window, newest, time_us)
            if age > COVERED:
                windows.late_W[window] += 1
            _read_closed(plan, windows, head, window, age, totals)
            _add_at_age(plan, windows, head, window, age, values_KB, row)
        forget_trails_kernel(plan, totals)
        return math.nan
    for window in range(plan.event_windows):
        word = head + plan.word_W[window]
        if time_us >= windows.heads[word + LIMIT]:
            advance_kernel(plan, windows, word, window, newest, time_us)
        _read_and_add(plan, windows, word, window, values_KB, row, totals)
    observe_trails_kernel(plan, windows.heads, windows.head_sums, head, time_us, values_KB, row, totals)
    windows.heads[head + NEWEST] = time_us
    return math.nan if newest == NEVER else (time_us - newest) / 1e6


@inlined
def add_label_kernel(plan: Plan, windows: Windows, entity: int, delay: int, time_us: int, label_11: Floats) -> None:
    """Add a label to the windows of labels with this delay (its number); `time_us` has the delay in it."""
    head = entity * plan.head_words
    newest = windows.heads[head + NEWEST_LABEL]
    if time_us > newest:
        _advance_label_windows(plan, windows, head, newest, time_us)
        newest = time_us
    for window in range(plan.event_windows, plan.bucket_windows):
        if plan.delay_W[window] == plan.delays_D[delay]:
            _add_at_age(plan, windows, head, window, _age(plan, window, newest, time_us), label_11, 0)


@inlined
def _read_label_windows(plan: Plan, windows: Windows, head: int, time_us: int, totals: Totals) -> None:
    newest = windows.heads[head + NEWEST_LABEL]
    if time_us < newest:
        for window in range(plan.event_windows, plan.bucket_windows):
            _read_closed(plan, windows, head, window, _age(plan, window, newest, time_us), totals)
        return
    _advance_label_windows(plan, windows, head, newest, time_us)
    for window in range(plan.event_windows, plan.bucket_windows):
        first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
        extras, opened = plan.extra_start_W[window], head + plan.word_W[window] + LANES - plan.lane_start[window]
        closed = opened + stop - first
        for lane in range(first, sums):
            totals.counts_T[lane] = windows.heads[closed + lane] + windows.heads[opened + lane]
        for lane in range(sums, extras):
            totals.sums_T[lane] = windows.head_sums[closed + lane] + windows.head_sums[opened + lane]
        for lane in range(extras, stop):
            totals.counts_T[lane] = windows.heads[closed + lane]
        _fold_into_totals(plan, extras, stop, windows.heads, windows.head_sums, opened, totals)


@inlined
def _advance_label_windows(plan: Plan, windows: Windows, head: int, newest: int, time_us: int) -> None:
    for window in range(plan.event_windows, plan.bucket_windows):
        word = head + plan.word_W[window]
        if time_us >= windows.heads[word + LIMIT]:
            advance_kernel(plan, windows, word, window, newest, time_us)
    windows.heads[head + NEWEST_LABEL] = time_us


@inlined
def _age(plan: Plan, window: int, newest: int, time_us: int) -> int:
    """How many buckets a time lies behind the newest."""
    width = plan.width_W[window]
    age: int = BUCKETS_PER_WINDOW * newest // width - BUCKETS_PER_WINDOW * time_us // width
    return age


@inlined
def _read_and_add(
    plan: Plan, windows: Windows, word: int, window: int, values_KB: Floats, row: int, totals: Totals
) -> None:
    """Read open and closed buckets, then add the event to the open one; `word` is the window's place in the head."""
    first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
    extras, opened = plan.extra_start_W[window], word + LANES - plan.lane_start[window]
    closed = opened + stop - first
    for lane in range(first, sums):
        count = windows.heads[opened + lane]
        totals.counts_T[lane] = windows.heads[closed + lane] + count
        windows.heads[opened + lane] = count + counted_kernel(plan, lane, values_KB, row)
    for lane in range(sums, extras):
        total = windows.head_sums[opened + lane]
        totals.sums_T[lane] = windows.head_sums[closed + lane] + total
        windows.head_sums[opened + lane] = total + summed_kernel(plan, lane, values_KB, row)
    if extras < stop:
        for lane in range(extras, stop):
            totals.counts_T[lane] = windows.heads[closed + lane]
        _fold_into_totals(plan, extras, stop, windows.heads, windows.head_sums, opened, totals)
        add_extras_kernel(plan, extras, stop, windows.heads, windows.head_sums, opened, values_KB, row)


@inlined
def _read_closed(plan: Plan, windows: Windows, head: int, window: int, age: int, totals: Totals) -> None:
    """Read the eleven buckets before the one that lies `age` behind the newest."""
    first, sums, stop = plan.lane_start[window], plan.sum_start_W[window], plan.lane_start[window + 1]
    lanes, extras = stop - first, plan.extra_start_W[window]
    chunk = windows.heads[head + plan.word_W[window] + CHUNK]
    filled = windows.arena[chunk] >> ROOM_BITS if chunk != NO_CHUNK else 0
    within = min(age, KEPT)
    start = chunk + 1 + ones_kernel(filled >> (within + COVERED)) * lanes - first
    end = start + ones_kernel((filled >> within) & COVERED_BITS) * lanes
    for lane in range(first, sums):
        totals.counts_T[lane] = count_up_kernel(windows, start + lane, end + lane, lanes)
    for lane in range(sums, extras):
        totals.sums_T[lane] = sum_up_kernel(windows, start + lane, end + lane, lanes)
    if extras < stop:
        for lane in range(extras, stop):
            totals.counts_T[lane] = 0
        for bucket in range(start, end, lanes):
            _fold_into_totals(plan, extras, stop, windows.arena, windows.arena_sums, bucket, totals)


@inlined
def _add_at_age(plan: Plan, windows: Windows, head: int, window: int, age: int, values_KB: Floats, row: int) -> None:
    """Add a row to the bucket that lies `age` behind the newest, if it is still kept."""
    first, stop, word = plan.lane_start[window], plan.lane_start[window + 1], head + plan.word_W[window]
    lanes = stop - first
    if age == 0:
        add_lanes_kernel(plan, window, windows.heads, windows.head_sums, word + LANES - first, values_KB, row)
    elif age <= KEPT:
        chunk = windows.heads[word + CHUNK]
        filled = windows.arena[chunk] >> ROOM_BITS if chunk != NO_CHUNK else 0
        if filled & (1 << (age - 1)) == 0:
            chunk = insert_kernel(windows, chunk, age, lanes)
            windows.heads[word + CHUNK] = chunk
            filled |= 1 << (age - 1)
        place = chunk + 1 + ones_kernel(filled >> age) * lanes - first
        add_lanes_kernel(plan, window, windows.arena, windows.arena_sums, place, values_KB, row)
        close_kernel(plan, windows, word + LANES + lanes, window, chunk, filled)


@inlined
def _fold_into_totals(
    plan: Plan, extras: int, stop: int, words: Words, sums: Floats, start: int, totals: Totals
) -> None:
    fold_extras_kernel(plan, extras, stop, totals.counts_T, totals.sums_T, 0, words, sums, start)
