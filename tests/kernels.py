"""Ways from Python to kernels that are only ever compiled into others."""

from __future__ import annotations

from streams.compiled import bare
from streams.deadlines import Deadlines, due_kernel, push_kernel, remove_kernel
from streams.ledger import Ledger, find_kernel, kind_kernel, put_kernel
from streams.windows import ones_kernel, room_kernel


@bare
def ones(bits: int) -> int:
    """Count ones."""
    return ones_kernel(bits)


@bare
def room(held: int) -> int:
    """For how many buckets a chunk has room."""
    return room_kernel(held)


@bare
def push(deadlines: Deadlines, deadline_us: int, order: int, name: int) -> int:
    """Add an item and give its slot."""
    return push_kernel(deadlines, deadline_us, order, name)


@bare
def remove(deadlines: Deadlines, slot: int) -> None:
    """Take an item out."""
    remove_kernel(deadlines, slot)


@bare
def due(deadlines: Deadlines, clock_us: int) -> int:
    """The slot of the first item that is due, or NO_SLOT."""
    return due_kernel(deadlines, clock_us)


@bare
def put(ledger: Ledger, name: int, kind: int, at: int, value: float, time_us: int) -> None:
    """Write the entry of a name."""
    put_kernel(ledger, find_kernel(ledger, name), name, kind, at, value, time_us)


@bare
def kind(ledger: Ledger, name: int, clock_us: int) -> int:
    """What is known of a name."""
    return kind_kernel(ledger, find_kernel(ledger, name), clock_us)
