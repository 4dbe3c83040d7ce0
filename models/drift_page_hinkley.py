"""The Page-Hinkley test, compiled: has the mean of a stream of numbers moved away from what it was?

Source: Page, "Continuous inspection schemes", Biometrika 41, 1954; with a forgetting factor, as in River 0.26's
`drift.PageHinkley`, at whose alarms this one alarms. Like it, it begins anew after an alarm. State: six numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams import drift
from streams.compiled import inlined

Vector = npt.NDArray[np.float64]

LEAST, DELTA, THRESHOLD, ALPHA, IS_UP, IS_DOWN = 0, 1, 2, 3, 4, 5  # places in `settings`
SEEN, MEAN, RISEN, FALLEN, LEAST_RISEN, MOST_FALLEN = 0, 1, 2, 3, 4, 5  # in `sums`


class PageHinkley(NamedTuple):
    """The two cumulated sums with the least and most they have been."""

    settings: Vector
    sums: Vector


def new_page_hinkley(settings: drift.PageHinkley) -> PageHinkley:
    """Make a test that has seen nothing."""
    values = [settings.min_instances, settings.delta, settings.threshold, settings.alpha]
    sides = [settings.mode != "down", settings.mode != "up"]
    made = PageHinkley(np.array([*values, *sides], np.float64), np.zeros(6))
    clear_page_hinkley(made)
    return made


@inlined
def clear_page_hinkley(test: PageHinkley) -> None:
    """Forget all numbers."""
    for place in range(test.sums.size):
        test.sums[place] = 0.0
    test.sums[LEAST_RISEN] = np.inf
    test.sums[MOST_FALLEN] = -1.0  # River's


@inlined
def observe_page_hinkley(test: PageHinkley, x: float, found: Vector) -> bool:
    """Add a number; gives whether the mean has moved, and in `found` by how much, the threshold, and 1 if up or -1."""
    settings, sums = test.settings, test.sums
    sums[SEEN] += 1.0
    sums[MEAN] += 1.0 / sums[SEEN] * (x - sums[MEAN])
    apart = x - sums[MEAN]
    sums[RISEN] = settings[ALPHA] * sums[RISEN] + apart - settings[DELTA]
    sums[FALLEN] = settings[ALPHA] * sums[FALLEN] + apart + settings[DELTA]
    sums[LEAST_RISEN] = min(sums[LEAST_RISEN], sums[RISEN])
    sums[MOST_FALLEN] = max(sums[MOST_FALLEN], sums[FALLEN])
    up, down = sums[RISEN] - sums[LEAST_RISEN], sums[MOST_FALLEN] - sums[FALLEN]
    is_up = settings[IS_UP] > 0.0 and up > settings[THRESHOLD]
    is_down = settings[IS_DOWN] > 0.0 and down > settings[THRESHOLD]
    if sums[SEEN] < settings[LEAST] or not (is_up or is_down):
        return False
    found[0], found[1], found[2] = up if is_up else down, settings[THRESHOLD], 1.0 if is_up else -1.0
    return True
