"""How good predictions were, as curves: ROC, precision and recall, calibration, and confusion of classes.

Equal scores are one step of a curve. Curves have at most so many points as a chart can show; areas are of all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.scoring_binary import area_under_curve, average_precision, calibration_error

MOST_POINTS = 240
CALIBRATION_BINS = 10

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Curve(NamedTuple):
    """Points of a curve, and the area under it; NaN where there is only one kind of label."""

    x_P: Floats
    y_P: Floats
    area: float


class Calibration(NamedTuple):
    """Ten equal bins of probability, those that are not empty: what was said on average, and what came."""

    said_K: Floats
    came_K: Floats
    count_K: Int64s
    error: float  # expected calibration error


def roc_curve(said_N: Floats, is_yes_N: Bools) -> Curve:
    """Give the share of yes found (y) against the share of no taken for yes (x), by falling threshold."""
    negatives, positives = _by_score(said_N, is_yes_N)
    area = area_under_curve(negatives, positives)[0]
    found, wrong = _from_highest(positives), _from_highest(negatives)
    if np.isnan(area):
        return Curve(np.zeros(0), np.zeros(0), area)
    return _thinned(wrong / wrong[-1], found / found[-1], area)


def precision_recall(said_N: Floats, is_yes_N: Bools) -> Curve:
    """Give precision (y) against recall (x), by falling threshold; the area is the average precision."""
    negatives, positives = _by_score(said_N, is_yes_N)
    area = average_precision(negatives, positives)
    if np.isnan(area):
        return Curve(np.zeros(0), np.zeros(0), area)
    found, wrong = _from_highest(positives)[1:], _from_highest(negatives)[1:]
    return _thinned(found / found[-1], found / (found + wrong), area)


def calibration(said_N: Floats, is_yes_N: Bools) -> Calibration:
    """Compare probabilities with how often a yes came."""
    place_N = np.minimum((said_N * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    count = np.bincount(place_N, minlength=CALIBRATION_BINS)
    said, came = (np.bincount(place_N, weights, CALIBRATION_BINS) for weights in (said_N, is_yes_N))
    used = count > 0
    error = (
        calibration_error(said_N, (~is_yes_N).astype(np.int64), is_yes_N.astype(np.int64)) if said_N.size else np.nan
    )
    return Calibration(said[used] / count[used], came[used] / count[used], count[used], error)


def confusion(label_N: Floats, said_N: Floats, classes: int) -> Int64s:
    """Count labels (rows) by predictions (columns), [C, C]; what is no class of the two is left out."""
    known = np.isfinite(label_N) & np.isfinite(said_N)
    place_N = label_N[known].astype(np.int64) * classes + said_N[known].astype(np.int64)
    counts: Int64s = np.bincount(place_N, minlength=classes**2).reshape(classes, classes)
    return counts


def _by_score(said_N: Floats, is_yes_N: Bools) -> tuple[Int64s, Int64s]:
    """Count no and yes by rising score."""
    scores, place_N = np.unique(said_N, return_inverse=True)
    no, yes = (np.bincount(place_N[side], minlength=scores.size) for side in (~is_yes_N, is_yes_N))
    return no, yes


def _from_highest(counts: Int64s) -> Floats:
    """Add counts up from the highest score down, from 0 on."""
    return np.concatenate([[0.0], np.cumsum(counts[::-1], dtype=np.float64)])


def _thinned(x_P: Floats, y_P: Floats, area: float) -> Curve:
    """Keep points that lie about equally far apart along the curve, and both ends."""
    if x_P.size > MOST_POINTS:
        way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x_P)) + np.abs(np.diff(y_P)))])
        kept = np.searchsorted(way, np.linspace(0.0, way[-1], MOST_POINTS))
        kept = np.unique(np.append(kept, [0, x_P.size - 1]))
        x_P, y_P = x_P[kept], y_P[kept]
    return Curve(x_P, y_P, area)
