"""Losses by how long the label took: a model that is good at what is known soon may be poor at what is known late.

A label counts as it was first scored, with its delay in event time from event to label; one that never came but counts
as a label took as long as it was waited for.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined
from streams.durations import DAY_US, HOUR_US, MINUTE_US

WEEK_US = 7 * DAY_US
DELAYS = ("1m", "1h", "1d", "7d", "more")  # below each, and not below the one before
LABELS_OF, LOSS_OF = 0, 1  # rows of `delays`


def no_delays() -> npt.NDArray[np.float64]:
    """Make room for how many labels took so long, and the sum of their losses: [2, delays]."""
    return np.zeros((2, len(DELAYS)))


@inlined
def count_delay(delays: npt.NDArray[np.float64], delay_us: int, loss: float) -> None:
    """Count a label's loss; NaN is none."""
    if not math.isnan(loss):
        place = (delay_us >= MINUTE_US) + (delay_us >= HOUR_US) + (delay_us >= DAY_US) + (delay_us >= WEEK_US)
        delays[LABELS_OF, place] += 1.0
        delays[LOSS_OF, place] += loss
