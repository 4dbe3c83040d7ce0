"""What a leaf of a Hoeffding tree does with a row: it answers by majority or naive Bayes, and learns.

River's arithmetic in River's order (river/tree/nodes/htc_nodes.py, utils.do_naive_bayes_prediction), so that ties and
last bits fall as there: classes in the order in which the leaf met them, columns in that in which they came.
"""

from __future__ import annotations

import math

from models.hoeffding_arrays import LEVEL, MEAN, NONE, SEEN, SPREAD, Tree
from models.hoeffding_watches import Plan, Scratch, find_cell, meet, watch_row
from streams.compiled import inlined

MAJORITY, NAIVE_BAYES, ADAPTIVE = 0, 1, 2
LEAF_PREDICTIONS = ("mc", "nb", "nba")  # by the numbers above
WIDE = 32  # children; more are not added up at every row, which for whole rows of each makes no difference
_HALF_LOG_TAU = 0.5 * math.log(math.tau)


@inlined
def majority(tree: Tree, node: int, scratch: Scratch) -> None:
    """Write the share of each class that the leaf knows."""
    total = tree.weight[node]
    factor = 1.0 / total if total != 0.0 else 1.0
    for k in range(tree.known[node]):
        c = tree.classes[node, k]
        scratch.vote[c] = tree.stats[node, c] * factor


@inlined
def naive_bayes(plan: Plan, tree: Tree, node: int, scratch: Scratch) -> bool:
    """Write the probability of each class that an active leaf knows; False when it has no rows."""
    total, known, watch = tree.weight[node], tree.known[node], tree.watch[node]
    if total == 0.0:
        return False
    for k in range(known):
        c = tree.classes[node, k]
        share = tree.stats[node, c] / total
        scratch.vote[c] = math.log(share) if share > 0.0 else 0.0  # as River has it: no rows is no vote against it
    for at in range(tree.came[watch]):
        f = tree.columns[watch, at]
        x = scratch.x[f]
        if math.isnan(x):
            continue
        if plan.is_category[f]:
            _vote_by_category(tree, node, watch, f, x, scratch)
        else:
            _vote_by_number(tree, node, watch, f, x, scratch)
    _normalize(tree, node, scratch)
    return True


@inlined
def _vote_by_number(tree: Tree, node: int, watch: int, f: int, x: float, scratch: Scratch) -> None:
    for k in range(tree.known[node]):
        c = tree.classes[node, k]
        spread = tree.moments[watch, f, c, SPREAD]
        if spread < 0.0 and tree.stats[node, c] > 0.0:
            away = x - tree.moments[watch, f, c, MEAN]
            density = away * away / spread - _HALF_LOG_TAU - tree.moments[watch, f, c, LEVEL]
            if density > -math.inf:
                scratch.vote[c] += density


@inlined
def _vote_by_category(tree: Tree, node: int, watch: int, f: int, x: float, scratch: Scratch) -> None:
    cell = find_cell(tree, watch * tree.columns.shape[1] + f, x)
    if cell == NONE:
        return
    for k in range(tree.known[node]):
        c = tree.classes[node, k]
        count = tree.tally[cell, c]
        if count > 0.0 and tree.stats[node, c] > 0.0:
            scratch.vote[c] += math.log(count / tree.moments[watch, f, c, SEEN])


@inlined
def _normalize(tree: Tree, node: int, scratch: Scratch) -> None:
    """Turn logarithms into probabilities."""
    largest, known = -math.inf, tree.known[node]
    for k in range(known):
        largest = max(largest, scratch.vote[tree.classes[node, k]])
    total = 0.0
    for k in range(known):
        total += math.exp(scratch.vote[tree.classes[node, k]] - largest)
    shift = largest + math.log(total)
    for k in range(known):
        c = tree.classes[node, k]
        scratch.vote[c] = math.exp(scratch.vote[c] - shift)


@inlined
def vote(plan: Plan, tree: Tree, node: int, is_learned: bool, scratch: Scratch) -> bool:
    """Write the leaf's answer by naive Bayes, if that is what it answers by or has to compare; False if not.

    Before it has rows every class has the same probability.
    """
    classes = scratch.vote.size
    for c in range(classes):
        scratch.vote[c] = 0.0 if tree.known[node] > 0 else 1.0 / classes
    is_asked = tree.watch[node] != NONE and plan.leaf_prediction != MAJORITY
    if plan.leaf_prediction == ADAPTIVE:
        is_asked = is_asked and (is_learned or tree.right[node, 1] >= tree.right[node, 0])
    else:
        is_asked = is_asked and not is_learned and tree.weight[node] >= plan.nb_threshold
    return bool(is_asked and naive_bayes(plan, tree, node, scratch))


@inlined
def likeliest(tree: Tree, node: int, scratch: Scratch) -> int:
    """Give the first of the classes with most votes; NONE if the leaf knows none."""
    best = tree.classes[node, 0] if tree.known[node] > 0 else NONE
    for k in range(1, tree.known[node]):
        if scratch.vote[tree.classes[node, k]] > scratch.vote[best]:
            best = tree.classes[node, k]
    return int(best)


@inlined
def learn_leaf(
    plan: Plan, tree: Tree, node: int, label: int, by_majority: int, by_bayes: int, scratch: Scratch
) -> None:
    """Learn the row that was read: how well the leaf would have answered, its classes, what it watches."""
    watch, before = tree.watch[node], tree.weight[node]
    if watch != NONE:
        tree.right[node, 0] += 1.0 if by_majority in (label, NONE) else 0.0
        tree.right[node, 1] += 1.0 if by_bayes == label else 0.0
        if plan.leaf_prediction != MAJORITY:
            _meet_all(plan, tree, node, scratch)
    _count(tree, node, label)
    if watch != NONE:
        watch_row(plan, tree, watch, label, scratch)
    weigh_up(tree, node, before)


@inlined
def _count(tree: Tree, node: int, label: int) -> None:
    known = tree.known[node]
    is_new = True
    for k in range(known):
        if tree.classes[node, k] == label:
            is_new = False
    if is_new:
        tree.classes[node, known] = label
        tree.known[node] = known + 1
    tree.stats[node, label] += 1.0
    total = 0.0
    for k in range(tree.known[node]):
        total += tree.stats[node, tree.classes[node, k]]
    tree.weight[node] = total


@inlined
def weigh_up(tree: Tree, node: int, before: float) -> None:
    """Add up the children of every branch above a node whose weight was another; of a wide one add the difference."""
    branch, child = tree.parent[node], node
    while branch != NONE:
        total = tree.weight[branch] + (tree.weight[child] - before)
        if tree.breadth[branch] <= WIDE:
            total, child = 0.0, tree.first[branch]
            while child != NONE:
                total += tree.weight[child]
                child = tree.next[child]
        before, child = tree.weight[branch], branch
        tree.weight[branch] = total
        branch = tree.parent[branch]


@inlined
def _meet_all(plan: Plan, tree: Tree, node: int, scratch: Scratch) -> None:
    """Let columns of categories meet the leaf's classes: River's splitter makes an entry for one it is asked of."""
    watch = tree.watch[node]
    for at in range(tree.came[watch]):
        f = tree.columns[watch, at]
        if plan.is_category[f] and tree.meetings[watch, f] < tree.known[node] and not math.isnan(scratch.x[f]):
            for k in range(tree.known[node]):
                c = tree.classes[node, k]
                if tree.stats[node, c] > 0.0:
                    meet(tree, watch, f, c)
