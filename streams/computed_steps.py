"""Steps of a plan that read no state: columns computed from others, and the numbers that operations work with."""

from __future__ import annotations

import numpy as np

from streams.durations import DAY_US
from streams.hashing import CATEGORY_SEED, category_code, hash_bytes
from streams.pipeline import Feature
from streams.plan import BUCKETISE, CLIP, DIFFERENCE, LOG1P, RATIO

Step = tuple[int, int, int, float, float]  # operation, first, second, numbers


def computed_step(feature: Feature, places: dict[str, int], edges: list[float]) -> Step:
    """Give the step of a column that is computed from others; `edges` of buckets are appended to those of the plan."""
    first = places[feature.of]
    if feature.operation in ("ratio", "difference"):
        made = RATIO if feature.operation == "ratio" else DIFFERENCE
        return made, first, places[feature.other or ""], 0.0, 0.0
    if feature.operation == "log1p":
        return LOG1P, first, 0, 0.0, 0.0
    if feature.operation == "clip":
        low = -np.inf if feature.low is None else feature.low
        return CLIP, first, 0, low, np.inf if feature.high is None else feature.high
    at = len(edges)
    edges += feature.edges
    return BUCKETISE, first, at, float(len(feature.edges)), 0.0


def window_numbers(feature: Feature) -> tuple[float, float]:
    """Give what a windowed operation needs besides its lanes."""
    if feature.operation == "quantile":
        return feature.q, 0.0
    if feature.operation == "frequency":
        return (feature.window_us or 0) / DAY_US, 0.0
    if feature.operation == "target":
        return feature.prior * feature.weight, feature.weight
    return 0.0, 0.0


def category_number(value: str) -> float:
    """Give the code of a category, as a feature has it."""
    return float(category_code(np.uint64(hash_bytes(value.encode(), CATEGORY_SEED))))
