"""How unusual an error is among those of the rows that a model was trained on: a number in [0, 1).

The errors of training are kept as quantiles, ever closer together towards the largest: half of all lie below 0.5,
999 of 1,000 below 0.999. An error beyond all of them goes on towards 1 and never reaches it, so that larger stays
larger.

Letters of shapes: B rows asked, N rows trained on, K quantiles.
"""

from __future__ import annotations

import numpy as np

from models.learner import Vector

NINES = 6.0  # the last quantile is the 0.999999
LEVELS = 1.0 - 10.0 ** -np.linspace(0.0, NINES, 241)  # forty for each nine
MOST = np.nextafter(1.0, 0.0)


def quantiles_of(error_N: Vector) -> Vector:
    """Give the errors at LEVELS, [K], ascending; of none, zeros.

    Example:
        >>> kept = quantiles_of(np.arange(1001.0))
        >>> rank(np.array([0.0, 500.0, 999.0, 1e6]), kept).round(3).tolist()
        [0.0, 0.5, 0.999, 1.0]
    """
    finite = error_N[np.isfinite(error_N)]
    return np.quantile(finite, LEVELS) if len(finite) else np.zeros(len(LEVELS))


def rank(error_B: Vector, quantile_K: Vector) -> Vector:
    """Give the share of training's errors that lie below each error, in [0, 1)."""
    within = np.interp(error_B, quantile_K, LEVELS)
    most = float(quantile_K[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = 1.0 - (1.0 - LEVELS[-1]) * (most / error_B if most > 0.0 else 1.0 / (1.0 + error_B))
    return np.minimum(np.where(error_B > most, beyond, within), MOST)
