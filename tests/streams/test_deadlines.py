"""Deadlines: the earliest first, ties in order, and taking out from anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.deadlines import ITEMS, NO_SLOT, SMALLEST, WAITING, empty_deadlines
from tests import kernels


@given(
    deadlines=st.lists(st.integers(0, 6), min_size=1, max_size=SMALLEST),
    taken=st.lists(st.integers(0, SMALLEST), max_size=SMALLEST),
)
def test_what_is_left_falls_due_by_deadline_then_order(deadlines: list[int], taken: list[int]) -> None:
    """Whatever is pushed and taken out in between, the rest leaves sorted, each with the name it came with."""
    heap = empty_deadlines()
    slots = {order: kernels.push(heap, deadline, order, 100 + order) for order, deadline in enumerate(deadlines)}
    for order in taken:
        if order in slots:
            kernels.remove(heap, slots.pop(order))

    left = []
    while (slot := kernels.due(heap, 7)) != NO_SLOT:
        deadline, order, _ = heap.heap[0].tolist()
        left.append((deadline, order, int(heap.names[slot])))
        kernels.remove(heap, slot)

    assert left == sorted((deadlines[order], order, 100 + order) for order in slots)


def test_slots_are_used_again() -> None:
    """A long stream of things that come and go needs as many slots as wait at once."""
    heap = empty_deadlines()
    slots = [kernels.push(heap, order, order, 0) for order in range(10)]
    for order in range(10, 1_000):
        kernels.remove(heap, slots.pop(order * 7 % len(slots)))
        slots.append(kernels.push(heap, order % 13, order, 0))

    assert sorted(slots) == list(range(10))


def test_what_came_in_time_does_not_pile_up() -> None:
    """One thing waits for long while others come and go: the heap holds at most about twice of what waits."""
    heap = empty_deadlines()
    first = kernels.push(heap, 5, 0, 7)
    for order in range(1, 10_000):
        kernels.remove(heap, kernels.push(heap, order % 97 + 6, order, 0))
        assert heap.sizes[ITEMS] <= 2 * heap.sizes[WAITING] + SMALLEST

    assert kernels.due(heap, 5) == NO_SLOT
    assert kernels.due(heap, 6) == first
