"""What the leaves of a Hoeffding tree watch: of every column and class a normal distribution, or counts of categories.

River's splitters (river/tree/splitter/gaussian_splitter.py, nominal_splitter_classif.py), with their arithmetic and the
order in which they meet columns and classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.hoeffding_arrays import (
    CELLS,
    FREE_CELL,
    FREE_WATCH,
    LEAST,
    LEVEL,
    MEAN,
    MOMENTS,
    MOST,
    NODES,
    NONE,
    SEEN,
    SPREAD,
    SQUARES,
    WATCHES,
    WIDEST,
    Floats,
    Indexes,
    Tree,
)
from models.learner import MAX_CODE, MAX_MAGNITUDE, Matrix, Vector
from models.linear_kernels import category_slot
from streams.compiled import bare, inlined


class Plan(NamedTuple):
    """What does not change while learning: the columns, River's settings, and what things cost in memory."""

    is_category: npt.NDArray[np.bool_]  # F
    grace_period: float
    max_depth: int
    criterion: int
    log_confidence: float  # log(1 / delta)
    tau: float
    leaf_prediction: int
    nb_threshold: float
    n_splits: int
    binary_split: bool
    min_branch_fraction: float
    max_share_to_split: float
    costs: Indexes  # [3], bytes of a node, a watch and a cell
    max_bytes: int
    half: float  # not known to the compiler, which would make a square root of River's power: another last bit


class Scratch(NamedTuple):
    """Room for one row and one attempt to split."""

    x: Vector  # F, NaN = missing
    vote: Vector  # C
    order: Indexes  # C
    sides: Floats  # [2, C], a split in two
    pair: Indexes  # [0, 1], the rows of `sides`
    row: Indexes  # K + 2, cells sorted by category
    weight: Vector  # K + 2, of each branch


@inlined
def read_row(X_BF: Matrix, i: int, plan: Plan, scratch: Scratch) -> None:
    """Read a row; what is no number or no category is missing."""
    for f in range(scratch.x.size):
        x = X_BF[i, f]
        is_code = x >= 0.0 and x < MAX_CODE and x == math.floor(x)
        is_there = is_code if plan.is_category[f] else abs(x) <= MAX_MAGNITUDE
        scratch.x[f] = x if is_there else np.nan


@inlined
def has_room(plan: Plan, tree: Tree, nodes: int, watches: int, cells: int) -> bool:
    """Say whether so much more fits into `max_size`."""
    needed = (tree.counts[NODES] + nodes) * plan.costs[0] + (tree.counts[WATCHES] + watches) * plan.costs[1]
    return bool(needed + (tree.counts[CELLS] + cells) * plan.costs[2] <= plan.max_bytes)


@inlined
def take_watch(tree: Tree) -> int:
    """Give an empty watch."""
    watch = tree.counts[FREE_WATCH]
    if watch == NONE:
        watch = tree.counts[WATCHES]
        tree.counts[WATCHES] += 1
    else:
        tree.counts[FREE_WATCH] = tree.later[watch]
        tree.later[watch] = NONE
    return int(watch)


@bare
def clear_watch(tree: Tree, watch: int) -> None:
    """Forget all that a watch has seen."""
    classes = tree.stats.shape[1]
    for k in range(tree.came[watch]):
        f = tree.columns[watch, k]
        cell = tree.head[watch, f]
        while cell != NONE:
            after = tree.sibling[cell]
            _free_cell(tree, cell)
            cell = after
        tree.head[watch, f], tree.cells[watch, f], tree.meetings[watch, f] = NONE, 0, 0
        tree.columns[watch, k] = 0
        for c in range(classes):
            tree.met[watch, f, c] = 0
            for m in range(MOMENTS):
                tree.moments[watch, f, c, m] = 0.0
    tree.came[watch] = 0


@inlined
def free_watch(tree: Tree, node: int) -> None:
    """Take the watch from a leaf."""
    watch = tree.watch[node]
    clear_watch(tree, watch)
    tree.watch[node] = NONE
    tree.later[watch] = tree.counts[FREE_WATCH]
    tree.counts[FREE_WATCH] = watch


