"""Cumulated sums that notice at once when a mean has risen, in a series that remembers.

A line S = max(0, S + x - kappa) stays near 0 while the mean of x is below kappa, and climbs by the difference when it
is above: Page, "Continuous inspection schemes" (1954). It passes the threshold

    h = (sigma^2 / (2 kappa) + c / 3) ln(2 ARL)

by chance about once in ARL values: the decay of a random walk with drift -kappa and long-run variance sigma^2, with
Bernstein's term for values up to c. Past advantage is forgotten at once, because no line falls below 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RUN_EVENTS = 1_000_000  # ARL: events until a false alarm, on average

Floats = npt.NDArray[np.float64]


def line_path(start_S: Floats | float, x_BS: Floats, kappa: Floats | float) -> Floats:
    """Give a line after each of B values, S lines side by side, from where each stood before."""
    sums_BS = np.cumsum(x_BS - kappa, axis=0)
    lowest_BS = np.minimum(np.minimum.accumulate(sums_BS, axis=0), -np.asarray(start_S))
    path_BS: Floats = sums_BS - lowest_BS
    return path_BS


def threshold(variance: Floats | float, kappa: Floats | float, clip: Floats | float) -> Floats | float:
    """Give h, of what the long-run variance of one value, the line's kappa, and the largest value are."""
    return (variance / (2.0 * kappa) + clip / 3.0) * math.log(2.0 * RUN_EVENTS)


def expected_delay(thresholds_K: Floats, kappas_K: Floats, mean_x: Floats | float) -> Floats:
    """Give after how many values of a new mean the first of K lines passes its threshold; infinite: none ever does."""
    slopes_K = mean_x - kappas_K
    with np.errstate(divide="ignore"):
        delays_K = np.where(slopes_K > 0.0, thresholds_K / slopes_K, np.inf)
    delay: Floats = delays_K.min(axis=0)
    return delay
