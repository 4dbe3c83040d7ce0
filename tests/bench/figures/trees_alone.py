"""The compiled trees alone, in memory: rows a second, each predicted, then learned, against River on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from models.half_space_trees import HalfSpaceTreesLearner
from models.hoeffding_tree import HoeffdingTreeLearner
from streams.frames import Column
from streams.pipeline import Model
from tests.bench.compiled_speed import Floats, compiled_speed
from tests.bench.figure import Figure, Ratio
from tests.bench.kafka import BenchError
from tests.bench.workplace import FULL, Workplace

NUMBERS, CATEGORIES, VALUES = 12, 4, 8
WITHIN = 1e-9

FIGURES = (
    Figure("hoeffding", "rows/s"),
    Figure("river_hoeffding", "rows/s"),
    Figure("halfspace", "rows/s"),
    Figure("river_halfspace", "rows/s"),
)
RATIOS = (
    Ratio("hoeffding_vs_river", "hoeffding", "river_hoeffding", bound=20),
    Ratio("halfspace_vs_river", "halfspace", "river_halfspace", bound=20),
)
COLUMNS = (
    *(Column(f"n{i:02}", False) for i in range(NUMBERS)),
    *(Column(f"c{i}", True) for i in range(CATEGORIES)),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Drive both trees and both of River's over the same rows; that they answer the same is checked."""
    from river import anomaly, preprocessing, tree

    made: Any = tree.HoeffdingTreeClassifier(nominal_attributes=[c.name for c in COLUMNS if c.is_category])
    spaces: Any = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=0)
    X, y = _rows(20_000 if workplace.size == FULL else 5_000)

    def classify(row: dict[str, Any], label: int) -> float:
        said = made.predict_proba_one(row)
        made.learn_one(row, label)
        return float(said.get(1, 0.0)) if said else 0.5

    def score(row: dict[str, Any], label: int) -> float:
        said = spaces.score_one(row)
        spaces.learn_one(row)
        return float(said)

    model, numbers = Model("m", "hoeffding_tree", {}), X[:, :NUMBERS]
    ours, said = compiled_speed(lambda: HoeffdingTreeLearner(model, COLUMNS), X, y)
    theirs, expected = _river_speed(classify, X, y)
    spaces_model = Model("m", "half_space_trees", {})
    our_spaces, scored = compiled_speed(lambda: HalfSpaceTreesLearner(spaces_model, COLUMNS[:NUMBERS]), numbers, y)
    their_spaces, wanted = _river_speed(score, numbers, y)
    if np.abs(said[:, 0] - expected).max() > WITHIN or np.abs(scored[:, 0] - wanted).max() > WITHIN:
        raise BenchError("a compiled tree and River's answer differently")
    return {
        "hoeffding": ours,
        "river_hoeffding": theirs,
        "halfspace": our_spaces,
        "river_halfspace": their_spaces,
    }


def _rows(rows: int) -> tuple[Floats, Floats]:
    """Give numbers and categories, and a label that depends on some of them, so that the tree splits."""
    rng = np.random.default_rng(7)
    X = np.column_stack([rng.normal(size=(rows, NUMBERS)), rng.integers(0, VALUES, (rows, CATEGORIES))])
    logit = 3.0 * (X[:, 0] > 0.5) * (X[:, NUMBERS] > 3) - 2.0 * (X[:, 1] > 0) + X[:, 2]
    return X, (rng.random(rows) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)


def _river_speed(one: Callable[[dict[str, Any], int], float], X: Floats, y: Floats) -> tuple[float, Floats]:
    """Give rows a second of a model of River's, its dicts made beforehand, and what it said of each row."""
    names = [(column.name, column.is_category) for column in COLUMNS[: X.shape[1]]]
    made = [{n: int(v) if is_code else v for (n, is_code), v in zip(names, row, strict=True)} for row in X.tolist()]
    labels, began_s = y.astype(int).tolist(), time.perf_counter()
    said = [one(row, label) for row, label in zip(made, labels, strict=True)]
    return len(X) / (time.perf_counter() - began_s), np.array(said)
