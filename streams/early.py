"""Early labels: those that came before their event, by slot, with the time until which they wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.deadlines import SLOTS, Deadlines, deadlines_state, empty_deadlines, longer_deadlines, restored_deadlines
from streams.memory import resized


class Early(NamedTuple):
    """Labels that wait in P slots."""

    waiting: Deadlines
    labels: npt.NDArray[np.float64]  # [P]
    times: npt.NDArray[np.int64]  # [P] of the label rows
    keys: npt.NDArray[np.int64]  # [P] hashes of their keys


def empty_early() -> Early:
    """Give a store without labels."""
    waiting = empty_deadlines()
    slots = waiting.orders.size
    return Early(waiting, np.zeros(slots), np.zeros(slots, np.int64), np.zeros(slots, np.int64))


def longer_early(early: Early) -> Early:
    """Give the same labels with room for more."""
    return _with_slots(longer_deadlines(early.waiting), early.labels, early.times, early.keys)


def early_state(early: Early) -> dict[str, npt.NDArray[Any]]:
    """Give what a snapshot keeps."""
    slots = early.waiting.sizes[SLOTS]
    state: dict[str, npt.NDArray[Any]] = {
        f"waiting.{name}": array for name, array in deadlines_state(early.waiting).items()
    }
    return state | {name: getattr(early, name)[:slots].copy() for name in ("labels", "times", "keys")}


def restored_early(state: Mapping[str, npt.NDArray[Any]]) -> Early:
    """Give the labels that `early_state` described."""
    waiting = restored_deadlines(state, "early.waiting.")
    return _with_slots(waiting, state["early.labels"], state["early.times"], state["early.keys"])


def _with_slots(
    waiting: Deadlines, labels: npt.NDArray[np.float64], times: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]
) -> Early:
    slots = waiting.orders.size
    return Early(waiting, resized(labels, slots), resized(times, slots), resized(keys, slots))
