"""Explanations: which features moved a prediction, for models whose answer is a sum over features.

    linear          what each feature adds to the logit (of a regression: to the number): weight times scaled value, or
                    a category's weight. Exact: with the intercept they add up to the logit.
    hoeffding_tree  by how much the share of yes changes at each branch on the way to the leaf, added up by the feature
                    that the branch asks for: from the root's share to the leaf's, over the rows each had seen. What
                    naive Bayes makes of the share within the leaf belongs to no branch and is left out.

Of several classes there is a sum for each, and of other kinds there is none; those are not explained.

Source: A. Palczewska et al., Interpreting random forest models using a feature contribution method, 2013 (trees).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.adaptive_linear import AdaptiveLinearLearner
from models.hoeffding_arrays import LEAF, MULTIWAY, NONE, NUMERIC, Tree
from models.hoeffding_tree import HoeffdingTreeLearner
from models.learner import MAX_CODE, MAX_MAGNITUDE, Learner, Matrix, Vector
from models.linear import LinearLearner
from models.linear_kernels import category_slot
from streams.frames import Column

MOST = 5  # contributions of a row

Explanation = list[tuple[str, float]]
"""Features and their contributions, the largest first, whether it is up or down."""


def explain(learner: Learner, columns: Sequence[Column], X_BF: Matrix) -> list[Explanation] | None:
    """Give the largest contributions to each row's prediction; about 0.1 ms a row. None for other models.

    Args:
        learner: of one output.
        columns: those it was made for.
        X_BF: rows of these columns.
    """
    added_BF = contributions(learner, X_BF)
    if added_BF is None:
        return None
    order_BF = np.argsort(-np.abs(added_BF), axis=1, kind="stable")[:, :MOST]
    return [
        [(columns[f].name, float(added_B[f])) for f in order_B if added_B[f] != 0.0]
        for order_B, added_B in zip(order_BF.tolist(), added_BF, strict=True)
    ]


def contributions(learner: Learner, X_BF: Matrix) -> Matrix | None:
    """Give what each feature adds to each row's prediction, [B, F]; 0 where it is missing."""
    if isinstance(learner, LinearLearner):
        weights = learner.weights
        return _linear(learner, X_BF, weights.weight, weights.table * weights.shared[1])
    if isinstance(learner, AdaptiveLinearLearner) and learner.weights.intercept.size == 1:
        return _linear(learner, X_BF, learner.weights.weight[0], learner.weights.table[:, 0])
    if isinstance(learner, HoeffdingTreeLearner) and learner.weights.stats.shape[1] == 2:
        is_category = learner.plan.is_category
        return np.array([_path(learner.weights, is_category, x_F) for x_F in X_BF.tolist()]).reshape(X_BF.shape)
    return None


def _linear(learner: LinearLearner | AdaptiveLinearLearner, X_BF: Matrix, weight_N: Vector, table: Vector) -> Matrix:
    plan, weights = learner.plan, learner.weights
    added_BF, x_BN = np.zeros(X_BF.shape), X_BF[:, plan.number_columns]
    deviation_N = np.sqrt(weights.variance)
    with np.errstate(invalid="ignore", over="ignore"):
        away_BN = x_BN - weights.mean
    scaled_BN = np.divide(away_BN, deviation_N, out=np.zeros(x_BN.shape), where=deviation_N > 0.0)
    is_there_BN = np.abs(np.nan_to_num(x_BN, nan=np.inf)) <= MAX_MAGNITUDE
    added_BF[:, plan.number_columns] = np.where(is_there_BN, weight_N * scaled_BN, 0.0)
    for f in plan.category_columns.tolist():
        for i, code in enumerate(X_BF[:, f].tolist()):
            if 0.0 <= code < MAX_CODE and code == math.floor(code):
                added_BF[i, f] = table[category_slot(f, code, table.size)]
    return added_BF


def _path(tree: Tree, is_category: npt.NDArray[np.bool_], x_F: list[float]) -> list[float]:
    """Give what each feature adds to the share of yes on the way from the root to the leaf."""
    added_F, node, before = [0.0] * len(x_F), 0, _share(tree, 0)
    while tree.kind[node] != LEAF:
        f = int(tree.column[node])
        node = _next(tree, node, _guarded(x_F[f], is_category=bool(is_category[f])))
        now = _share(tree, node)
        added_F[f] += now - before
        before = now
    return added_F


def _guarded(x: float, *, is_category: bool) -> float:
    """Give a value as the tree sees it: NaN where it is none."""
    is_value = 0.0 <= x < MAX_CODE and x == math.floor(x) if is_category else abs(x) <= MAX_MAGNITUDE
    return x if is_value else math.nan


def _share(tree: Tree, node: int) -> float:
    """Give the share of yes among the rows that a node had seen as a leaf."""
    rows = float(tree.stats[node].sum())
    return float(tree.stats[node, 1]) / rows if rows > 0.0 else 0.5


def _next(tree: Tree, node: int, x: float) -> int:
    """Give the child that a value goes to; where it is missing or not known, the one where most rows went."""
    first, kind = int(tree.first[node]), int(tree.kind[node])
    if kind != MULTIWAY and not math.isnan(x):
        is_first = x <= tree.value[node] if kind == NUMERIC else x == tree.value[node]
        return first if is_first else first + 1
    children, child = [], first
    while child != NONE:
        children.append(child)
        child = int(tree.next[child])
    if kind == MULTIWAY:
        known = [child for child in children if tree.category[child] == x]
        children = known or children
    return max(children, key=lambda child: float(tree.weight[child]))
