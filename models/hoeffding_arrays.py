"""The arrays of a Hoeffding tree (hoeffding_tree.py): nodes, what leaves watch, and categories; how they grow.

Letters of shapes: N nodes, W watches, K cells, F columns, C classes. A *watch* is what an active leaf has seen of every
column, River's splitters; a *cell* is one category in one column of one watch, with how often it came with each class.
Nodes are never removed and a child is always behind its parent. Watches and cells are used again, the last freed first.

Arrays have more room than is used, which Python doubles between two calls of the kernel, so a kernel never allocates.
The state is what is used, cut to size: how far arrays had grown, and so how rows were cut, shows in no bit of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.learner import State, Vector
from models.linear_kernels import category_slot
from streams.compiled import bare, inlined
from streams.errors import ModelError

Indexes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NONE = -1  # no node, watch or cell; the column of a leaf
LEAF, NUMERIC, EQUAL, MULTIWAY = 0, 1, 2, 3  # kinds of nodes: what a branch asks of its column
NODES, WATCHES, CELLS, FREE_WATCH, FREE_CELL, WIDEST = 0, 1, 2, 3, 4, 5  # places in `counts`
SEEN, MEAN, SQUARES, LEAST, MOST, SPREAD, LEVEL = 0, 1, 2, 3, 4, 5, 6  # places in the moments of a column and a class
MOMENTS = 7


class Tree(NamedTuple):
    """The model's state, but for the two indexes at the end, which follow from it."""

    counts: Indexes  # [6], how many nodes, watches and cells are used, the first free ones, most cells of a column
    kind: Indexes  # N
    column: Indexes  # N
    value: Vector  # N, of a branch: the threshold, or the category asked for
    category: Vector  # N, the category whose rows come here from a multiway branch
    parent: Indexes  # N
    first: Indexes  # N, first child
    breadth: Indexes  # N, how many children
    last: Indexes  # N, last child
    next: Indexes  # N, next child of the same parent
    depth: Indexes  # N
    weight: Vector  # N, rows that a leaf has, or the sum of a branch's children
    attempted: Vector  # N, the weight at the last attempt to split
    stats: Floats  # [N, C], rows of each class
    classes: Indexes  # [N, C], classes in the order in which the node met them
    known: Indexes  # N, how many it met
    right: Floats  # [N, 2], how often the majority class and naive Bayes would have been right
    watch: Indexes  # N, none when the leaf is inactive
    columns: Indexes  # [W, F], columns in the order in which they came
    came: Indexes  # W, how many came
    later: Indexes  # W, next free one
    moments: Floats  # [W, F, C, 7]
    met: Indexes  # [W, F, C], classes in the order in which the column met them
    meetings: Indexes  # [W, F], how many it met
    head: Indexes  # [W, F], first cell
    cells: Indexes  # [W, F], how many
    owner: Indexes  # K, watch * F + column
    code: Vector  # K
    sibling: Indexes  # K, next cell of the same owner, or the next free one
    tally: Floats  # [K, C]
    bucket: Indexes  # a power of two, first cell of each hash of owner and code
    chain: Indexes  # K, next cell of the same hash
    door: Indexes  # a power of two, first node of each hash of a multiway branch and category
    behind: Indexes  # N, next node of the same hash


NODE_ARRAYS = Tree._fields[1:18]
WATCH_ARRAYS = Tree._fields[18:26]
CELL_ARRAYS = Tree._fields[26:30]
_GROUPS = ((NODES, NODE_ARRAYS), (WATCHES, WATCH_ARRAYS), (CELLS, CELL_ARRAYS))
_LINKS = {  # what an index may point at: below the number of nodes, watches or cells, or none
    **dict.fromkeys(("parent", "first", "last", "next"), NODES),
    **dict.fromkeys(("watch", "later"), WATCHES),
    **dict.fromkeys(("head", "sibling"), CELLS),
}


def make_tree(columns: int, classes: int) -> Tree:
    """Give a tree that is one leaf without rows."""
    tree = _with_room(columns, classes, (1, 1, 0))
    tree.counts[:] = 1, 1, 0, NONE, NONE, 0
    tree.watch[0] = 0
    return tree


def _with_room(columns: int, classes: int, room: tuple[int, int, int]) -> Tree:
    """Give arrays for so many nodes, watches and cells, all empty."""
    (N, W, K), F, C = room, columns, classes

    def whole(*shape: int) -> Indexes:
        return np.zeros(shape, np.int64)

    def links(*shape: int) -> Indexes:
        return np.full(shape, NONE, np.int64)

    return Tree(
        counts=whole(6),
        kind=whole(N),
        column=links(N),
        value=np.zeros(N),
        category=np.zeros(N),
        parent=links(N),
        first=links(N),
        breadth=whole(N),
        last=links(N),
        next=links(N),
        depth=whole(N),
        weight=np.zeros(N),
        attempted=np.zeros(N),
        stats=np.zeros((N, C)),
        classes=whole(N, C),
        known=whole(N),
        right=np.zeros((N, 2)),
        watch=links(N),
        columns=whole(W, F),
        came=whole(W),
        later=links(W),
        moments=np.zeros((W, F, C, MOMENTS)),
        met=whole(W, F, C),
        meetings=whole(W, F),
        head=links(W, F),
        cells=whole(W, F),
        owner=links(K),
        code=np.zeros(K),
        sibling=links(K),
        tally=np.zeros((K, C)),
        bucket=links(1 << max(K - 1, 1).bit_length()),
        chain=links(K),
        door=links(1 << max(N - 1, 1).bit_length()),
        behind=links(N),
    )