@inlined
def _free_cell(tree: Tree, cell: int) -> None:
    place = category_slot(tree.owner[cell], tree.code[cell], tree.bucket.size)
    if tree.bucket[place] == cell:
        tree.bucket[place] = tree.chain[cell]
    else:
        before = tree.bucket[place]
        while tree.chain[before] != cell:
            before = tree.chain[before]
        tree.chain[before] = tree.chain[cell]
    tree.owner[cell], tree.code[cell], tree.chain[cell] = NONE, 0.0, NONE
    for c in range(tree.stats.shape[1]):
        tree.tally[cell, c] = 0.0
    tree.sibling[cell] = tree.counts[FREE_CELL]
    tree.counts[FREE_CELL] = cell


@inlined
def find_cell(tree: Tree, owner: int, code: float) -> int:
    """Give the cell of a category, or NONE."""
    cell = tree.bucket[category_slot(owner, code, tree.bucket.size)]
    while cell != NONE and (tree.owner[cell] != owner or tree.code[cell] != code):
        cell = tree.chain[cell]
    return int(cell)


@inlined
def _take_cell(plan: Plan, tree: Tree, watch: int, f: int, code: float) -> int:
    """Give a new cell to a category; NONE when the tree is as large as it may be."""
    cell = tree.counts[FREE_CELL]
    if cell != NONE:
        tree.counts[FREE_CELL] = tree.sibling[cell]
    elif has_room(plan, tree, 0, 0, 1):
        cell = tree.counts[CELLS]
        tree.counts[CELLS] += 1
    else:
        return NONE
    owner = watch * tree.columns.shape[1] + f
    place = category_slot(owner, code, tree.bucket.size)
    tree.owner[cell], tree.code[cell] = owner, code
    tree.chain[cell], tree.bucket[place] = tree.bucket[place], cell
    tree.sibling[cell], tree.head[watch, f] = tree.head[watch, f], cell
    tree.cells[watch, f] += 1
    tree.counts[WIDEST] = max(tree.counts[WIDEST], tree.cells[watch, f])
    return int(cell)


@inlined
def meet(tree: Tree, watch: int, f: int, label: int) -> None:
    """Note that a column met a class."""
    meetings = tree.meetings[watch, f]
    for k in range(meetings):
        if tree.met[watch, f, k] == label:
            return
    tree.met[watch, f, meetings] = label
    tree.meetings[watch, f] = meetings + 1


@inlined
def watch_row(plan: Plan, tree: Tree, watch: int, label: int, scratch: Scratch) -> None:
    """Learn the row that was read."""
    for f in range(scratch.x.size):
        x = scratch.x[f]
        if math.isnan(x):
            continue
        if tree.meetings[watch, f] == 0:
            tree.columns[watch, tree.came[watch]] = f
            tree.came[watch] += 1
        if tree.moments[watch, f, label, SEEN] == 0.0:
            meet(tree, watch, f, label)
        if plan.is_category[f]:
            _watch_category(plan, tree, watch, f, x, label)
        else:
            _watch_number(tree, watch, f, x, label)


@inlined
def _watch_category(plan: Plan, tree: Tree, watch: int, f: int, x: float, label: int) -> None:
    cell = find_cell(tree, watch * tree.columns.shape[1] + f, x)
    if cell == NONE:
        cell = _take_cell(plan, tree, watch, f, x)
    if cell != NONE:
        tree.tally[cell, label] += 1.0
        tree.moments[watch, f, label, SEEN] += 1.0


@inlined
def _watch_number(tree: Tree, watch: int, f: int, x: float, label: int) -> None:
    """Learn a number into Welford's mean and squares, and what its density needs of them."""
    seen = tree.moments[watch, f, label, SEEN] + 1.0
    before = tree.moments[watch, f, label, MEAN]
    mean = before + 1.0 / seen * (x - before)
    squares = tree.moments[watch, f, label, SQUARES] + (x - before) * (x - mean)
    if seen == 1.0 or x < tree.moments[watch, f, label, LEAST]:
        tree.moments[watch, f, label, LEAST] = x
    if seen == 1.0 or x > tree.moments[watch, f, label, MOST]:
        tree.moments[watch, f, label, MOST] = x
    tree.moments[watch, f, label, SEEN] = seen
    tree.moments[watch, f, label, MEAN] = mean
    tree.moments[watch, f, label, SQUARES] = squares
    variance = squares / (seen - 1.0) if seen > 1.0 else 0.0
    if variance > 0.0:
        tree.moments[watch, f, label, SPREAD] = -2.0 * variance
        tree.moments[watch, f, label, LEVEL] = 0.5 * math.log(variance)
