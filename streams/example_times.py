"""When the events of examples were: a label row says only when the label was.

Events are known by source and number (PROTOCOL 19). The numbers of a source rise by one, so that a time takes 8 bytes.
A time is known to a row as long as the clock at that row is at most `keep` past it: what is found depends on the rows
alone, whenever the memory behind it is given back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.example_rows import UNKNOWN_US
from streams.frames import BEGINNING
from streams.snapshots import State

LEAST_ROOM = 1 << 10

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class ExampleTimes:
    """Times of events by source and number.

    Args:
        keep_us: how far the clock may be past an event's time, and it is still known.

    Example:
        >>> times = ExampleTimes(keep_us=100)
        >>> times.add(np.array([7, 7]), np.array([0, 1]), np.array([10, 60]))
        >>> found = times.find(np.array([7, 7]), np.array([1, 0]), np.array([50, 111]))
        >>> found.tolist() == [60, UNKNOWN_US]
        True
    """

    def __init__(self, keep_us: int) -> None:
        self._keep_us = keep_us
        self._sources: dict[int, _Times] = {}
        self._forgot_us: int = BEGINNING

    def __len__(self) -> int:
        return sum(times.size for times in self._sources.values())

    def add(self, source_B: Int32s, number_B: Int64s, time_B: Int64s) -> None:
        """Note the times of events, in the order of their numbers."""
        for source in np.unique(source_B).tolist():
            is_mine_B = source_B == source
            number_M = number_B[is_mine_B]
            if source not in self._sources:
                self._sources[source] = _Times(int(number_M[0]), np.zeros(0, np.int64))
            self._sources[source].add(number_M, time_B[is_mine_B])

    def find(self, source_B: Int32s, number_B: Int64s, clock_B: Int64s) -> Int64s:
        """Give the times of events to rows at which the clock stands so; UNKNOWN_US where none is known (any more)."""
        found_B = np.full(number_B.size, UNKNOWN_US, np.int64)
        for source in np.unique(source_B).tolist():
            if source in self._sources:
                is_mine_B = source_B == source
                found_B[is_mine_B] = self._sources[source].find(number_B[is_mine_B])
        oldest_B = np.maximum(clock_B, BEGINNING + self._keep_us) - self._keep_us
        return np.where(found_B >= oldest_B, found_B, UNKNOWN_US)

    def forget(self, clock_us: int) -> None:
        """Give back the memory of what no later row will know; costs nothing until there is enough of it."""
        if clock_us - self._forgot_us <= self._keep_us // 4:
            return
        self._forgot_us = clock_us
        for source, times in list(self._sources.items()):
            if not times.forget(clock_us - self._keep_us):
                del self._sources[source]  # one that goes on begins anew with its next number

    def state(self) -> State:
        """Give all times that are held."""
        held = self._sources
        return {
            "source": np.array(list(held), np.int32),
            "first": np.array([times.first for times in held.values()], np.int64),
            "size": np.array([times.size for times in held.values()], np.int64),
            "time": np.concatenate([np.zeros(0, np.int64), *(times.held() for times in held.values())]),
        }

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        parts = np.split(state["time"], np.cumsum(state["size"])[:-1]) if state["source"].size else []
        firsts = zip(state["source"].tolist(), state["first"].tolist(), parts, strict=True)
        self._sources = {source: _Times(first, time) for source, first, time in firsts}


class _Times:
    """Times of one source, from a number on."""

    def __init__(self, first: int, times: Int64s) -> None:
        self.first, self.size = first, times.size
        self._times = times.copy()

    def held(self) -> Int64s:
        return self._times[: self.size]

    def add(self, number_B: Int64s, time_B: Int64s) -> None:
        size = int(number_B[-1]) + 1 - self.first
        if size > self._times.size:
            more = np.empty(max(LEAST_ROOM, 2 * size), np.int64)
            more[: self.size] = self.held()
            self._times = more
        self._times[self.size : size] = UNKNOWN_US  # of numbers that a reader has jumped over
        self._times[number_B - self.first] = time_B
        self.size = max(self.size, size)

    def find(self, number_B: Int64s) -> Int64s:
        place_B = number_B - self.first
        is_held_B = (place_B >= 0) & (place_B < self.size)
        found_B = np.full(number_B.size, UNKNOWN_US, np.int64)
        found_B[is_held_B] = self._times[place_B[is_held_B]]
        return found_B

    def forget(self, oldest_us: int) -> bool:
        """Let go of what lies before the first event that is young enough; says whether there is one."""
        is_young = self.held() >= max(oldest_us, UNKNOWN_US + 1)
        gone = int(is_young.argmax()) if is_young.any() else self.size
        self._times = self._times[gone : self.size].copy()
        self.first, self.size = self.first + gone, self.size - gone
        return bool(self.size)
