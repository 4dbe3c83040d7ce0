"""Deadlines: things that wait, each in a slot of its own, and the one that is due first.

A binary heap over (deadline, order). What came in time is not looked for in the heap: its slot is freed, and its item
is *dead*, known by an order that is no longer its slot's. Dead items leave when they reach the top, or all at once when
they are more than half, so that adding and taking out cost a few nanoseconds where things come in order, and the heap
stays below twice of what waits. The order of what falls due never depends on how the heap happens to lie: no two items
share an order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.memory import resized
from streams.scratch import Scratch

# Sizes: things that wait, slots ever used, first free slot (NO_SLOT = none), items in the heap, and whether somebody
# reads what belongs to the slots, so that none is used again meanwhile.
WAITING, SLOTS, FREE, ITEMS, READ = 0, 1, 2, 3, 4
KEPT_SIZES = 4  # of them in a snapshot
NO_SLOT = -1
SMALLEST = 64
GROWTH = 1.5

MEMORY = Scratch()

Int64s = npt.NDArray[np.int64]


class Deadlines(NamedTuple):
    """A heap of things that wait in P slots."""

    heap: npt.NDArray[np.int64]  # [room_for(P), 3] deadline, order, slot
    orders: npt.NDArray[np.int64]  # [P] slot → its order, never negative, or of a free slot: NO_SLOT - 1 - the next
    names: npt.NDArray[np.int64]  # [P] slot → hash of the event's id and key
    sizes: npt.NDArray[np.int64]


def empty_deadlines() -> Deadlines:
    """Give a heap without items."""
    return Deadlines(
        np.empty((room_for(SMALLEST), 3), np.int64),
        np.empty(SMALLEST, np.int64),
        np.empty(SMALLEST, np.int64),
        np.array([0, 0, NO_SLOT, 0, 0], np.int64),
    )


def room_for(slots: int) -> int:
    """Give the items that a heap with so many slots can hold, dead ones among them."""
    return 2 * slots + SMALLEST + 2


def deadlines_state(deadlines: Deadlines) -> dict[str, npt.NDArray[np.int64]]:
    """Give what a snapshot keeps, as copies in memory: the stream waits for them, and would for a disk."""
    items, slots = int(deadlines.sizes[ITEMS]), int(deadlines.sizes[SLOTS])
    return {
        "heap": resized(deadlines.heap, items),
        "orders": resized(deadlines.orders, slots),
        "names": resized(deadlines.names, slots),
        "sizes": deadlines.sizes[:KEPT_SIZES].copy(),
    }


def restored_deadlines(state: Mapping[str, npt.NDArray[Any]], prefix: str, scratch: Scratch = MEMORY) -> Deadlines:
    """Give the heap that `deadlines_state` described under names with this prefix."""
    sizes = np.zeros(KEPT_SIZES + 1, np.int64)
    sizes[:KEPT_SIZES] = state[f"{prefix}sizes"]
    heap, orders, names = (state[prefix + name] for name in ("heap", "orders", "names"))
    slots = max(int(sizes[SLOTS]), SMALLEST)
    return Deadlines(scratch.copied(heap, room_for(slots)), scratch.copied(orders, slots), resized(names, slots), sizes)


def chosen_deadlines(
    state: Mapping[str, npt.NDArray[Any]], prefix: str, is_chosen: Callable[[Int64s], npt.NDArray[np.bool_]]
) -> tuple[Int64s, dict[str, npt.NDArray[Any]]]:
    """Give some of the items that a snapshot describes under names with this prefix, in new slots.

    Args:
        state: of the snapshot.
        prefix: of the names.
        is_chosen: says of slots which of their items are wanted.

    Returns:
        The old slot of each new one, and the state of a heap of these items alone, in the order in which they are due.
    """
    heap, orders, names = (state[prefix + name] for name in ("heap", "orders", "names"))
    alive = heap[orders[heap[:, 2]] == heap[:, 1]]
    chosen = alive[is_chosen(alive[:, 2])]
    chosen = chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))]
    slots = chosen[:, 2].copy()
    chosen[:, 2] = np.arange(slots.size)
    sizes = np.array([slots.size, slots.size, NO_SLOT, slots.size], np.int64)
    arrays = {"heap": chosen, "orders": orders[slots], "names": names[slots], "sizes": sizes}
    return slots, {prefix + name: array for name, array in arrays.items()}


def longer_deadlines(deadlines: Deadlines, scratch: Scratch = MEMORY) -> Deadlines:
    """Give the same heap with more slots. Names stay in memory: every look-up reads them, wherever it leads."""
    slots = int(deadlines.orders.size * GROWTH)
    items, used = int(deadlines.sizes[ITEMS]), int(deadlines.sizes[SLOTS])
    return Deadlines(
        scratch.resized(deadlines.heap, room_for(slots), items),
        scratch.resized(deadlines.orders, slots, used),
        resized(deadlines.names, slots, used),
        deadlines.sizes,
    )


@inlined
def is_full_kernel(deadlines: Deadlines) -> bool:
    """Whether the next `push_kernel` would find no slot."""
    sizes = deadlines.sizes
    return bool((sizes[FREE] < 0 or sizes[READ] != 0) and sizes[SLOTS] == deadlines.orders.size)


@inlined
def push_kernel(deadlines: Deadlines, deadline_us: int, order: int, name: int) -> int:
    """Add an item and give its slot; the caller has made sure that there is room."""
    slot: int = deadlines.sizes[FREE]
    if slot >= 0 and deadlines.sizes[READ] == 0:
        deadlines.sizes[FREE] = NO_SLOT - 1 - deadlines.orders[slot]
    else:
        slot = deadlines.sizes[SLOTS]
        deadlines.sizes[SLOTS] += 1
    deadlines.names[slot] = name
    deadlines.orders[slot] = order
    place = deadlines.sizes[ITEMS]
    deadlines.sizes[ITEMS] = place + 1
    deadlines.sizes[WAITING] += 1
    heap = deadlines.heap
    while place > 0:
        parent = (place - 1) >> 1
        if not _is_before(deadline_us, order, heap[parent, 0], heap[parent, 1]):
            break
        _put(heap, place, heap[parent, 0], heap[parent, 1], heap[parent, 2])
        place = parent
    _put(heap, place, deadline_us, order, slot)
    return slot


@inlined
def remove_kernel(deadlines: Deadlines, slot: int) -> None:
    """Take an item out, wherever in the heap it stands, and free its slot."""
    sizes = deadlines.sizes
    deadlines.orders[slot] = NO_SLOT - 1 - sizes[FREE]
    sizes[FREE] = slot
    sizes[WAITING] -= 1
    if sizes[ITEMS] > 2 * sizes[WAITING] + SMALLEST:
        _drop_dead(deadlines)


@inlined
def due_kernel(deadlines: Deadlines, clock_us: int) -> int:
    """Give the slot of the first item if its deadline has passed, else NO_SLOT; that item is the heap's first then."""
    heap, sizes = deadlines.heap, deadlines.sizes
    while sizes[ITEMS] > 0 and heap[0, 0] < clock_us:
        if is_alive_kernel(deadlines, 0):
            return int(heap[0, 2])
        last = sizes[ITEMS] - 1
        sizes[ITEMS] = last
        _sink(heap, 0, last, heap[last, 0], heap[last, 1], heap[last, 2])
    return NO_SLOT


