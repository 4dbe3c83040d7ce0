"""When the events of examples were: a label row says only when the label was.

Events are known by source and number (PROTOCOL 19). The numbers of a source rise by one, so that an event takes 16
bytes. Its time is known to rows at which the clock is at most `keep` past it, and past the clock at the event's own
row, for an event may come long after its time. So what is found depends on the rows alone, whenever the memory behind
it is given back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.example_rows import UNKNOWN_US
from streams.frames import BEGINNING, END
from streams.snapshots import State

LEAST_ROOM = 1 << 10

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class ExampleTimes:
    """Times of events by source and number.

    Args:
        keep_us: how far the clock may be past an event's time and coming, and it is still known.

    Example:
        >>> times = ExampleTimes(keep_us=100)
        >>> times.add(np.array([7, 7]), np.array([0, 1]), np.array([10, 60]), np.array([0, 0]))
        >>> found = times.find(np.array([7, 7]), np.array([1, 0]), np.array([160, 111]))
        >>> found.tolist() == [60, UNKNOWN_US]
        True
    """

    def __init__(self, keep_us: int) -> None:
        self._keep_us = keep_us
        self._sources: dict[int, _Times] = {}
        self._forgot_us: int = BEGINNING

    def __len__(self) -> int:
        return sum(times.size for times in self._sources.values())

    def add(self, source_B: Int32s, number_B: Int64s, time_B: Int64s, clock_B: Int64s) -> None:
        """Note the times of events, in the order of their numbers, and the clock as it stood when they came."""
        until_B = np.minimum(np.maximum(time_B, clock_B), END - self._keep_us) + self._keep_us
        events_2B = np.array([time_B, until_B], np.int64)
        for source in np.unique(source_B).tolist():
            is_mine_B = source_B == source
            number_M = number_B[is_mine_B]
            if source not in self._sources:
                self._sources[source] = _Times(int(number_M[0]), np.zeros((2, 0), np.int64))
            self._sources[source].add(number_M, events_2B[:, is_mine_B])

    def find(self, source_B: Int32s, number_B: Int64s, clock_B: Int64s) -> Int64s:
        """Give the times of events to rows at which the clock stands so; UNKNOWN_US where none is known (any more)."""
        found_B = np.full(number_B.size, UNKNOWN_US, np.int64)
        for source in np.unique(source_B).tolist():
            if source in self._sources:
                is_mine_B = source_B == source
                found_B[is_mine_B] = self._sources[source].find(number_B[is_mine_B], clock_B[is_mine_B])
        return found_B

    def forget(self, clock_us: int) -> None:
        """Give back the memory of what no later row will know; costs nothing until there is enough of it."""
        if clock_us - self._forgot_us <= self._keep_us // 4:
            return
        self._forgot_us = clock_us
        for source, times in list(self._sources.items()):
            if not times.forget(clock_us):
                del self._sources[source]  # one that goes on begins anew with its next number

    def state(self) -> State:
        """Give all times that are held."""
        held = self._sources
        return {
            "source": np.array(list(held), np.int32),
            "first": np.array([times.first for times in held.values()], np.int64),
            "size": np.array([times.size for times in held.values()], np.int64),
            "events": np.concatenate([np.zeros((2, 0), np.int64), *(one.held() for one in held.values())], axis=1),
        }

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        stops = np.cumsum(state["size"])
        places = zip(state["source"].tolist(), state["first"].tolist(), stops - state["size"], stops, strict=True)
        self._sources = {source: _Times(first, state["events"][:, start:stop]) for source, first, start, stop in places}


class _Times:
    """Of one source, from a number on: times of events, and up to which clock they are known."""

    def __init__(self, first: int, events_2N: Int64s) -> None:
        self.first, self.size = first, events_2N.shape[1]
        self._events = events_2N.copy()

    def held(self) -> Int64s:
        return self._events[:, : self.size]

    def add(self, number_B: Int64s, events_2B: Int64s) -> None:
        size = int(number_B[-1]) + 1 - self.first
        if size > self._events.shape[1]:
            more = np.empty((2, max(LEAST_ROOM, 2 * size)), np.int64)
            more[:, : self.size] = self.held()
            self._events = more
        self._events[:, self.size : size] = UNKNOWN_US  # of numbers that a reader has jumped over
        self._events[:, number_B - self.first] = events_2B
        self.size = max(self.size, size)

    def find(self, number_B: Int64s, clock_B: Int64s) -> Int64s:
        place_B = number_B - self.first
        is_held_B = (place_B >= 0) & (place_B < self.size)
        time_B, until_B = self._events[:, np.where(is_held_B, place_B, 0)]
        return np.where(is_held_B & (clock_B <= until_B), time_B, UNKNOWN_US)

    def forget(self, clock_us: int) -> bool:
        """Let go of what lies before the first event that is still known; says whether there is one."""
        is_known = self._events[1, : self.size] >= max(clock_us, UNKNOWN_US + 1)
        gone = int(is_known.argmax()) if is_known.any() else self.size
        self._events = self._events[:, gone : self.size].copy()
        self.first, self.size = self.first + gone, self.size - gone
        return bool(self.size)
