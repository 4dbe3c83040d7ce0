"""Any estimator of scikit-learn as a learner that is fitted from the archive, and frozen in between.

What it is given of a row: numbers, then categories as places in their vocabularies (preparation.py), 0 for one that is
unknown or missing. Where the estimator takes missing numbers, numbers are as they came, NaN if missing; where it does
not, they are scaled, and a missing one is the mean of the training examples, with a number that says so. Estimators
that know of categories (histogram gradient boosting) are told which columns are some.

The bits of an answer depend on its row alone (row_blocks.py). The fitted object is sealed (sealed.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils import get_tags
from threadpoolctl import threadpool_limits

from models.error_ranks import quantiles_of, rank
from models.learner import MAX_MAGNITUDE, PREDICT, Actions, Matrix, State, Vector, untrained_score
from models.missing import guarded
from models.preparation import Preparation
from models.row_blocks import Rows, ask_in_blocks, trusted_sizes
from models.sealed import needed_key, seal, unseal
from models.sklearn_parts import SEALED, SKLEARN_VERSION, make_estimator
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

CATEGORIES = "categories"  # our own parameter beside the estimator's: "codes" or "drop"
BLOCK_SIZES = (16, 128, 1024)
_OF_CATEGORIES = "categorical_features"  # the parameter of estimators that know of categories


class SklearnLearner:
    """Wraps the estimator that `sklearn:<module>.<Class>` names.

    Params: the estimator's own, with tables for estimators inside it (sklearn_parts.py), and `categories`: "codes", or
    "drop" for estimators to which a category's place says nothing. What takes a random state gets 0 if none is given.

    Example:
        >>> model = Model("trees", "sklearn:tree.DecisionTreeClassifier", {"max_depth": 2})
        >>> learner = SklearnLearner(model, (Column("x", False),))
        >>> learner.fit(np.array([[1.0], [2.0], [3.0]]), np.array([0.0, 0.0, 1.0]))
        >>> learner.predict(np.array([[1.0], [3.0]]))
        array([0., 1.])
    """

    def __init__(
        self, model: Model, columns: tuple[Column, ...], key: bytes | None = None, task: Task | None = None
    ) -> None:
        self._model, self._columns, self._key, self._task = model, columns, key, task or Task()
        params = dict(model.params)
        categories = params.pop(CATEGORIES, "codes")
        if categories not in ("codes", "drop"):
            raise PipelineError([f"[models.{model.name}] {CATEGORIES}: {categories!r} found; allowed: codes, drop"])
        self._has_categories = categories == "codes"
        self._is_category_F = np.array([column.is_category for column in columns], np.bool_)
        self._unfitted = make_estimator(model.kind.removeprefix("sklearn:"), params, f"[models.{model.name}]")
        _check_task(self._unfitted, model, self._task)
        self._takes_missing = bool(get_tags(self._unfitted).input_tags.allow_nan)
        self._estimator: Any = None
        self._preparation = Preparation(columns, model)
        self._error_K = np.empty(0)  # quantiles of the training examples' errors, for anomalies
        self._sizes: tuple[int, ...] = BLOCK_SIZES[:1]
        self._size_bytes, self._replaced, self._is_last_finite = 0, 0, True

    def fit(self, X_NF: Matrix, y_N: Vector) -> None:
        """Fit a new estimator to examples. Those without a label are left out; for anomalies, those that are one.

        Args:
            X_NF: examples.
            y_N: their labels.

        Raises:
            ModelError: when the estimator raises.
        """
        is_used_N = ~(y_N > 0.5) if self._task.kind == "anomaly" else np.abs(y_N) <= MAX_MAGNITUDE
        X_NF, y_N = X_NF[is_used_N], y_N[is_used_N]
        self._preparation = Preparation.fit(X_NF, self._columns, self._model)
        inputs = self._inputs(X_NF)
        estimator = self._with_categories(clone(self._unfitted))
        try:
            with threadpool_limits(1):  # a pipeline's other processes need the cores, and would make several wait
                estimator.fit(inputs, *self._labels(y_N))
            self._estimator = estimator
            if self._task.kind == "anomaly":
                self._error_K = quantiles_of(-estimator.score_samples(inputs))
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ModelError(f"the model {self._model.name} ({self._model.kind}) cannot be fitted: {reason}") from error
        self._sizes = self._trusted()
        asked_BF = X_NF[:64]
        if not np.array_equal(self.predict(np.roll(asked_BF, 1, axis=0)), np.roll(self.predict(asked_BF), 1, axis=0)):
            what = "answers a row otherwise when it stands elsewhere; choose another"
            raise ModelError(f"the model {self._model.name} ({self._model.kind}) {what}")

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score.

        Raises:
            ModelError: when the estimator raises.
        """
        score_BS = np.full((len(X_BF), max(1, len(self._task.classes))), untrained_score(self._task))
        if self._estimator is not None and len(X_BF):
            said_BS = self._said(X_BF)
            is_right_B = np.isfinite(said_BS).all(axis=1)
            self._is_last_finite = bool(is_right_B.all())
            self._replaced += int((~is_right_B).sum())
            score_BS[is_right_B] = said_BS[is_right_B]
        return score_BS if self._task.classes else score_BS[:, 0]

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn nothing."""

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Answer the rows to predict, all in one call; NaN for others."""
        said = self.predict(X_BF[action_B == PREDICT])
        score_B = np.full((len(X_BF), *said.shape[1:]), np.nan)
        score_B[action_B == PREDICT] = said
        return score_B

    def state(self) -> State:
        """Seal the fitted estimator with its preparation; nothing before the first training."""
        if self._estimator is None:
            return {}
        content = [self._estimator, self._preparation.state(), self._error_K]
        blob = seal(content, self._checked_key(), SKLEARN_VERSION, SEALED)
        self._size_bytes = len(blob)
        return {"sealed": np.frombuffer(blob, np.uint8).copy()}

    def restore(self, state: State) -> None:
        """Unseal a fitted estimator of the same class; a state without arrays is untrained.

        From then on this process answers, so libraries are kept to one thread: several would add up in another order.
        """
        if not state:
            self._estimator = None
            return
        blob = np.asarray(state.get("sealed", ()), np.uint8).tobytes()
        estimator, prepared, error_K = unseal(blob, self._checked_key(), SKLEARN_VERSION, SEALED)
        preparation = Preparation(self._columns, self._model)
        preparation.restore(prepared)
        if type(estimator) is not type(self._unfitted):
            found = f"a {type(estimator).__name__} found, {self._model.kind} needed"
            raise ModelError(f"the state of model {self._model.name} is another's: {found}; train it again")
        self._estimator, self._preparation, self._error_K = estimator, preparation, error_K
        self._size_bytes = len(blob)
        threadpool_limits(1)
        self._sizes = self._trusted()

    def is_finite(self) -> bool:
        """Say whether the last answers were finite; an estimator's inside is not looked at."""
        return self._is_last_finite

    def size_bytes(self) -> int:
        """Give the estimator's size when it was last sealed or unsealed; 0 before."""
        return self._size_bytes

    @property
    def replaced_predictions(self) -> int:
        """Give how many predictions were not finite, and answered as if nothing had been learned."""
        return self._replaced

    def _said(self, X_BF: Matrix) -> Matrix:
        try:
            return ask_in_blocks(self._ask, (self._inputs(X_BF),), self._sizes)
        except MemoryError:  # says nothing of the rows
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"the model {self._model.name} ({self._model.kind}) failed: {reason}") from error

    def _inputs(self, X_BF: Matrix) -> Matrix:
        """Give what the estimator gets of rows: numbers, then categories."""
        numbers_BN, categories_BC = self._preparation.apply(X_BF)
        numbers = guarded(X_BF, self._is_category_F)[:, ~self._is_category_F] if self._takes_missing else numbers_BN
        return np.column_stack([numbers, categories_BC] if self._has_categories else [numbers]).astype(np.float64)

    def _with_categories(self, estimator: Any) -> Any:
        """Tell an estimator that knows of categories which columns are some; those of too many are numbers to it."""
        own = estimator.get_params(deep=False)
        if not self._has_categories or _OF_CATEGORIES not in own or _OF_CATEGORIES in self._model.params:
            return estimator
        numbers, most = int((~self._is_category_F).sum()), int(own.get("max_bins", 255))
        vocabularies = self._preparation.vocabularies
        columns = [numbers + place for place, entries in enumerate(vocabularies) if entries <= most]
        return estimator.set_params(**{_OF_CATEGORIES: columns or None})

    def _labels(self, y_N: Vector) -> tuple[Any, ...]:
        if self._task.kind == "anomaly":
            return ()
        if self._task.kind == "regression":
            return (y_N,)
        return (y_N.astype(np.int64) if self._task.classes else (y_N > 0.5).astype(np.int64),)

    def _ask(self, rows: Rows) -> Matrix:
        """Give the scores of a block, [R, S]."""
        (inputs_RF,) = rows
        if self._task.kind == "anomaly":
            return rank(-self._estimator.score_samples(inputs_RF), self._error_K)[:, None]
        if self._task.kind == "regression":
            said = np.asarray(self._estimator.predict(inputs_RF), np.float64).reshape(-1, 1)
            return np.clip(said, -MAX_MAGNITUDE, MAX_MAGNITUDE)
        share_RC = np.zeros((len(inputs_RF), max(2, len(self._task.classes))))
        if hasattr(self._estimator, "predict_proba"):
            share_RC[:, self._estimator.classes_] = np.clip(self._estimator.predict_proba(inputs_RF), 0.0, 1.0)
        else:  # it names a class, and says no probability
            share_RC[np.arange(len(inputs_RF)), self._estimator.predict(inputs_RF)] = 1.0
        return share_RC if self._task.classes else share_RC[:, 1:]

    def _trusted(self) -> tuple[int, ...]:
        """Find the sizes of blocks in which an answer does not depend on the rows around it."""
        rng, columns = np.random.default_rng(0), len(self._columns)
        probe = rng.normal(size=(BLOCK_SIZES[-1], columns))
        mean_N, deviation_N = self._preparation.scaler.mean, np.sqrt(self._preparation.scaler.variance)
        probe[:, ~self._is_category_F] = probe[:, ~self._is_category_F] * deviation_N + mean_N
        try:
            return trusted_sizes(self._ask, (self._inputs(probe),), BLOCK_SIZES)
        except Exception:  # noqa: BLE001  # it fails where it is asked, and is told of there
            return BLOCK_SIZES[:1]

    def _checked_key(self) -> bytes:
        return needed_key(self._key, f"the model {self._model.name}")


def _check_task(estimator: Any, model: Model, task: Task) -> None:
    """Refuse an estimator that cannot answer what the task asks."""
    is_right, wanted = {
        "regression": (is_regressor(estimator), "a regressor"),
        "anomaly": (hasattr(estimator, "score_samples"), "a model with score_samples"),
        "clustering": (False, "of another task"),
    }.get(task.kind, (is_classifier(estimator), "a classifier"))
    if not is_right or not hasattr(estimator, "fit"):
        raise PipelineError([f"[models.{model.name}] kind: {model.kind!r} is not {wanted}; the task is {task.kind}"])