@inlined
def is_alive_kernel(deadlines: Deadlines, place: int) -> bool:
    """Whether the item at a place of the heap still waits."""
    return bool(deadlines.orders[deadlines.heap[place, 2]] == deadlines.heap[place, 1])


@inlined
def _drop_dead(deadlines: Deadlines) -> None:
    """Keep only what waits. Items that came in order stay in order, so that hardly one has to move."""
    heap, kept = deadlines.heap, 0
    for place in range(deadlines.sizes[ITEMS]):
        if is_alive_kernel(deadlines, place):
            _put(heap, kept, heap[place, 0], heap[place, 1], heap[place, 2])
            kept += 1
    deadlines.sizes[ITEMS] = kept
    for place in range((kept >> 1) - 1, -1, -1):
        _sink(heap, place, kept, heap[place, 0], heap[place, 1], heap[place, 2])


@inlined
def _sink(heap: npt.NDArray[np.int64], place: int, items: int, deadline_us: int, order: int, slot: int) -> None:
    """Put an item at a place or below it, so that none of the `items` comes before its parent."""
    child = 2 * place + 1
    while child < items:
        if child + 1 < items and _is_before(heap[child + 1, 0], heap[child + 1, 1], heap[child, 0], heap[child, 1]):
            child += 1
        if not _is_before(heap[child, 0], heap[child, 1], deadline_us, order):
            break
        _put(heap, place, heap[child, 0], heap[child, 1], heap[child, 2])
        place = child
        child = 2 * place + 1
    _put(heap, place, deadline_us, order, slot)


@inlined
def _put(heap: npt.NDArray[np.int64], place: int, deadline_us: int, order: int, slot: int) -> None:
    heap[place, 0] = deadline_us
    heap[place, 1] = order
    heap[place, 2] = slot


@inlined
def _is_before(deadline_us: int, order: int, other_us: int, other_order: int) -> bool:
    return deadline_us < other_us or (deadline_us == other_us and order < other_order)
