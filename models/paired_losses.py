"""The losses of two models on the same events, and how far apart they are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.selecting import Select

BLOCK_EVENTS = 100
LEAST_EVENTS = 50  # of a block with a loss on both sides: fewer would weigh as much as a whole block

Losses = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]


class PairedLosses(NamedTuple):
    """One block of one source: losses of both models on its events, NaN where no label counted."""

    source: int
    block: int
    first_time_us: int
    last_time_us: int
    champion: Losses
    challenger: Losses

    def exchanged(self) -> PairedLosses:
        """Give the pair with the roles exchanged."""
        return self._replace(champion=self.challenger, challenger=self.champion)

    def counted(self, settings: Select) -> tuple[Floats, Floats]:
        """Give both models' losses where both have one, as the metric has them."""
        is_counted = np.isfinite(self.champion) & np.isfinite(self.challenger)
        return bounded(self.champion[is_counted], settings), bounded(self.challenger[is_counted], settings)


def mean_of(losses: Floats) -> float:
    """Give a mean that is the same on every machine: summed exactly, rounded once."""
    return math.fsum(losses.tolist()) / losses.size


def bounded(losses: Losses, settings: Select) -> Floats:
    """Give losses of the task as those of the metric, at most the largest.

    The Brier loss of a binary answer follows from its log loss, -ln of what was given to the truth.
    """
    taken = losses.astype(np.float64)
    if settings.metric == "brier":
        taken = np.square(-np.expm1(-taken))
    found: Floats = np.minimum(taken, settings.largest_loss)
    return found
