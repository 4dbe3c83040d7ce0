"""The kernel of the Hoeffding tree (hoeffding_tree.py): a row's way to its leaf, and one step."""

from __future__ import annotations

import math

from models.hoeffding_arrays import (
    CELLS,
    EQUAL,
    LEAF,
    MULTIWAY,
    NODES,
    NONE,
    NUMERIC,
    WATCHES,
    WIDEST,
    Floats,
    Tree,
    find_child,
    index_child,
)
from models.hoeffding_leaves import learn_leaf, likeliest, majority, vote
from models.hoeffding_splits import add_leaf, try_to_split
from models.hoeffding_watches import Plan, Scratch, free_watch, has_room, read_row, take_watch
from models.learner import LEARN, PREDICT, Actions, Matrix, Vector
from streams.compiled import bare, inlined


@inlined
def _child(tree: Tree, node: int, x: float) -> int:
    """Give where a branch sends a value; NONE when it is missing, or a category that the branch does not know."""
    if math.isnan(x):
        return NONE
    first = int(tree.first[node])
    if tree.kind[node] == NUMERIC:
        return first if x <= tree.value[node] else first + 1
    if tree.kind[node] == EQUAL:
        return first if x == tree.value[node] else first + 1
    return find_child(tree, node, x)


@inlined
def _descend(tree: Tree, node: int, scratch: Scratch) -> int:
    """Go down as far as branches know where to."""
    while tree.kind[node] != LEAF:
        child = _child(tree, node, scratch.x[tree.column[node]])
        if child == NONE:
            break
        node = child
    return node


@inlined
def _most_common(tree: Tree, branch: int) -> int:
    """Give the child with most rows, the first of equals."""
    best = tree.first[branch]
    child = tree.next[best]
    while child != NONE:
        if tree.weight[child] > tree.weight[best]:
            best = child
        child = tree.next[child]
    return int(best)


@inlined
def _arrive(plan: Plan, tree: Tree, is_learned: bool, scratch: Scratch) -> tuple[int, bool]:
    """Give the row's leaf, which may be made for it when it is learned, and whether all branches knew where to."""
    node, is_straight = 0, True
    while True:
        node = _descend(tree, node, scratch)
        if tree.kind[node] == LEAF:
            return node, is_straight
        is_straight = False
        x = scratch.x[tree.column[node]]
        is_new = is_learned and tree.kind[node] == MULTIWAY and not math.isnan(x)
        if is_new and has_room(plan, tree, 1, 1, 0):
            leaf = add_leaf(tree, node)
            tree.category[leaf] = x
            index_child(tree, leaf)
            tree.watch[leaf] = take_watch(tree)
            return leaf, False
        node = _most_common(tree, node)


@inlined
def _consider(plan: Plan, tree: Tree, node: int, scratch: Scratch) -> None:
    """Put a leaf as deep as allowed to sleep, or try to split one that has learned enough since the last try."""
    if tree.watch[node] == NONE:
        return
    if tree.depth[node] >= plan.max_depth:
        free_watch(tree, node)
        return
    weight = tree.weight[node]
    if weight - tree.attempted[node] >= plan.grace_period:
        try_to_split(plan, tree, node, scratch)
        tree.attempted[node] = weight


@inlined
def _is_full(tree: Tree, columns: int) -> bool:
    """Say whether a row could need more room than the arrays have."""
    children = tree.counts[WIDEST] + 2
    is_full = tree.counts[NODES] + children > tree.kind.size or tree.counts[WATCHES] + children > tree.came.size
    return bool(is_full or tree.counts[CELLS] + columns > tree.code.size)


@bare
def step_kernel(
    X_BF: Matrix,
    y_B: Vector,
    action_B: Actions,
    start: int,
    plan: Plan,
    tree: Tree,
    scratch: Scratch,
    score_BC: Floats,
) -> int:
    """Run `HoeffdingTreeLearner.step` from a row on; give the row before which arrays must grow, or the end."""
    classes, is_binary = tree.stats.shape[1], score_BC.shape[1] == 1
    for i in range(start, action_B.size):
        is_learned = action_B[i] == LEARN and not math.isnan(y_B[i])
        if action_B[i] != PREDICT and not is_learned:
            continue
        label = NONE
        if is_learned:
            label = int(y_B[i] > 0.5) if is_binary else int(y_B[i])
            if _is_full(tree, scratch.x.size):
                return i
            if label < 0 or label >= classes:
                continue
        read_row(X_BF, i, plan, scratch)
        node, is_straight = _arrive(plan, tree, is_learned, scratch)
        is_bayes = vote(plan, tree, node, is_learned, scratch)
        by_bayes = likeliest(tree, node, scratch) if is_bayes else NONE
        if is_learned or not is_bayes:
            majority(tree, node, scratch)
        if is_learned:
            learn_leaf(plan, tree, node, label, likeliest(tree, node, scratch), by_bayes, scratch)
            if is_straight:
                _consider(plan, tree, node, scratch)
        else:
            for c in range(score_BC.shape[1]):
                score_BC[i, c] = min(scratch.vote[c + 1 if is_binary else c], 1.0)
    return int(action_B.size)
