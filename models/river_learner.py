"""Any River classifier or regressor as a learner, and what river_unsupervised.py knows of anomalies and clusters.

A row becomes a dict without its missing features: numbers as float, categories as the text of their integer code.
Labels are given as bool, as the name of their class, or as the number. Rows go one by one through `predict_proba_one`
or `predict_one`, and `learn_one`; mini-batches (`learn_many`) would learn less (one step on the mean gradient) and are
not used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from river import base, compose

from models.learner import LEARN, MAX_CODE, PREDICT, Actions, Matrix, State, Vector, untrained_score
from models.missing import guarded
from models.river_parts import RIVER_VERSION, make_part
from models.river_unsupervised import Unsupervised
from models.sealed import needed_key, seal, unseal
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

_OF_SEVERAL_LABELS = (base.MultiTargetRegressor, base.MultiLabelClassifier)
_OF_TEXTS = re.compile(
    r"\bstr(ing)?\b|sequence|must be real numbers"
)  # how Python and River say that a text is no number
CATEGORIES = "categories"  # our own parameter beside the model's: "text", "drop", or how many


FOR_NUMBERS = (
    "it takes numbers only: put a step for categories before it, as OneHotEncoder, "
    f'or leave them out by {CATEGORIES} = "drop"'
)


class RiverLearner:
    """Wraps the classifier or regressor that `river:<module>.<Class>` names.

    Params: the model's own, with tables for objects inside it (river_parts.py), and `categories`: "text" (default),
    "drop" for models that only take numbers (GaussianNB, linear models), or a number: each column then has at most so
    many texts, and values that fall on the same are taken for one. Whatever takes a seed gets 0 if none is given.

    Cost per row: the model's (10 us to 1 ms) and about 1 us for the dict.

    Example:
        >>> model = Model("tree", "river:tree.HoeffdingTreeClassifier", {"grace_period": 50})
        >>> learner = RiverLearner(model, (Column("x", False),))
        >>> learner.learn(np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))
        >>> learner.predict(np.array([[3.0]]))
        array([0.5])
    """

    def __init__(
        self, model: Model, columns: tuple[Column, ...], key: bytes | None = None, task: Task | None = None
    ) -> None:
        self._task = task or Task()
        params = dict(model.params)
        categories = params.pop(CATEGORIES, "drop" if self._task.is_unsupervised else "text")
        is_number = isinstance(categories, int) and not isinstance(categories, bool) and categories >= 2
        if not is_number and categories not in ("text", "drop"):
            allowed = "text, drop, or how many texts there may be at most, from 2"
            raise PipelineError([f"[models.{model.name}] {CATEGORIES}: {categories!r} found; allowed: {allowed}"])
        self._most_texts = categories if is_number else int(MAX_CODE)
        self._name, self._kind, self._key = model.name, model.kind, key
        self._unsupervised: Unsupervised | None = None
        self._model: Any
        if self._task.is_unsupervised:
            self._unsupervised = Unsupervised(model, params, columns, self._task)
            self._model = self._unsupervised.made
        else:
            self._model = _make_model(model, params, self._task)
        own = getattr(type(_last_step(self._model)), "predict_proba_one", None)
        self._is_silent = own is base.Classifier.predict_proba_one
        self._columns = [i for i, c in enumerate(columns) if categories != "drop" or not c.is_category]
        self._names = [columns[i].name for i in self._columns]
        self._is_category = [columns[i].is_category for i in self._columns]
        self._replaced = 0  # predictions that were not finite
        self._is_last_finite = True
        self._is_trained = False
        self._size_bytes = 0

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score."""
        rows = len(X_BF)
        return self.step(X_BF, np.full(rows, np.nan), np.full(rows, PREDICT, np.int8))

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows one after the other."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order and predict, learn or skip each one.

        Raises:
            ModelError: when the model raises.
        """
        score_BS = np.full((len(y_B), max(1, len(self._task.classes))), np.nan)
        ask, teach = self._asking()
        rows = zip(self._dicts(X_BF), y_B.tolist(), action_B.tolist(), strict=True)
        try:
            for i, (x, y, action) in enumerate(rows):
                if action == PREDICT:
                    score_BS[i] = self._checked(ask(x)) if self._is_trained else self._untrained
                elif action == LEARN and teach(x, y):
                    self._is_trained = True
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            hint = (
                FOR_NUMBERS if any(self._is_category) and _is_of_texts(error) else "change its parameters or remove it"
            )
            raise ModelError(f"the model {self._name} ({self._kind}) failed: {reason}; {hint}") from error
        return score_BS if self._task.classes else score_BS[:, 0]

    def state(self) -> State:
        """Seal the model; a large one takes long (an adaptive forest: megabytes)."""
        blob = seal([self._model, self._is_trained, self._replaced], self._checked_key(), RIVER_VERSION)
        self._size_bytes = len(blob)
        return {"sealed": np.frombuffer(blob, np.uint8).copy()}

    def restore(self, state: State) -> None:
        """Unseal a model of the same class."""
        blob = np.asarray(state.get("sealed", ()), np.uint8).tobytes()
        model, is_trained, replaced = unseal(blob, self._checked_key(), RIVER_VERSION)
        if _outline(model) != _outline(self._model):
            found = f"a {type(model).__name__} found, {self._kind} needed, or other steps"
            raise ModelError(f"the state of model {self._name} is another's: {found}")
        self._model, self._is_trained = model, bool(is_trained)
        self._replaced, self._size_bytes = int(replaced), len(blob)

    def is_finite(self) -> bool:
        """Say whether the last prediction was finite; a model's inside is not looked at."""
        return self._is_last_finite

    def size_bytes(self) -> int:
        """Give the model's size when it was last sealed or unsealed; 0 before."""
        return self._size_bytes

    @property
    def replaced_predictions(self) -> int:
        """Give how many predictions were not finite, and answered as if nothing had been learned."""
        return self._replaced

    def _asking(self) -> tuple[Callable[[dict[str, Any]], Any], Callable[[dict[str, Any], float], bool]]:
        """Give how the model is asked, and how it is taught a row, which says whether it learned it."""
        model, unsupervised = self._model, self._unsupervised
        if unsupervised is not None:
            return lambda x: _or_nothing(unsupervised.ask(model, x)), lambda x, _: unsupervised.teach(model, x)
        ask, label_of = self._asking_for_labels()

        def teach(x: dict[str, Any], y: float) -> bool:
            if math.isnan(y):
                return False
            model.learn_one(x, label_of(y))
            return True

        return ask, teach

    def _asking_for_labels(self) -> tuple[Callable[[dict[str, Any]], Any], Callable[[float], Any]]:
        """Give how the model is asked, and how it is told a label."""
        classes = self._task.classes
        if self._task.kind == "regression":
            return self._model.predict_one, float
        ask = self._certain if self._is_silent else self._model.predict_proba_one
        if classes:
            return lambda x: self._shares(ask(x)), lambda y: classes[int(y)]
        return lambda x: _share_of_true(ask(x)), lambda y: y > 0.5

    def _certain(self, x: dict[str, Any]) -> dict[Any, float]:
        """Ask a model that names a class and says no probability."""
        said = self._model.predict_one(x)
        return {} if said is None else {said: 1.0}

    def _shares(self, probabilities: dict[str, float]) -> list[float]:
        """Give the probability of each class; what River leaves out is 0, and shares of nothing are equal."""
        found = [float(probabilities.get(name, 0.0)) for name in self._task.classes]
        total = sum(found)
        return [value / total for value in found] if total > 0.0 else [1.0 / len(found)] * len(found)

    @property
    def _untrained(self) -> float:
        # A model without a label is not asked: an adaptive forest settles its features with the first row it sees.
        return untrained_score(self._task)

    def _checked(self, score: Any) -> Any:
        self._is_last_finite = bool(np.isfinite(score).all())
        if self._is_last_finite:
            return score if self._task.kind in ("regression", "clustering") else np.clip(score, 0.0, 1.0)
        self._replaced += 1
        return self._untrained

    def _dicts(self, X_BF: Matrix) -> Iterator[dict[str, Any]]:
        """Make each row's dict; B x F float objects at once, so callers give batches, not archives."""
        category = np.array(self._is_category, bool)
        values = guarded(X_BF[:, self._columns], category)
        names = self._names
        if not category.any():
            for row in values.tolist():
                yield {name: v for name, v in zip(names, row, strict=True) if v == v}  # noqa: PLR0124 - not NaN
            return
        kinds, most = self._is_category, self._most_texts
        for row in values.tolist():
            pairs = zip(names, row, kinds, strict=True)
            yield {name: str(int(v) % most) if is_text else v for name, v, is_text in pairs if v == v}  # noqa: PLR0124

    def _checked_key(self) -> bytes:
        return needed_key(self._key, f"the model {self._name} ({self._kind})")


