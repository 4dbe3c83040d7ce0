"""Compiled Hoeffding tree for classes, learned one row at a time.

Equal to River's `tree.HoeffdingTreeClassifier` with a `GaussianSplitter` (river 0.26): the same splits at the same
rows, every probability within 1e-9, when that is given each row without its missing features, categories as numbers
named in `nominal_attributes`, and classes as their places. Where River goes by the text of a name, or by chance, it is
the number that decides: of several categories whose splits are equally good the smallest wins, and the children of a
split by category stand in the order of their numbers, which matters where two have equally many rows.

What River does with a row, and this keeps: a row that lacks the number a branch asks for goes where most rows went; one
with a category that a branch has not seen gets a leaf of its own when it is learned, and goes where most rows went when
it is predicted. A row learned on such a way does not make its leaf try to split.

The difference is memory. River measures its objects every million rows and puts leaves to sleep; here the arrays in use
count, and a tree of `max_size` MiB learns on without growing: no leaf splits, and no new category is counted.
"""

from __future__ import annotations

import math

import numpy as np

from models.array_learner import ArrayLearner
from models.hoeffding_arrays import (
    CELL_ARRAYS,
    CELLS,
    NODE_ARRAYS,
    NODES,
    WATCH_ARRAYS,
    WATCHES,
    WIDEST,
    Floats,
    Tree,
    grow,
    make_tree,
    tree_of,
    used,
)
from models.hoeffding_kernels import step_kernel
from models.hoeffding_leaves import LEAF_PREDICTIONS
from models.hoeffding_merits import CRITERIA, HELLINGER
from models.hoeffding_watches import Plan, Scratch
from models.learner import PREDICT, Actions, Matrix, State, Vector, numbers_of, settings_of
from streams.errors import PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

MIB = 2**20


class HoeffdingTreeLearner(ArrayLearner):
    """A decision tree that splits a leaf once enough rows say that the best split is the best.

    Params (all optional, named and preset as River's):
        grace_period: rows that a leaf learns between two tries to split, 200. More: cheaper, splits later.
        max_depth: leaves at this depth do not split, 980.
        split_criterion: "info_gain", "gini", or "hellinger" (two classes only; for rare ones).
        delta: chance of a wrong split that is allowed, 1e-7. Larger splits earlier.
        tau: below this bound equally good splits are no reason to wait, 0.05. Larger splits earlier.
        leaf_prediction: "mc" majority class, "nb" naive Bayes, "nba" whichever was right more often in the leaf.
        nb_threshold: rows before "nb" answers by naive Bayes, 0.
        n_splits: thresholds tried for each number, 10.
        binary_split: only ever two branches, false.
        min_branch_fraction: two branches of a split must have a larger share of the rows, 0.01.
        max_share_to_split: a leaf where one class has a larger share does not split, 0.99.
        max_size: MiB, 100.

    Cost: about a microsecond for a prediction and an update with ten numbers. A leaf takes 64 bytes for each column and
    class, and 32 for each column; each category that it has seen 32 bytes, and 8 for each class.

    Example:
        >>> learner = HoeffdingTreeLearner(Model("m", "hoeffding_tree", {"grace_period": 50}), (Column("x", False),))
        >>> X = np.linspace(0.0, 1.0, 100).reshape(-1, 1)
        >>> learner.learn(X, (X[:, 0] > 0.5).astype(float))
        >>> learner.predict(np.array([[0.2], [0.8]])).round(3)
        array([0.074, 1.   ])
    """

    _what = "Hoeffding tree"
    _weights: Tree

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        task = task or Task()
        self._plan = _plan(model, columns, task)
        self._columns, self._classes = len(columns), max(task.outputs, 2)
        self._is_binary = task.outputs == 1
        self._weights = make_tree(self._columns, self._classes)
        self._scratch = _scratch(self._weights)

    @property
    def plan(self) -> Plan:
        """What does not change while learning."""
        return self._plan

    def predict(self, X_BF: Matrix) -> Floats:
        """Give each row's probability of yes, [B], or of each class, [B, C]."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Floats:
        """Take the rows in order and predict, learn or skip each one; one kernel call but for growing."""
        score_BC = np.full((len(y_B), 1 if self._is_binary else self._classes), np.nan)
        row = 0
        while True:
            row = step_kernel(X_BF, y_B, action_B, row, self._plan, self._weights, self._scratch, score_BC)
            if row == len(y_B):
                return score_BC[:, 0] if self._is_binary else score_BC
            self._grow()

    def state(self) -> State:
        """Copy what is used of the arrays."""
        return {name: array.copy() for name, array in used(self._weights).items()}

    def restore(self, state: State) -> None:
        """Take a tree of the same columns and classes."""
        self._weights = tree_of(state, self._columns, self._classes)
        self._scratch = _scratch(self._weights)

    def is_finite(self) -> bool:
        """Check every statistic."""
        return all(bool(np.isfinite(array).all()) for array in used(self._weights).values())

    def size_bytes(self) -> int:
        """Give the memory of what is used."""
        return sum(array.nbytes for array in used(self._weights).values())

    def _grow(self) -> None:
        """Make room for the next row, whatever it brings."""
        counts = self._weights.counts
        children, cells = int(counts[WIDEST]) + 2, int(counts[CELLS]) + self._columns
        self._weights = grow(self._weights, (int(counts[NODES]) + children, int(counts[WATCHES]) + children, cells))
        self._scratch = _scratch(self._weights)


def _plan(model: Model, columns: tuple[Column, ...], task: Task) -> Plan:
    words, numbers = settings_of(model, task), numbers_of(model, task)
    criterion = CRITERIA.index(str(words["split_criterion"]))
    if criterion == HELLINGER and task.outputs > 2:
        message = f'[models.{model.name}] split_criterion: "hellinger" knows two classes only; allowed: info_gain, gini'
        raise PipelineError([message])
    one = grow(make_tree(len(columns), max(task.outputs, 2)), (1, 1, 1))
    groups = (NODE_ARRAYS, WATCH_ARRAYS, CELL_ARRAYS)
    costs = [sum(getattr(one, name).nbytes for name in names) for names in groups]
    return Plan(
        is_category=np.array([column.is_category for column in columns], np.bool_),
        grace_period=numbers["grace_period"],
        max_depth=int(numbers["max_depth"]),
        criterion=criterion,
        log_confidence=math.log(1.0 / numbers["delta"]),
        tau=numbers["tau"],
        leaf_prediction=LEAF_PREDICTIONS.index(str(words["leaf_prediction"])),
        nb_threshold=numbers["nb_threshold"],
        n_splits=int(numbers["n_splits"]),
        binary_split=bool(words["binary_split"]),
        min_branch_fraction=numbers["min_branch_fraction"],
        max_share_to_split=numbers["max_share_to_split"],
        costs=np.array(costs, np.int64),
        max_bytes=int(numbers["max_size"] * MIB),
        half=0.5,
    )


def _scratch(tree: Tree) -> Scratch:
    columns, classes, cells = tree.columns.shape[1], tree.stats.shape[1], len(tree.code) + 2
    order, pair, row = np.zeros(classes, np.int64), np.array([0, 1]), np.zeros(cells, np.int64)
    return Scratch(np.zeros(columns), np.zeros(classes), order, np.zeros((2, classes)), pair, row, np.zeros(cells))
