"""How good a split is: River's three criteria over the rows of each class that go into each branch.

A distribution is a row of an array [branches, C]; its classes are added up in the order in which they were met, as
River's dicts are, so that the last bit of a merit is River's too. Source: river/tree/split_criterion.
"""

from __future__ import annotations

import math

from models.hoeffding_arrays import Floats, Indexes
from models.learner import Vector
from streams.compiled import bare, inlined

INFO_GAIN, GINI, HELLINGER = 0, 1, 2
CRITERIA = ("info_gain", "gini", "hellinger")
ABSENT = -1.0  # a class that a branch does not know, other than one it has no rows of


@inlined
def weigh(dist_BC: Floats, b: int, order: Indexes, known: int) -> float:
    """Add up the rows of all classes in a branch."""
    total = 0.0
    for k in range(known):
        total += max(dist_BC[b, order[k]], 0.0)
    return total


@inlined
def entropy(dist_BC: Floats, b: int, order: Indexes, known: int) -> float:
    """Give the entropy of the classes in a branch, in bits."""
    found, total = 0.0, 0.0
    for k in range(known):
        d = dist_BC[b, order[k]]
        if d > 0.0:
            found -= d * math.log2(d)
            total += d
    return (found + total * math.log2(total)) / total if total > 0.0 else 0.0


@inlined
def _impurity(dist_BC: Floats, b: int, order: Indexes, known: int, weight: float) -> float:
    found = 1.0
    if weight != 0.0:
        for k in range(known):
            share = max(dist_BC[b, order[k]], 0.0) / weight
            found -= share * share
    return found


@inlined
def _distance(dist_BC: Floats, left: int, right: int, is_counted: bool) -> float:
    """Give the Hellinger distance of two classes; 0 where a branch does not know one. Counts know what they have."""
    least = 1.0 if is_counted else 0.0
    if min(dist_BC[left, 0], dist_BC[left, 1], dist_BC[right, 0], dist_BC[right, 1]) < least:
        return 0.0
    negative = dist_BC[left, 0] + dist_BC[right, 0]
    positive = dist_BC[left, 1] + dist_BC[right, 1]
    lefts = math.sqrt(dist_BC[left, 0] / negative) - math.sqrt(dist_BC[left, 1] / positive)
    rights = math.sqrt(dist_BC[right, 0] / negative) - math.sqrt(dist_BC[right, 1] / positive)
    return math.sqrt(lefts * lefts + rights * rights)


@bare
def merit(
    criterion: int,
    least_share: float,
    before: float,
    dist_BC: Floats,
    row: Indexes,
    branches: int,
    order: Indexes,
    known: int,
    is_counted: bool,
    weight: Vector,
) -> float:
    """Give the merit of a split, -inf where fewer than two branches get more than a share of the rows.

    Args:
        criterion: one of the three.
        least_share: of the rows, River's `min_branch_fraction`.
        before: the entropy before the split.
        dist_BC: distributions.
        row: which rows of it are the branches.
        branches: how many.
        order: classes in their order.
        known: how many.
        is_counted: whether these are counts, where none means that a branch does not know the class.
        weight: room for the weight of each branch.
    """
    total, large = 0.0, 0
    for b in range(branches):
        weight[b] = weigh(dist_BC, row[b], order, known)
        total += weight[b]
    for b in range(branches):
        if total > 0.0 and weight[b] / total > least_share:
            large += 1
    if large < 2:
        return -math.inf
    if criterion == HELLINGER:
        return _distance(dist_BC, row[0], row[1], is_counted)
    found = 0.0
    for b in range(branches):
        if criterion == GINI:
            found += weight[b] / total * _impurity(dist_BC, row[b], order, known, weight[b])
        else:
            found += weight[b] * entropy(dist_BC, row[b], order, known)
    return 1.0 - found if criterion == GINI else before - found / total