def grow(tree: Tree, rows: tuple[int, int, int]) -> Tree:
    """Give the same tree with at least so much room for nodes, watches and cells, and twice what it had where short."""
    had = len(tree.kind), len(tree.came), len(tree.code)
    room = tuple(old if old >= need else max(need, 2 * old) for old, need in zip(had, rows, strict=True))
    columns, classes = tree.columns.shape[1], tree.stats.shape[1]
    grown = _with_room(columns, classes, (room[0], room[1], room[2]))
    grown.counts[:] = tree.counts
    for name in (*NODE_ARRAYS, *WATCH_ARRAYS, *CELL_ARRAYS):
        old = getattr(tree, name)
        getattr(grown, name)[: len(old)] = old
    make_indexes(grown)
    return grown


def used(tree: Tree) -> State:
    """Give what is used of every array, not copied."""
    found: State = {"counts": tree.counts}
    for place, names in _GROUPS:
        found |= {name: getattr(tree, name)[: tree.counts[place]] for name in names}
    return found


def tree_of(state: State, columns: int, classes: int) -> Tree:
    """Give the tree of a state.

    Raises:
        ModelError: an array is absent or of another shape or type, or an index points at nothing.
    """
    counts = state.get("counts")
    if counts is None or counts.shape != (6,) or counts.dtype != np.int64 or not _are_counts(counts, state):
        raise _broken("counts", counts)
    tree = _with_room(columns, classes, (int(counts[NODES]), int(counts[WATCHES]), int(counts[CELLS])))
    tree.counts[:] = counts
    for name in (*NODE_ARRAYS, *WATCH_ARRAYS, *CELL_ARRAYS):
        found, ours = state.get(name), getattr(tree, name)
        if found is None or found.shape != ours.shape or found.dtype != ours.dtype:
            raise _broken(name, found)
        ours[...] = found
    _check(tree, columns, classes)
    make_indexes(tree)
    return tree


def _are_counts(counts: npt.NDArray[Any], state: State) -> bool:
    """Say whether there are as many nodes, watches and cells as counted, so that no more memory is asked for."""
    found = [len(state.get(names[0], ())) for _, names in _GROUPS]
    is_free_one_of_them = counts[FREE_WATCH] < counts[WATCHES] and counts[FREE_CELL] < counts[CELLS]
    return found == counts[:3].tolist() and found[0] > 0 and counts.min() >= NONE and bool(is_free_one_of_them)


def _check(tree: Tree, columns: int, classes: int) -> None:
    """Refuse indexes that a kernel would follow out of its arrays, and branches that lead back."""
    bounds = {name: (NONE, int(tree.counts[place])) for name, place in _LINKS.items()}
    bounds |= {"column": (NONE, columns), "kind": (LEAF, MULTIWAY + 1), "owner": (NONE, tree.came.size * columns)}
    bounds |= {"classes": (0, classes), "met": (0, classes), "known": (0, classes + 1), "meetings": (0, classes + 1)}
    bounds |= {"columns": (0, columns), "came": (0, columns + 1)}
    for name, (low, high) in bounds.items():
        found = getattr(tree, name)
        if found.size and (found.min() < low or found.max() >= high):
            raise _broken(name, found)
    here, is_branch, is_multiway = np.arange(tree.kind.size), tree.kind != LEAF, tree.kind == MULTIWAY
    is_backward = (tree.next != NONE) & (tree.next <= here) | (tree.parent >= here) | (tree.parent == NONE) & (here > 0)
    is_hollow = is_branch & ((tree.first <= here) | (tree.last <= here) | (tree.column == NONE))
    is_half = is_branch & ~is_multiway & (tree.first + 1 >= here.size)
    if (is_backward | is_hollow | is_half).any():
        raise _broken("first", tree.first)


def _broken(name: str, found: npt.NDArray[np.generic] | None) -> ModelError:
    shape = None if found is None else f"{found.dtype} {found.shape}"
    return ModelError(f"a Hoeffding tree's {name} is not whole: {shape} found")


@bare
def make_indexes(tree: Tree) -> None:
    """Make the indexes of cells and of the children of multiway branches anew."""
    tree.bucket[:] = NONE
    tree.door[:] = NONE
    for cell in range(tree.counts[CELLS]):
        if tree.owner[cell] != NONE:
            place = category_slot(tree.owner[cell], tree.code[cell], tree.bucket.size)
            tree.chain[cell] = tree.bucket[place]
            tree.bucket[place] = cell
    for node in range(1, tree.counts[NODES]):
        if tree.kind[tree.parent[node]] == MULTIWAY:
            index_child(tree, node)


@inlined
def index_child(tree: Tree, node: int) -> None:
    """Let a child of a multiway branch be found by its category."""
    place = category_slot(tree.parent[node], tree.category[node], tree.door.size)
    tree.behind[node] = tree.door[place]
    tree.door[place] = node


@inlined
def find_child(tree: Tree, branch: int, category: float) -> int:
    """Give the child of a multiway branch for a category, or NONE."""
    node = tree.door[category_slot(branch, category, tree.door.size)]
    while node != NONE and (tree.parent[node] != branch or tree.category[node] != category):
        node = tree.behind[node]
    return int(node)
