"""Linear models with an optimiser other than plain SGD, or with an L1 penalty, learned one row at a time.

Equal to River's `(SelectType(Number) | StandardScaler()) + (SelectType(str) | OneHotEncoder(drop_zeros=True)) |` and
`LogisticRegression`, `LinearRegression` or `SoftmaxRegression` with the same optimiser, loss and penalty (river 0.26,
within 1e-9 on every prediction). Rows, scaling, missing values and hashed categories are as in linear.py. A weight, its
moments and its penalty move only at rows that have its number or category, so a row costs the same however many
categories there are; with River's encoder as it is by default, which gives a 0 for every category ever seen, Adam's
moments and FTRL's weights go on at every row. AdaGrad without a penalty is equal to both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.adaptive_kernels import KERNELS, Weights
from models.array_learner import ArrayLearner
from models.learner import PREDICT, Actions, Learner, Matrix, Vector, numbers_of, settings_of
from models.linear import LinearLearner, plan_of, scratch_of
from models.linear_kernels import Plan
from models.optimizers import HAS_FIRST, HAS_SECOND, rates_of
from models.softmax import SoftmaxLearner
from streams.frames import Column
from streams.pipeline import Model, Task


def linear_learner(model: Model, columns: tuple[Column, ...], task: Task) -> Learner:
    """Make the linear model that its settings ask for: those of plain SGD have faster kernels of their own."""
    settings = settings_of(model, task)
    is_plain = settings["optimizer"] == "sgd" and not settings.get("l1")
    if is_plain and task.kind != "multiclass":
        return LinearLearner(model, columns, task)
    if is_plain and not settings["l2"]:
        return SoftmaxLearner(model, columns, task)
    return AdaptiveLinearLearner(model, columns, task)


class AdaptiveLinearLearner(ArrayLearner):
    """Logistic, linear or softmax regression on scaled numbers and hashed categories.

    Params (all optional; docs/learning.md says what each does): optimizer, what belongs to it, intercept_lr, l1, l2,
    bits; and loss, epsilon or quantile of a regression, weight_pos and weight_neg of yes and no.

    Example:
        >>> model = Model("m", "linear", {"optimizer": "adagrad"})
        >>> learner = AdaptiveLinearLearner(model, (Column("x", False),))
        >>> learner.learn(np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))
        >>> learner.predict(np.array([[3.0]])).round(4)
        array([0.525])
    """

    _what = "linear"

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        task = task or Task()
        settings = numbers_of(model, task)
        optimizer = str(settings_of(model, task)["optimizer"])
        self._plan, self._rates = plan_of(model, columns, task), rates_of(settings, optimizer)
        self._kernel, self._outputs = KERNELS[optimizer], task.outputs
        n, categories = self._plan.number_columns.size, self._plan.category_columns.size
        self._scratch = scratch_of(self._plan)
        numbers, table = (task.outputs, n), (2 ** int(settings["bits"]) if categories else 1, task.outputs)
        first, second, paid = optimizer in HAS_FIRST, optimizer in HAS_SECOND, self._rates.l1 > 0.0
        self._weights = Weights(
            *(np.zeros(n), np.zeros(n), np.zeros(n)),
            *(np.zeros(numbers), _room(numbers, first), _room(numbers, second), _room(numbers, paid)),
            *(np.zeros(table), _room(table, first), _room(table, second), _room(table, paid)),
            *(np.zeros(task.outputs), np.zeros(2)),
        )

    @property
    def plan(self) -> Plan:
        """What does not change while learning."""
        return self._plan

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's probability of yes, of each class [B, C], or the number."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> npt.NDArray[np.float64]:
        """Take the rows in order and predict, learn or skip each one; one kernel call."""
        score_BO, logit_O = np.full((len(y_B), self._outputs), np.nan), np.empty(self._outputs)
        self._kernel(X_BF, y_B, action_B, self._plan, self._rates, self._weights, self._scratch, logit_O, score_BO)
        return score_BO if self._outputs > 1 else score_BO.reshape(-1)


def _room(shape: tuple[int, int], is_kept: bool) -> Matrix:
    return np.zeros(shape if is_kept else (0, 0))
