"""Ways from Python to kernels that are only ever compiled into others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare
from streams.deadlines import Deadlines, due_kernel, push_kernel, remove_kernel
from streams.ledger import (
    NO_RECORD,
    PENDING,
    VALUE,
    Ledger,
    amend_kernel,
    drop_kernel,
    find_kernel,
    forget_kernel,
    kind_kernel,
    number_kernel,
    record_kernel,
    settle_kernel,
    wait_kernel,
)
from streams.vector_sums import dot as dot_part
from streams.windows import ones_kernel, room_kernel


@bare
def dot(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Sum products."""
    return dot_part(first, second)


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
def wait(ledger: Ledger, place: int, name: int, kind: int, slot: int) -> None:
    """Say where an event or early label waits."""
    wait_kernel(ledger, place, name, kind, slot)


@bare
def settle(ledger: Ledger, place: int, name: int, kind: int, number: int, value: float, until_us: int) -> None:
    """Settle an event, which waits in slot 0 if it was not known before."""
    if ledger.words[place] == 0:
        wait_kernel(ledger, place, name, PENDING, 0)
    settle_kernel(ledger, place, name, 0, kind, number, value, until_us)


@bare
def amend(ledger: Ledger, place: int, kind: int, number: int, value: float) -> None:
    """Change what is known of a settled event."""
    amend_kernel(ledger, record_kernel(ledger, ledger.words[place]), kind, number, value)


@bare
def forget(ledger: Ledger, place: int) -> None:
    """Forget an early label."""
    forget_kernel(ledger, place)


@bare
def drop(ledger: Ledger, clock_us: int, most: int) -> None:
    """Let forgotten records leave."""
    drop_kernel(ledger, clock_us, most)


@bare
def find(ledger: Ledger, pending: npt.NDArray[np.int64], early: npt.NDArray[np.int64], name: int) -> int:
    """The place of a name's word, or of the empty one where it belongs."""
    return find_kernel(ledger, pending, early, name)


@bare
def kind(ledger: Ledger, place: int, clock_us: int) -> int:
    """What is known at a place."""
    return kind_kernel(ledger, ledger.words[place], clock_us)


@bare
def record(ledger: Ledger, place: int) -> int:
    """The record of the settled event at a place."""
    return record_kernel(ledger, ledger.words[place])


@bare
def settled(ledger: Ledger, place: int) -> tuple[int, float]:
    """Number and label of the settled event at a place."""
    record = record_kernel(ledger, ledger.words[place])
    return (number_kernel(ledger, record), ledger.values[record, VALUE]) if record != NO_RECORD else (-1, 0.0)
