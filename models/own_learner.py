"""Users' own learners by import path, with a guard at their door; docs/own-learners.md says what one is.

What a learner is given is clean (no infinite number, no label that is NaN), what it answers is checked, and its state
may only be arrays: no pickle of a user's class is ever written, and none is read.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.learner import LEARN, PREDICT, SKIP, Actions, Matrix, State, Vector, untrained_score
from models.missing import guarded
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.toml_table import mistake_line

NEEDED = ("predict", "learn", "state", "restore")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_KINDS_OF_ARRAYS = "biufcSU"  # numbers, true and false, texts of a fixed length
_ROUNDING = 1e-6  # probabilities may miss 0, 1, or their sum of 1 by so much


class OwnLearner:
    """Wraps the learner that `<module>:<Class>` names.

    The class is called with the columns, the task, and the settings of its table by name. It has `predict`, `learn`,
    `state` and `restore`, and may have `step`, `is_finite` and `size_bytes`.
    """

    def __init__(self, model: Model, columns: tuple[Column, ...], task: Task | None = None) -> None:
        self._task = task = task or Task()
        self._outputs = max(1, len(task.classes))  # what surrounds it adds the rest
        self._is_number = task.kind in ("regression", "clustering")
        self._name, self._kind = model.name, model.kind
        self._is_category = np.array([column.is_category for column in columns], bool)
        self._learner = _make(model, columns, self._task)
        self._replaced = 0  # answers that were no answers
        self._size_bytes = 0  # of the state when it was last given or taken

    @property
    def replaced_predictions(self) -> int:
        """Give how many answers were not finite or no probabilities, and replaced by what an untrained model says."""
        return self._replaced

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score."""
        return self._checked(self._asked("predict", guarded(X_BF, self._is_category)), len(X_BF))

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows that have a label one after the other."""
        known_B = ~np.isnan(y_B) | self._task.is_unsupervised
        if known_B.any():
            self._asked("learn", guarded(X_BF[known_B], self._is_category), y_B[known_B])

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order, in one call where the learner has `step`, else in runs of the same action."""
        action_B = action_B.astype(np.int8)
        if not self._task.is_unsupervised:
            action_B[(action_B == LEARN) & np.isnan(y_B)] = SKIP
        asked_B = action_B == PREDICT
        score_BS = self._blank(len(y_B))
        if hasattr(self._learner, "step"):
            said = self._asked("step", guarded(X_BF, self._is_category), y_B.copy(), action_B.copy())
            whole = self._shaped(said, len(y_B))
            score_BS[asked_B] = self._sound(whole[asked_B])
            return score_BS
        bounds = np.flatnonzero(np.diff(action_B)) + 1
        for start, stop in zip([0, *bounds.tolist()], [*bounds.tolist(), len(y_B)], strict=True):
            rows = slice(start, stop)
            if start < stop and action_B[start] == PREDICT:
                score_BS[rows] = self.predict(X_BF[rows])
            elif start < stop and action_B[start] == LEARN:
                self.learn(X_BF[rows], y_B[rows])
        return score_BS

    def state(self) -> State:
        """Give copies of the learner's arrays."""
        found = self._asked("state")
        if not isinstance(found, dict):
            raise ModelError(f"{self}: state gives a {type(found).__name__}; allowed: a dict of arrays by name")
        state = {name: self._array(name, value) for name, value in found.items()}
        self._size_bytes = _size_of(state)
        return state

    def restore(self, state: State) -> None:
        """Hand the arrays back; each is the learner's own copy."""
        self._asked("restore", {name: np.array(array) for name, array in state.items()})
        self._size_bytes = _size_of(state)

    def is_finite(self) -> bool:
        """Ask the learner; one that does not say is finite if all its arrays are."""
        if hasattr(self._learner, "is_finite"):
            return bool(self._asked("is_finite"))
        return all(bool(np.isfinite(array).all()) for array in self.state().values() if array.dtype.kind in "fc")

    def size_bytes(self) -> int:
        """Ask the learner; of one that does not say, the size of its state when that was last written or read."""
        if hasattr(self._learner, "size_bytes"):
            return int(self._asked("size_bytes"))
        return self._size_bytes

    def __str__(self) -> str:
        return f"the model {self._name} ({self._kind})"

    def _asked(self, verb: str, *given: Any) -> Any:
        try:
            return getattr(self._learner, verb)(*given)
        except (MemoryError, ModelError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"{self} failed in {verb}: {reason}") from error

    def _array(self, name: Any, value: Any) -> npt.NDArray[Any]:
        if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name):
            raise ModelError(f"{self}: state names an array {name!r}; allowed: letters, digits, _, . and -")
        array = np.array(value) if isinstance(value, np.ndarray | bool | int | float) else np.empty(0, object)
        if array.dtype.kind not in _KINDS_OF_ARRAYS:
            found = f"a {type(value).__name__}" if not isinstance(value, np.ndarray) else f"{value.dtype} values"
            raise ModelError(f"{self}: state gives {found} as {name!r}; allowed: arrays of numbers or texts")
        return array

    def _blank(self, rows: int) -> Vector:
        outputs = self._outputs
        return np.full(rows if outputs == 1 else (rows, outputs), np.nan)

    def _shaped(self, said: Any, rows: int) -> Vector:
        wanted = self._blank(rows).shape
        try:
            found = np.asarray(said, np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self} answers a {type(said).__name__}, no array of numbers: {error}") from error
        if found.shape != wanted:
            raise ModelError(f"{self} answers an array of shape {found.shape} for {rows} rows; needed: {wanted}")
        return found

    def _checked(self, said: Any, rows: int) -> Vector:
        return self._sound(self._shaped(said, rows))

    def _sound(self, said_BS: Vector) -> Vector:
        """Replace answers that are none; probabilities are brought into [0, 1]."""
        by_row = said_BS.reshape(len(said_BS), self._outputs)
        with np.errstate(invalid="ignore"):
            is_sound_B = np.asarray(np.isfinite(by_row).all(axis=1))
            if not self._is_number:
                is_sound_B &= ((by_row >= -_ROUNDING) & (by_row <= 1.0 + _ROUNDING)).all(axis=1)
            if self._task.kind == "clustering":
                is_sound_B &= ((by_row >= 0.0) & (by_row < 2.0**31) & (by_row == np.floor(by_row))).all(axis=1)
            if self._outputs > 1:
                is_sound_B &= np.abs(by_row.sum(axis=1) - 1.0) <= _ROUNDING
        self._replaced += int(np.count_nonzero(~is_sound_B))
        sound = np.where(is_sound_B[:, None], by_row, untrained_score(self._task))
        return (sound if self._is_number else sound.clip(0.0, 1.0)).reshape(said_BS.shape)