def _share_of_true(probabilities: dict[bool, float]) -> float:
    return float(probabilities.get(True, 0.0)) if probabilities else 0.5


def _or_nothing(score: float | None) -> float:
    return 0.0 if score is None else score


def _make_model(model: Model, params: dict[str, Any], task: Task) -> Any:
    where = f"[models.{model.name}] kind: {model.kind!r}"
    made = make_part(model.kind.removeprefix("river:"), params, f"[models.{model.name}]")
    last = _last_step(made)
    wanted = base.Regressor if task.kind == "regression" else base.Classifier
    if not issubclass(type(last), wanted) or issubclass(type(last), _OF_SEVERAL_LABELS):
        noun = wanted.__name__.lower()
        ending = f" (its last step is a {type(last).__name__})" if last is not made else ""
        raise PipelineError([f"{where} is no {noun}{ending}; allowed: one derived from river.base.{wanted.__name__}"])
    if isinstance(last, base.Wrapper) and last.__module__.startswith("river.active."):
        raise PipelineError([f"{where} asks for labels, which come here by themselves; take what is inside it"])
    if task.kind == "multiclass" and not last._multiclass:  # noqa: SLF001 - River has no public name for it
        wrap = 'a multiclass one, or it inside "river:multiclass.OneVsRestClassifier"'
        raise PipelineError([f"{where} knows two classes only; choose {wrap}"])
    return made


def _is_of_texts(error: Exception) -> bool:
    """Say whether a model has failed because categories reach it as texts."""
    return isinstance(error, TypeError | ValueError) and _OF_TEXTS.search(str(error)) is not None


def _last_step(made: Any) -> Any:
    while isinstance(made, compose.Pipeline) and made.steps:
        made = list(made.steps.values())[-1]
    return made


def _outline(made: Any) -> Any:
    """Say what a model is made of: its class, and those of a pipeline's steps."""
    steps = made.steps.values() if isinstance(made, compose.Pipeline) else ()
    return type(made).__name__, *(_outline(step) for step in steps)
