"""How a leaf of a Hoeffding tree becomes a branch: candidates of every column, the Hoeffding bound, new leaves.

River's rules to the letter (river/tree/hoeffding_tree_classifier.py, splitter/gaussian_splitter.py and
nominal_splitter_classif.py), also where they surprise: a leaf for which no split is better begins to watch anew, for
what River puts to sleep there it wakes at once; a column of one category may be split on once the bound is below tau.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from models.hoeffding_arrays import (
    EQUAL,
    LEAF,
    LEAST,
    MEAN,
    MOST,
    MULTIWAY,
    NODES,
    NONE,
    NUMERIC,
    SEEN,
    SQUARES,
    Indexes,
    Tree,
    index_child,
)
from models.hoeffding_leaves import weigh_up
from models.hoeffding_merits import ABSENT, GINI, INFO_GAIN, entropy, merit
from models.hoeffding_watches import Plan, Scratch, clear_watch, find_cell, free_watch, has_room, take_watch
from models.learner import Vector
from streams.compiled import bare, inlined


class Candidate(NamedTuple):
    """A split that a column suggests; `kind` is LEAF where it suggests none."""

    merit: float
    kind: int
    value: float


@inlined
def try_to_split(plan: Plan, tree: Tree, node: int, scratch: Scratch) -> None:
    """Try to split a leaf that has a watch and has learned `grace_period` rows since the last try."""
    present, largest = 0, 0.0
    for k in range(tree.known[node]):
        stat = tree.stats[node, tree.classes[node, k]]
        present += 1 if stat != 0.0 else 0
        largest = max(largest, stat)
    if present >= 2:
        if largest / tree.weight[node] > plan.max_share_to_split:
            clear_watch(tree, tree.watch[node])
        else:
            attempt(plan, tree, node, scratch)


@bare
def attempt(plan: Plan, tree: Tree, node: int, scratch: Scratch) -> None:
    """Compare what the columns suggest, and split if one is better by more than the bound, or the bound is small."""
    watch, known = tree.watch[node], tree.known[node]
    for k in range(known):
        scratch.order[k] = tree.classes[node, k]
    before = entropy(tree.stats, node, scratch.order, known) if plan.criterion == INFO_GAIN else 0.0
    # River sorts by merit and keeps the order of equals, so the last of them wins; to split on nothing is the first.
    best, second, column = Candidate(-math.inf, LEAF, 0.0), -math.inf, NONE
    for at in range(tree.came[watch]):
        f = tree.columns[watch, at]
        if plan.is_category[f]:
            found = _best_category(plan, tree, watch, f, before, scratch)
        else:
            found = _best_threshold(plan, tree, watch, f, before, scratch)
        if found.merit >= best.merit:
            best, second, column = found, best.merit, f
        else:
            second = max(second, found.merit)
    merits = 1.0 if plan.criterion == GINI else math.log2(max(known, 2))
    bound = math.sqrt(merits * merits * plan.log_confidence / (2.0 * tree.weight[node]))
    if tree.came[watch] > 0 and not (best.merit - second > bound or bound < plan.tau):
        return
    if best.kind == LEAF:
        clear_watch(tree, watch)
    else:
        _split(plan, tree, node, column, best, scratch)


@inlined
def _best_threshold(plan: Plan, tree: Tree, watch: int, f: int, before: float, scratch: Scratch) -> Candidate:
    least, most, known = math.inf, -math.inf, tree.meetings[watch, f]
    for k in range(known):
        c = tree.met[watch, f, k]
        scratch.order[k] = c
        least = min(least, tree.moments[watch, f, c, LEAST])
        most = max(most, tree.moments[watch, f, c, MOST])
    best, value = -math.inf, math.nan
    step = (most - least) / (plan.n_splits + 1.0)
    for i in range(plan.n_splits):
        at = least + step * (i + 1)
        if least < at < most:
            _divide_by_threshold(plan, tree, watch, f, at, scratch)
            found = _merit_of_sides(plan, before, known, False, scratch)
            if found > best:
                best, value = found, at
    return Candidate(best, LEAF if math.isnan(value) else NUMERIC, value)


@inlined
def _merit_of_sides(plan: Plan, before: float, known: int, is_counted: bool, scratch: Scratch) -> float:
    sides, pair, order, weight = scratch.sides, scratch.pair, scratch.order, scratch.weight
    least_share = plan.min_branch_fraction
    return merit(plan.criterion, least_share, before, sides, pair, 2, order, known, is_counted, weight)


@inlined
def _divide_by_threshold(plan: Plan, tree: Tree, watch: int, f: int, at: float, scratch: Scratch) -> None:
    """Write how many rows of each class lie on both sides, if its numbers are normal."""
    for c in range(scratch.sides.shape[1]):
        scratch.sides[0, c] = scratch.sides[1, c] = ABSENT
    for k in range(tree.meetings[watch, f]):
        c = tree.met[watch, f, k]
        rows = tree.moments[watch, f, c, SEEN]
        if at < tree.moments[watch, f, c, LEAST]:
            scratch.sides[1, c] = rows
        elif at >= tree.moments[watch, f, c, MOST]:
            scratch.sides[0, c] = rows
        else:
            deviation = math.pow(tree.moments[watch, f, c, SQUARES] / (rows - 1.0), plan.half)
            share = 0.0
            if deviation > 0.0:
                z = (at - tree.moments[watch, f, c, MEAN]) / deviation
                share = 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))
            scratch.sides[0, c] = share * rows
            scratch.sides[1, c] = rows - scratch.sides[0, c]


@inlined
def _best_category(plan: Plan, tree: Tree, watch: int, f: int, before: float, scratch: Scratch) -> Candidate:
    branches, classes = _sort_cells(tree, watch, f, scratch), tree.stats.shape[1]
    best, kind, value = -math.inf, LEAF, 0.0
    if not plan.binary_split:
        for c in range(classes):
            scratch.order[c] = c
        least_share, weight = plan.min_branch_fraction, scratch.weight
        kind = MULTIWAY
        best = merit(
            plan.criterion, least_share, before, tree.tally, scratch.row, branches, scratch.order, classes, True, weight
        )
    known = tree.meetings[watch, f]
    for k in range(known):
        scratch.order[k] = tree.met[watch, f, k]
    for b in range(branches):
        _divide_by_category(tree, watch, f, scratch.row[b], scratch)
        found = _merit_of_sides(plan, before, known, True, scratch)
        if found > best:
            best, kind, value = found, EQUAL, tree.code[scratch.row[b]]
    return Candidate(best, kind, value)


@inlined
def _divide_by_category(tree: Tree, watch: int, f: int, cell: int, scratch: Scratch) -> None:
    """Write how many rows of each class have a category, and how many another."""
    for c in range(scratch.sides.shape[1]):
        scratch.sides[0, c] = tree.tally[cell, c]
        scratch.sides[1, c] = tree.moments[watch, f, c, SEEN] - tree.tally[cell, c]


@inlined
def _sort_cells(tree: Tree, watch: int, f: int, scratch: Scratch) -> int:
    """Write the cells of a column by category, and give how many there are; a heap sort."""
    row, size, cell = scratch.row, 0, tree.head[watch, f]
    while cell != NONE:
        row[size] = cell
        size += 1
        cell = tree.sibling[cell]
    _sort(tree.code, row, size)
    return int(size)


@bare
def _sort(code: Vector, row: Indexes, size: int) -> None:
    for start in range(size // 2 - 1, -1, -1):
        _sink(code, row, start, size)
    for end in range(size - 1, 0, -1):
        row[0], row[end] = row[end], row[0]
        _sink(code, row, 0, end)


@inlined
def _sink(code: Vector, row: Indexes, start: int, end: int) -> None:
    at = start
    while 2 * at + 1 < end:
        child = 2 * at + 1
        if child + 1 < end and code[row[child + 1]] > code[row[child]]:
            child += 1
        if code[row[at]] >= code[row[child]]:
            return
        row[at], row[child] = row[child], row[at]
        at = child


@inlined
def _split(plan: Plan, tree: Tree, node: int, column: int, best: Candidate, scratch: Scratch) -> None:
    """Make a branch of a leaf, with a leaf behind each of its answers; not if the tree is as large as it may be."""
    watch, classes = tree.watch[node], tree.stats.shape[1]
    branches = tree.cells[watch, column] if best.kind == MULTIWAY else 2
    if not has_room(plan, tree, branches, branches - 1, 0):
        return
    first, known, before = tree.counts[NODES], tree.meetings[watch, column], tree.weight[node]
    tree.weight[node] = 0.0
    for k in range(known):
        scratch.order[k] = tree.met[watch, column, k]
    if best.kind == NUMERIC:
        _divide_by_threshold(plan, tree, watch, column, best.value, scratch)
    elif best.kind == EQUAL:
        cell = find_cell(tree, watch * tree.columns.shape[1] + column, best.value)
        _divide_by_category(tree, watch, column, cell, scratch)
    else:
        _sort_cells(tree, watch, column, scratch)
    for b in range(branches):
        child = add_leaf(tree, node)
        tree.category[child] = tree.code[scratch.row[b]] if best.kind == MULTIWAY else 0.0
        for k in range(classes if best.kind == MULTIWAY else known):
            c = k if best.kind == MULTIWAY else scratch.order[k]
            rows = tree.tally[scratch.row[b], c] if best.kind == MULTIWAY else scratch.sides[b, c]
            if rows > 0.0 or (best.kind == NUMERIC and rows == 0.0):
                tree.classes[child, tree.known[child]] = c
                tree.known[child] += 1
                tree.stats[child, c] = rows
                tree.weight[child] += rows
        tree.attempted[child] = tree.weight[child]
        tree.weight[node] += tree.weight[child]
        if best.kind == MULTIWAY:
            index_child(tree, child)
    tree.kind[node], tree.column[node], tree.value[node] = best.kind, column, best.value
    free_watch(tree, node)
    for child in range(first, first + branches):
        tree.watch[child] = take_watch(tree)
    weigh_up(tree, node, before)


@inlined
def add_leaf(tree: Tree, parent: int) -> int:
    """Hang an empty leaf without a watch behind the other children of a node."""
    node = tree.counts[NODES]
    tree.counts[NODES] += 1
    tree.parent[node], tree.depth[node] = parent, tree.depth[parent] + 1
    if tree.first[parent] == NONE:
        tree.first[parent] = node
    else:
        tree.next[tree.last[parent]] = node
    tree.last[parent] = node
    tree.breadth[parent] += 1
    return int(node)