def _size_of(state: State) -> int:
    return sum(array.nbytes for array in state.values())


def _make(model: Model, columns: tuple[Column, ...], task: Task) -> Any:
    where = f"[models.{model.name}]"
    found = _find(model.kind, f"{where} kind: {model.kind!r}")
    lacking = [verb for verb in NEEDED if not callable(getattr(found, verb, None))]
    if lacking:
        raise PipelineError([f"{where} kind: {model.kind!r} has no {', '.join(lacking)}; see docs/own-learners.md"])
    mistakes = _unknown_settings(found, model.params, where)
    if mistakes:
        raise PipelineError(mistakes)
    try:
        return found(columns, task, **model.params)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PipelineError([f"{where} kind: {model.kind!r} cannot be made: {reason}"]) from error


def _find(kind: str, where: str) -> type:
    module, _, name = kind.partition(":")
    if str(Path.cwd()) not in sys.path:  # an installed command does not look where it is started; last, to hide nothing
        sys.path.append(str(Path.cwd()))
    try:
        place = importlib.import_module(module)
    except Exception as error:
        advice = "start in its folder, put that on PYTHONPATH, or install its package"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PipelineError([f"{where} cannot be imported: {reason}; {advice}"]) from error
    found = getattr(place, name, None)
    if not inspect.isclass(found):
        names = [one for one, value in vars(place).items() if inspect.isclass(value)]
        raise PipelineError([mistake_line(where, f"is no class of {module}", "", name, names)])
    return found


def _unknown_settings(found: type, params: Mapping[str, Any], where: str) -> list[str]:
    takes = [*inspect.signature(found).parameters.values()]
    if any(one.kind is one.VAR_KEYWORD for one in takes):
        return []
    names = [one.name for one in takes[2:]]
    allowed = ", ".join(names) or "none"
    return [
        mistake_line(f"{where} {name}", "unknown key", allowed, name, names) for name in params if name not in names
    ]
