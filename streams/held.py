"""Labels on their way into windows: held from the row that settled their event until the log has reached their time.

A settled label counts in its entity's label features from its own time on, plus a declared delay (PROTOCOL 15). The log
has reached a time when a row of that time or later has come. What is due is added before the next row is taken, in the
order (time, order of settling), so that nothing depends on how rows were cut into batches. A label knows its entity by
the key's hash and finds it when it is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.deadlines import (
    SLOTS,
    WAITING,
    Deadlines,
    deadlines_state,
    due_kernel,
    empty_deadlines,
    longer_deadlines,
    push_kernel,
    remove_kernel,
    restored_deadlines,
)
from streams.memory import resized
from streams.observing import add_label_kernel
from streams.plan import Plan
from streams.windows import Windows


class Held(NamedTuple):
    """Labels by slot, whose name is the key's hash; a label takes D orders, and that for delay d is d modulo D."""

    waiting: Deadlines
    labels: npt.NDArray[np.float64]  # [P]
    order: npt.NDArray[np.int64]  # the next to be held
    label_11: npt.NDArray[np.float64]  # the label at hand, as windows take values


def empty_held() -> Held:
    """Give a store without labels."""
    waiting = empty_deadlines()
    return Held(waiting, np.zeros(waiting.orders.size), np.zeros(1, np.int64), np.zeros((1, 1)))


def longer_held(held: Held, rows: int) -> Held:
    """Give the same labels with room for so many more."""
    waiting = held.waiting
    while waiting.orders.size - int(waiting.sizes[WAITING]) < rows:
        waiting = longer_deadlines(waiting)
    labels = resized(held.labels, waiting.orders.size, int(waiting.sizes[SLOTS]))
    return held._replace(waiting=waiting, labels=labels)


def held_state(held: Held) -> dict[str, npt.NDArray[Any]]:
    """Give what a snapshot keeps."""
    slots = held.waiting.sizes[SLOTS]
    state: dict[str, npt.NDArray[Any]] = {
        f"waiting.{name}": array for name, array in deadlines_state(held.waiting).items()
    }
    return state | {"labels": held.labels[:slots].copy(), "order": held.order.copy()}


def restored_held(state: Mapping[str, npt.NDArray[Any]]) -> Held:
    """Give the labels that `held_state` described."""
    waiting = restored_deadlines(state, "held.waiting.")
    return Held(
        waiting, resized(state["held.labels"], waiting.orders.size), state["held.order"].copy(), np.zeros((1, 1))
    )


@inlined
def holds_kernel(held: Held, rows: int) -> bool:
    """Whether there is room for so many labels more."""
    return bool(held.waiting.orders.size - held.waiting.sizes[WAITING] >= rows)


@inlined
def hold_kernel(held: Held, plan: Plan, key: int, label: float, time_us: int) -> None:
    """Hold a label once for every delay that features have; the caller has made sure that there is room."""
    for delay in range(plan.delays_D.size):
        order = held.order[0]
        held.order[0] = order + 1
        slot = push_kernel(held.waiting, time_us + plan.delays_D[delay], order, key)
        held.labels[slot] = label


@inlined
def due_label_kernel(held: Held, reached_us: int) -> int:
    """Give the slot of the first label whose time the log has reached, else a negative number."""
    return due_kernel(held.waiting, reached_us + 1)


@inlined
def count_label_kernel(held: Held, plan: Plan, windows: Windows, slot: int, entity: int) -> None:
    """Add a label that is due, the heap's first, to its entity's windows, if it has one, and let go of it."""
    waiting = held.waiting
    delays, time_us = plan.delays_D.size, waiting.heap[0, 0]
    delay = waiting.orders[slot] % delays if delays > 1 else 0  # a division takes as long as a look-up
    held.label_11[0, 0] = held.labels[slot]
    remove_kernel(waiting, slot)
    if entity >= 0:
        add_label_kernel(plan, windows, entity, delay, time_us, held.label_11)
