"""Compiled standard scaler + one-hot + logistic or linear regression, learned one row at a time.

Equal to River's `(SelectType(Number) | StandardScaler()) + (SelectType(str) | OneHotEncoder()) |
LogisticRegression(SGD(lr))`, for a regression `LinearRegression(SGD(lr))` (river 0.26, within 1e-9 on every
prediction), when that is given each row without its missing features and categories as text. What it does, and this
keeps:

- predicting changes nothing; learning first updates the scaler with the row, then scales the row by it;
- the scaler keeps, per column, Welford's mean and population variance over the rows that had the column; a column
  without variance gives 0;
- the gradient is taken before the intercept moves; the intercept has its own rate and is never decayed;
- with l2, numbers decay when the row has them, and every category ever seen decays at every row (River's encoder
  gives a 0 for each of them). The decay of categories is one common factor here, so it costs nothing per category.

The difference to River: categories share a table of 2**bits weights, so memory is bounded and two categories may
collide. The state can not become NaN: features are guarded (models/learner.py), a learned row lies within sqrt(n)
deviations of its own scaler, and a loss has a gradient within 1e12, so that weights grow by steps of bounded length.
"""

from __future__ import annotations

import numpy as np

from models.array_learner import ArrayLearner
from models.learner import Actions, Matrix, Vector, numbers_of, settings_of
from models.linear_kernels import LOSSES, Plan, Scratch, Weights, predict_kernel, step_kernel
from streams.frames import Column
from streams.pipeline import Model, Task


def plan_of(model: Model, columns: tuple[Column, ...], task: Task) -> Plan:
    """Read what does not change while a linear model learns; rates that its optimiser has not are 0."""
    settings, settled = numbers_of(model, task), settings_of(model, task)
    loss = str(settled.get("loss", "squared"))
    return Plan(
        np.array([i for i, column in enumerate(columns) if not column.is_category], np.int64),
        np.array([i for i, column in enumerate(columns) if column.is_category], np.int64),
        np.array([settings.get(name, 0.0) for name in ("lr", "intercept_lr", "l2")]),
        task.kind == "regression",
        LOSSES.index(loss),
        settings.get("epsilon", settings.get("quantile", 0.0)),
        settings.get("weight_pos", 1.0),
        settings.get("weight_neg", 1.0),
    )


def scratch_of(plan: Plan) -> Scratch:
    """Make room for one row."""
    n = plan.number_columns.size
    slots = np.zeros(plan.category_columns.size, np.int64)
    return Scratch(np.zeros(n), np.zeros(n), np.zeros(n), slots, np.zeros(n))


class LinearLearner(ArrayLearner):
    """Logistic or linear regression on scaled numbers and hashed categories.

    Params (all optional):
        lr: step size of the weights, 0.005. Larger follows change faster and forgets faster.
        intercept_lr: step size of the intercept, 0.01.
        l2: decay of the weights, 0.
        bits: the category table has 2**bits weights, 18. More bits: fewer collisions, more memory.
        loss: of a regression: "squared", "huber" (with epsilon, 0.1) or "quantile" (with quantile, 0.5).
        weight_pos, weight_neg: how much a yes and a no count, 1.

    Other optimisers than plain SGD, and L1, are in adaptive_linear.py.

    Example:
        >>> learner = LinearLearner(Model("m", "linear", {"lr": 0.1}), (Column("x", False),))
        >>> learner.learn(np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))
        >>> learner.predict(np.array([[3.0]])).round(4)
        array([0.5125])
    """

    _what = "linear"

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        task = task or Task()
        self._plan = plan_of(model, columns, task)
        n, categories = self._plan.number_columns.size, self._plan.category_columns.size
        self._scratch = scratch_of(self._plan)
        table = np.zeros(2 ** int(numbers_of(model, task)["bits"]) if categories else 1)
        self._weights = Weights(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), table, np.array([0.0, 1.0]))

    @property
    def plan(self) -> Plan:
        """What does not change while learning."""
        return self._plan

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's probability of yes, or the number."""
        score_B = np.empty(len(X_BF))
        predict_kernel(X_BF, self._plan, self._weights, self._scratch, score_B)
        return score_B

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one; one kernel call."""
        score_B = np.empty(len(y_B))
        step_kernel(X_BF, y_B, action_B, self._plan, self._weights, self._scratch, score_B)
        return score_B
