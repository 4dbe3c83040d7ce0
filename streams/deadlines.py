"""Deadlines: things that wait, each in a slot of its own, and the one that is due first.

A binary heap over (deadline, order); `places` knows where in the heap each slot stands, so that what came in time is
taken out at once and the heap is never larger than what still waits. The order of what falls due never depends on how
the heap happens to lie: no two items share an order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

WAITING, SLOTS, FREE = 0, 1, 2  # sizes: items in the heap, slots ever used, first free slot (-1 = none)
SMALLEST = 64


class Deadlines(NamedTuple):
    """A heap of N items with room for P slots. Kernels change it; `grown` gives one with more room."""

    heap: npt.NDArray[np.int64]  # [P, 3] deadline, order, slot
    places: npt.NDArray[np.int64]  # [P] slot → place in the heap, or the next free slot
    names: npt.NDArray[np.int64]  # [P] slot → hash of the event's id and key
    sizes: npt.NDArray[np.int64]


def empty_deadlines() -> Deadlines:
    """Give a heap without items."""
    return Deadlines(
        np.empty((SMALLEST, 3), np.int64),
        np.empty(SMALLEST, np.int64),
        np.empty(SMALLEST, np.int64),
        np.array([0, 0, -1], np.int64),
    )


def deadlines_state(deadlines: Deadlines) -> dict[str, npt.NDArray[np.int64]]:
    """Give what a snapshot keeps."""
    waiting, slots = deadlines.sizes[WAITING], deadlines.sizes[SLOTS]
    return {
        "heap": deadlines.heap[:waiting].copy(),
        "places": deadlines.places[:slots].copy(),
        "names": deadlines.names[:slots].copy(),
        "sizes": deadlines.sizes.copy(),
    }


@inlined
def is_full_kernel(deadlines: Deadlines) -> bool:
    """Whether the next `push_kernel` would find no slot."""
    return bool(deadlines.sizes[FREE] < 0 and deadlines.sizes[SLOTS] == deadlines.places.size)


@inlined
def push_kernel(deadlines: Deadlines, deadline_us: int, order: int, name: int) -> int:
    """Add an item and give its slot; the caller has made sure that there is room."""
    slot: int = deadlines.sizes[FREE]
    if slot >= 0:
        deadlines.sizes[FREE] = deadlines.places[slot]
    else:
        slot = deadlines.sizes[SLOTS]
        deadlines.sizes[SLOTS] += 1
    deadlines.names[slot] = name
    place = deadlines.sizes[WAITING]
    deadlines.sizes[WAITING] += 1
    _rise(deadlines, place, deadline_us, order, slot)
    return slot


@inlined
def remove_kernel(deadlines: Deadlines, slot: int) -> None:
    """Take an item out, wherever in the heap it stands, and free its slot."""
    heap = deadlines.heap
    place = deadlines.places[slot]
    last = deadlines.sizes[WAITING] - 1
    deadlines.sizes[WAITING] = last
    deadlines.places[slot] = deadlines.sizes[FREE]
    deadlines.sizes[FREE] = slot
    if place == last:
        return
    deadline_us, order, moved = heap[last, 0], heap[last, 1], heap[last, 2]
    child = 2 * place + 1
    while child < last:
        if child + 1 < last and _is_before(heap[child + 1, 0], heap[child + 1, 1], heap[child, 0], heap[child, 1]):
            child += 1
        if not _is_before(heap[child, 0], heap[child, 1], deadline_us, order):
            break
        _put(deadlines, place, heap[child, 0], heap[child, 1], heap[child, 2])
        place = child
        child = 2 * place + 1
    _rise(deadlines, place, deadline_us, order, moved)


@inlined
def _rise(deadlines: Deadlines, place: int, deadline_us: int, order: int, slot: int) -> None:
    heap = deadlines.heap
    while place > 0:
        parent = (place - 1) >> 1
        if not _is_before(deadline_us, order, heap[parent, 0], heap[parent, 1]):
            break
        _put(deadlines, place, heap[parent, 0], heap[parent, 1], heap[parent, 2])
        place = parent
    _put(deadlines, place, deadline_us, order, slot)


@inlined
def _put(deadlines: Deadlines, place: int, deadline_us: int, order: int, slot: int) -> None:
    deadlines.heap[place, 0] = deadline_us
    deadlines.heap[place, 1] = order
    deadlines.heap[place, 2] = slot
    deadlines.places[slot] = place


@inlined
def _is_before(deadline_us: int, order: int, other_us: int, other_order: int) -> bool:
    return deadline_us < other_us or (deadline_us == other_us and order < other_order)
