"""Queues by key: the events that wait of each key in the order of their times, for labels that name no event.

A queue is a list through the slots of the pending rows (pending.py), found by the hash of its key. Which event a label
settles depends on times and numbers alone: events of the same time stand in the order in which they came. Nothing of it
is in a snapshot, for it follows from what waits.

An event that comes in order is put at the end of its queue at once, a late one behind the last that is not newer, and a
label looks at the front; so both take longer only by the events of the same key that are newer, or too old.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.deadlines import NO_SLOT, SLOTS
from streams.inputs import NO_KEY
from streams.memory import resized
from streams.pending import KEY, NUMBER, TIME, Pending

OLDEST, NEWEST = 0, 1  # columns of `ends`
OLDER, NEWER = 0, 1  # columns of `links`
SMALLEST = 1_024

Int64s = npt.NDArray[np.int64]


class KeyQueues(NamedTuple):
    """A table of T keys, a power of two or 0 where labels name their events, and links between P slots."""

    keys: Int64s  # [T] hashes; NO_KEY is empty
    ends: Int64s  # [T, 2] the slots of the oldest and of the newest event, NO_SLOT where none waits any more
    links: Int64s  # [P, 2] the slots of the events before and after
    used: Int64s  # [1] keys in the table


def no_queues() -> KeyQueues:
    """Give what takes no room and keeps nothing."""
    return KeyQueues(
        np.empty(0, np.int64), np.empty((0, 2), np.int64), np.empty((0, 2), np.int64), np.zeros(1, np.int64)
    )


def queues_of(pending: Pending) -> KeyQueues:
    """Give the queues of what waits."""
    slots, used = pending.waiting.orders.size, int(pending.waiting.sizes[SLOTS])
    waiting = np.flatnonzero((pending.waiting.orders[:used] >= 0) & (pending.rows[:used, KEY] != NO_KEY))
    in_order = waiting[np.lexsort((pending.rows[waiting, NUMBER], pending.rows[waiting, TIME]))]
    keys = max(SMALLEST, 1 << (4 * np.unique(pending.rows[waiting, KEY]).size).bit_length())
    queues = KeyQueues(
        np.zeros(keys, np.int64), np.full((keys, 2), NO_SLOT), np.empty((slots, 2), np.int64), np.zeros(1, np.int64)
    )
    _enter_all_kernel(queues, pending.rows, in_order)
    return queues


def with_queue_room(queues: KeyQueues, pending: Pending) -> KeyQueues:
    """Give the same queues with room for one key more, and links for all slots of what waits."""
    if not queues.keys.size:
        return queues
    if is_short_of_keys_kernel(queues):
        return queues_of(pending)
    return queues._replace(links=resized(queues.links, pending.waiting.orders.size))


def load_queue_kernels(pending: Pending) -> None:
    """Do once what making room may do."""
    queues_of(pending)


@inlined
def has_queues_kernel(queues: KeyQueues) -> bool:
    """Whether events are queued at all."""
    return bool(queues.keys.size > 0)


@inlined
def is_short_of_keys_kernel(queues: KeyQueues) -> bool:
    """Whether the table wants to be larger, or rid of keys of which nothing waits, before the next key."""
    return bool(queues.keys.size > 0 and queues.used[0] * 2 >= queues.keys.size)


@inlined
def _find(queues: KeyQueues, key: int) -> int:
    """Give the place of a key, or the empty one where it belongs."""
    mask = queues.keys.size - 1
    place = key & mask
    while queues.keys[place] not in (NO_KEY, key):
        place = (place + 1) & mask
    return place


@inlined
def queue_kernel(queues: KeyQueues, rows: Int64s, slot: int) -> None:
    """Put an event that begins to wait into its key's queue; `rows` are the pending ones."""
    key, time_us = rows[slot, KEY], rows[slot, TIME]
    if key == NO_KEY:  # no label can name it
        return
    place = _find(queues, key)
    if queues.keys[place] == NO_KEY:
        queues.keys[place] = key
        queues.used[0] += 1
        queues.ends[place, OLDEST] = queues.ends[place, NEWEST] = NO_SLOT
    before, after = queues.ends[place, NEWEST], NO_SLOT
    while before != NO_SLOT and rows[before, TIME] > time_us:
        before, after = queues.links[before, OLDER], before
    queues.links[slot, OLDER], queues.links[slot, NEWER] = before, after
    _link(queues, place, before, slot, slot, after)


@inlined
def unqueue_kernel(queues: KeyQueues, rows: Int64s, slot: int) -> None:
    """Take an event out that waits no longer."""
    if rows[slot, KEY] == NO_KEY:
        return
    before, after = queues.links[slot, OLDER], queues.links[slot, NEWER]
    _link(queues, _find(queues, rows[slot, KEY]), before, after, before, after)


@inlined
def _link(queues: KeyQueues, place: int, before: int, newer: int, older: int, after: int) -> None:
    """Let `newer` follow `before`, and `older` stand before `after`; at an end of the queue these are its ends."""
    if before == NO_SLOT:
        queues.ends[place, OLDEST] = newer
    else:
        queues.links[before, NEWER] = newer
    if after == NO_SLOT:
        queues.ends[place, NEWEST] = older
    else:
        queues.links[after, OLDER] = older


@inlined
def oldest_kernel(queues: KeyQueues, rows: Int64s, key: int, after_us: int, until_us: int) -> int:
    """Give the slot of a key's oldest event that is newer than `after_us` and no newer than `until_us`, or NO_SLOT."""
    place = _find(queues, key)
    slot = queues.ends[place, OLDEST] if key != NO_KEY and queues.keys[place] == key else NO_SLOT
    while slot != NO_SLOT and rows[slot, TIME] <= after_us:
        slot = queues.links[slot, NEWER]
    return int(slot) if slot != NO_SLOT and rows[slot, TIME] <= until_us else NO_SLOT


@bare
def _enter_all_kernel(queues: KeyQueues, rows: Int64s, in_order: Int64s) -> None:
    for place in range(in_order.size):
        queue_kernel(queues, rows, in_order[place])
