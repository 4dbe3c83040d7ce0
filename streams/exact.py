"""Exact windows: the events themselves, kept by entity, where a bucket more or less is too much.

An event at time t covers the entity's earlier rows in the log with time in (t - w, t], whatever their order. Rows older
than twice the longest window are let go of; for an event that is itself older than its window only what is newer than
the entity's newest - 2w counts. Each event goes over all rows its entity keeps: the cost is theirs, not the window's.

Rows lie in blocks of sixteen, in the order of the log; blocks of an entity are linked, oldest first. So one row needs
one block at most, and a block leaves when all its rows are too old.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.frames import END
from streams.lanes import add_lanes_kernel
from streams.memory import resized
from streams.plan import Plan, Totals

BLOCK_ROWS = 16
SMALLEST = 64  # blocks
GROWTH = 1.5
FIRST, LAST, ROWS = 0, 1, 2  # words of a head: blocks by number + 1 (0 = none), and how many rows the last one has
USED, FREE = 0, 1  # sizes: blocks ever used, and the first free one by number + 1

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Exact(NamedTuple):
    """Rows of all entities in N blocks; E fields are kept of each."""

    times: Words  # [N * BLOCK_ROWS]
    values_EN: Floats  # [E, N * BLOCK_ROWS]
    next_N: Words  # the block behind, by number + 1; of a free block the next free one
    newest_N: Words  # the largest time in the block
    sizes: Words


def empty_exact(fields: int) -> Exact:
    """Give a store without rows."""
    return Exact(
        np.zeros(SMALLEST * BLOCK_ROWS, np.int64),
        np.zeros((fields, SMALLEST * BLOCK_ROWS)),
        np.zeros(SMALLEST, np.int64),
        np.zeros(SMALLEST, np.int64),
        np.zeros(2, np.int64),
    )


def larger_exact(exact: Exact) -> Exact:
    """Give the same rows with room for more."""
    return _with_blocks(exact, int(exact.next_N.size * GROWTH))


def exact_state(exact: Exact) -> dict[str, npt.NDArray[Any]]:
    """Give what a snapshot keeps."""
    blocks = int(exact.sizes[USED])
    return {
        "times": exact.times[: blocks * BLOCK_ROWS].copy(),
        "values": exact.values_EN[:, : blocks * BLOCK_ROWS].copy(),
        "next": exact.next_N[:blocks].copy(),
        "newest": exact.newest_N[:blocks].copy(),
        "sizes": exact.sizes.copy(),
    }


def restored_exact(state: Mapping[str, npt.NDArray[Any]]) -> Exact:
    """Give the rows that `exact_state` described."""
    times, values, following, newest, sizes = (
        state[f"exact.{name}"] for name in ("times", "values", "next", "newest", "sizes")
    )
    return _with_blocks(Exact(times, values, following, newest, sizes.copy()), max(SMALLEST, int(sizes[USED])))


def _with_blocks(exact: Exact, blocks: int) -> Exact:
    values = np.ascontiguousarray(exact.values_EN.T)
    return Exact(
        resized(exact.times, blocks * BLOCK_ROWS),
        np.ascontiguousarray(resized(values, blocks * BLOCK_ROWS).T),
        resized(exact.next_N, blocks),
        resized(exact.newest_N, blocks),
        exact.sizes,
    )


@inlined
def has_block_kernel(exact: Exact) -> bool:
    """Whether the next row finds a block."""
    return bool(exact.sizes[FREE] > 0 or exact.sizes[USED] < exact.next_N.size)


@inlined
def observe_exact_kernel(
    plan: Plan,
    heads: Words,
    late_W: Words,
    exact: Exact,
    head: int,
    newest: int,
    time_us: int,
    values_KB: Floats,
    row: int,
    totals: Totals,
) -> None:
    """Give what exact windows cover, then keep the event; `newest` is the entity's newest time before it."""
    word, longest = head + plan.exact_word, 0
    for window in range(plan.bucket_windows, plan.width_W.size):
        longest = max(longest, plan.width_W[window])
        for lane in range(plan.lane_start[window], plan.lane_start[window + 1]):
            totals.counts_T[lane] = 0
        if heads[word + FIRST] != 0 and time_us <= newest - plan.width_W[window]:
            late_W[window] += 1
    _read(plan, exact, heads, word, newest, time_us, totals)
    reached = max(newest, time_us)
    _let_go(exact, heads, word, reached - 2 * longest)
    if time_us > reached - 2 * longest:
        _keep(plan, exact, heads, word, time_us, values_KB, row)


@inlined
def _read(plan: Plan, exact: Exact, heads: Words, word: int, newest: int, time_us: int, totals: Totals) -> None:
    """Add up the rows that each window covers, in the order of the log."""
    block = heads[word + FIRST]
    while block != 0:
        start = (block - 1) * BLOCK_ROWS
        rows = heads[word + ROWS] if block == heads[word + LAST] else BLOCK_ROWS
        for place in range(start, start + rows):
            at_us = exact.times[place]
            if at_us > time_us:
                continue
            for window in range(plan.bucket_windows, plan.width_W.size):
                width = plan.width_W[window]
                if at_us > time_us - width and at_us > newest - 2 * width:
                    add_lanes_kernel(plan, window, totals.counts_T, totals.sums_T, 0, exact.values_EN, place)
        block = exact.next_N[block - 1]


@inlined
def drop_blocks_kernel(exact: Exact, heads: Words, word: int) -> None:
    """Free all blocks of an entity; `word` is where they are named in its head."""
    _let_go(exact, heads, word, END)


@inlined
def _let_go(exact: Exact, heads: Words, word: int, horizon_us: int) -> None:
    """Free the first blocks while all their rows are at or before the horizon."""
    block = heads[word + FIRST]
    while block != 0 and exact.newest_N[block - 1] <= horizon_us:
        following = exact.next_N[block - 1]
        exact.next_N[block - 1] = exact.sizes[FREE]
        exact.sizes[FREE] = block
        block = following
    heads[word + FIRST] = block
    if block == 0:
        heads[word + LAST] = 0


@inlined
def _keep(plan: Plan, exact: Exact, heads: Words, word: int, time_us: int, values_KB: Floats, row: int) -> None:
    block = heads[word + LAST]
    if block == 0 or heads[word + ROWS] == BLOCK_ROWS:
        fresh = exact.sizes[FREE]
        if fresh != 0:
            exact.sizes[FREE] = exact.next_N[fresh - 1]
        else:
            exact.sizes[USED] += 1
            fresh = exact.sizes[USED]
        exact.next_N[fresh - 1] = 0
        exact.newest_N[fresh - 1] = time_us
        if block == 0:
            heads[word + FIRST] = fresh
        else:
            exact.next_N[block - 1] = fresh
        heads[word + LAST] = fresh
        heads[word + ROWS] = 0
        block = fresh
    place = (block - 1) * BLOCK_ROWS + heads[word + ROWS]
    heads[word + ROWS] += 1
    exact.times[place] = time_us
    exact.newest_N[block - 1] = max(exact.newest_N[block - 1], time_us)
    for field in range(plan.exact_E.size):
        exact.values_EN[field, place] = values_KB[plan.exact_E[field], row]
