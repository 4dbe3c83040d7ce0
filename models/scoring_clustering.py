"""How tight and how well apart clusters were, by the distances that models/gauging.py measures when an event passes.

The silhouette is the simplified one (Hruschka, de Castro and Campello 2004): of an event's distance a to the mean of
its own cluster and b to that of the nearest other one, (b - a) / max(a, b); 0 with one cluster. It is above 0 where
rows lie nearer to their own cluster, and does not rise with the number of clusters alone, as the inertia falls with it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.tally import LABELS, LOSS, SILHOUETTE, Tally, Vector


class ClusteringQuality(NamedTuple):
    """Figures of a span of events; NaN where nothing can be said yet."""

    labels: int  # events
    inertia: float  # mean squared distance to the own cluster, of each number in standard deviations
    silhouette: float
    clusters: float  # that events were put into

    @property
    def loss(self) -> float:
        """The inertia."""
        return self.inertia


_NOTHING = ClusteringQuality(0, *[math.nan] * 3)


def since_start(tally: Tally) -> ClusteringQuality:
    """Judge all events so far."""
    events = int(tally.totals[LABELS])
    if not events:
        return _NOTHING
    used = float(np.count_nonzero(tally.bins))
    return ClusteringQuality(events, float(tally.sums[LOSS]) / events, float(tally.sums[SILHOUETTE]) / events, used)


def recent(said_B3: npt.NDArray[np.float64], _: Vector) -> ClusteringQuality:
    """Judge some events."""
    if not len(said_B3):
        return _NOTHING
    own, other = np.sqrt(said_B3[:, 1]), np.sqrt(said_B3[:, 2])
    most = np.maximum(own, other)
    silhouette = np.divide(other - own, most, out=np.zeros_like(own), where=most > 0.0)
    clusters = float(np.unique(said_B3[:, 0]).size)
    return ClusteringQuality(len(said_B3), float(said_B3[:, 1].mean()), float(silhouette.mean()), clusters)
