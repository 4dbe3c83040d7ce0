"""The cost of staleness: what answers lost more than their model would have, had it answered as it had learned by then.

An answer is by the version that serve had at hand, the candidate's own prediction of the same event by the model as it
stood at the event's row. Losses are compared as P.scores carries them, as float32, so where both say the same the
difference is 0. Sums are exact and the same in whatever order blocks come; what is rolling follows the order in which
they were compared.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.exact_sums import add_exactly, empty_sums, exact_total
from streams.compiled import njit
from streams.errors import ModelError

ROLLING_BLOCKS = 100  # of up to 100 events
ANSWERED, OWN, LOSSES = 0, 1, 2  # places in `sums`

State = dict[str, npt.NDArray[np.generic]]
Losses = npt.NDArray[np.float32]
Int16s = npt.NDArray[np.int16]
Int64s = npt.NDArray[np.int64]


class Cost(NamedTuple):
    """What was compared, and the mean difference of the losses; NaN where there is none. Above 0 answers were worse."""

    events: int
    cost: float


class StalenessCost:
    """The differences of all blocks compared so far.

    Example:
        >>> cost, who = StalenessCost(), np.zeros(100, np.int16)
        >>> cost.compare(np.full(100, 0.5, np.float32), np.full(100, 0.25, np.float32), who, 0)
        >>> cost.since_start()
        Cost(events=100, cost=0.25)
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums = empty_sums(LOSSES)
        self._counts: Int64s = np.zeros(2, np.int64)  # events and blocks
        self._recent = np.zeros((ROLLING_BLOCKS, 2))  # events and difference of each, a ring

    def compare(self, answered_N: Losses, own_N: Losses, who_N: Int16s, who: int) -> None:
        """Take a block: losses of its answers and of a candidate itself, for the events that this one answered."""
        events, difference = _compare_kernel(answered_N, own_N, who_N, who, self._sums)
        if events:
            self._recent[self._counts[1] % ROLLING_BLOCKS] = events, difference
            self._counts += events, 1

    def since_start(self) -> Cost:
        """Give the mean over all events compared."""
        events = int(self._counts[0])
        answered, own = exact_total(self._sums[ANSWERED]), exact_total(self._sums[OWN])
        if not events or answered is None or own is None:
            return Cost(events, math.nan)
        return Cost(events, float((answered - own) / events))

    def rolling(self) -> Cost:
        """Give the mean over the last blocks compared, up to 10,000 events."""
        events, difference = self._recent.sum(axis=0).tolist()
        return Cost(int(events), difference / events if events else math.nan)

    def state(self) -> State:
        """Copy everything."""
        return {"sums": self._sums.copy(), "counts": self._counts.copy(), "recent": self._recent.copy()}

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            ModelError: arrays are absent or of another shape.
        """
        for name, ours in (("sums", self._sums), ("counts", self._counts), ("recent", self._recent)):
            if name not in state or state[name].shape != ours.shape:
                raise ModelError(f"the {name} of the cost of staleness are not whole in this snapshot")
            ours[...] = state[name]


@njit
def _compare_kernel(answered_N: Losses, own_N: Losses, who_N: Int16s, who: int, sums: Int64s) -> tuple[int, float]:
    """Add the losses of the events that `who` has answered; gives how many they are, and the sum of differences."""
    events, difference = 0, 0.0
    for i in range(who_N.size):
        answered, own = float(answered_N[i]), float(own_N[i])
        if who_N[i] == who and not math.isnan(answered) and not math.isnan(own):
            add_exactly(sums, ANSWERED, answered, 1)
            add_exactly(sums, OWN, own, 1)
            events += 1
            difference += answered - own
    return events, difference
