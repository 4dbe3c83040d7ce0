"""When the events were that wait for their label: a label row says only when the label was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SETTLED = np.iinfo(np.int64).min
LEAST_ROOM = 1 << 16

Int64s = npt.NDArray[np.int64]


class EventTimes:
    """Times of events by number, from the oldest that waits on; 8 bytes for each event since then.

    Example:
        >>> times = EventTimes()
        >>> times.add(np.array([10, 20, 30]))
        >>> times.settle(np.array([2, 0])).tolist(), times.waiting().tolist()
        ([30, 10], [20])
    """

    def __init__(self) -> None:
        self._first = 0  # number of the first event held
        self._size = 0
        self._times = np.empty(LEAST_ROOM, np.int64)

    def add(self, times_us: Int64s) -> None:
        """Note the times of the next events; numbers count from 0."""
        if self._size + times_us.size > self._times.size:
            self._make_room(times_us.size)
        self._times[self._size : self._size + times_us.size] = times_us
        self._size += times_us.size

    def settle(self, number_B: Int64s) -> Int64s:
        """Give the times of events that wait, and forget them."""
        place_B = number_B - self._first
        times: Int64s = self._times[place_B]
        self._times[place_B] = SETTLED
        return times

    def waiting(self) -> Int64s:
        """Give the times of all events that wait, by number."""
        held = self._times[: self._size]
        waiting: Int64s = held[held != SETTLED]
        return waiting

    def _make_room(self, more: int) -> None:
        """Let go of what lies before the oldest event that waits; twice the rest, so that a row costs O(1)."""
        waiting = np.flatnonzero(self._times[: self._size] != SETTLED)
        gone = int(waiting[0]) if waiting.size else self._size
        kept = self._times[gone : self._size].copy()
        self._times = np.empty(max(LEAST_ROOM, 2 * (kept.size + more)), np.int64)
        self._times[: kept.size] = kept
        self._first, self._size = self._first + gone, kept.size
