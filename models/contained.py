"""A learner that may raise, and what it was before it did.

River's models, scikit-learn's and users' own are code that Millrace does not know. One that raises at a row must not
end the process, nor leave half of that row in the model. So this keeps the last state that was written anyway (a
snapshot, a version) and the rows taken since; when a call raises, the state is brought back and the rows go again, one
at a time, up to the one that fails. What remains is the model as it was before that row, whatever batches the rows came
in: a replay finds the same row and the same model. From then on it learns nothing and answers with what it knew.

Of one that learns nothing between two trainings nothing has to be kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from models.learner import (
    LEARN,
    PREDICT,
    SKIP,
    Actions,
    Learner,
    Matrix,
    State,
    Vector,
    replaced_of,
    untrained_answer,
)
from streams.pipeline import Task

MOST_REASON = 500  # characters; some exceptions show whole arrays
MOST_KEPT_BYTES = 16 * 2**20  # of rows since the last state: then one is taken, which costs what a snapshot costs
_NOT_AGAIN = "(and not again at the same rows: it is not deterministic)"


class Failure(NamedTuple):
    """Where in a call's rows a learner raised, and what it said."""

    row: int
    reason: str


def bare(learner: Learner) -> Learner:
    """Give the learner itself, so that what it raises is seen."""
    return learner.learner if isinstance(learner, Contained) else learner


class Contained:
    """Holds back what a learner raises; all else is the learner's.

    Args:
        make: gives the untrained learner.
        task: what it answers; a row that it cannot answer gets what an untrained model says.
        learns: whether rows may change it.

    Example:
        >>> from models.learner import make_learner
        >>> from streams.pipeline import Model
        >>> contained = Contained(lambda: make_learner(Model("base", "prior", {}), ()), Task())
        >>> contained.halt()
        >>> contained.learn(np.empty((2, 0)), np.array([1.0, 1.0]))
        >>> contained.predict(np.empty((1, 0)))
        array([0.5])
    """

    def __init__(self, make: Callable[[], Learner], task: Task, *, learns: bool = True) -> None:
        self.learner = make()
        self.failure: Failure | None = None  # of the last `step`
        self.is_halted = False
        self.unwritable = ""  # why its state could not be written, if so
        self.failed_answers = 0  # answers that the learner raised at
        self._make = make
        self._task = task
        self._learns = learns
        self._kept: State | None = None  # the last state; None: untrained
        self._since: list[tuple[Matrix, Vector, Actions]] = []  # rows taken after it
        self._since_bytes = 0
        self._size_bytes = 0

    def predict(self, X_BF: Matrix) -> Vector:
        """Give each row's score; a row that the learner raises at gets the untrained one."""
        try:
            return self.learner.predict(X_BF)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - unknown code: whatever it raises, the rows must be answered
            return self._answered_apart(X_BF)

    def learn(self, X_BF: Matrix, y_B: Vector) -> None:
        """Learn the rows one after the other, up to the first that the learner raises at."""
        self.step(X_BF, y_B, np.full(len(y_B), LEARN, np.int8))

    def step(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> Vector:
        """Take the rows in order; `failure` says whether, where and why the learner raised."""
        self.failure = None
        if self.is_halted:
            return self._answered(X_BF, action_B)
        try:
            score_B = self.learner.step(X_BF, y_B, action_B)
        except MemoryError:  # says nothing of the row
            raise
        except Exception as error:  # noqa: BLE001 - unknown code
            if not self._learns:
                return self._halted_unchanged(X_BF, action_B, str(error))
            return self._halted(X_BF, y_B, action_B, str(error))
        self._keep(X_BF, y_B, action_B)
        return score_B

    def state(self) -> State:
        """Give the learner's state; rows up to here need not be kept any more.

        One that raises at it is halted as it was when it was last written, for nothing later could be kept.
        """
        if not self._learns:
            return self.learner.state()
        try:
            self._kept = self.learner.state()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - unknown code
            self.unwritable, self.learner = _line(str(error)), self._make()
            if self._kept is None:
                self._kept = self.learner.state()
            self.learner.restore(self._kept)
            self.halt()
        self._since.clear()
        self._since_bytes = 0
        return self._kept

    def restore(self, state: State) -> None:
        """Take a state given by a learner of the same kind, parameters and columns."""
        self.learner.restore(state)
        self._kept, self._since_bytes = state if self._learns else None, 0
        self._since.clear()
        self.failure, self.is_halted = None, False

    def is_finite(self) -> bool:
        """Say whether every number in the model is finite; one that raises at the question is not."""
        try:
            return self.learner.is_finite()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - unknown code
            return False

    def size_bytes(self) -> int:
        """Give the memory that the model's state takes; what was known last of one that raises at the question."""
        try:
            self._size_bytes = self.learner.size_bytes()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S110 - unknown code
            pass
        return self._size_bytes

    @property
    def replaced_predictions(self) -> int:
        """Give how many of the learner's answers were none, and replaced; those it raised at are not among them."""
        return replaced_of(self.learner)

    def halt(self) -> None:
        """Learn nothing from here on; after a restart, of a learner that had raised before it."""
        self.is_halted = True
        self._since.clear()

    def _keep(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> None:
        worked_B = action_B != SKIP
        if self._learns and worked_B.any():
            self._since.append((X_BF[worked_B], y_B[worked_B], action_B[worked_B]))
            self._since_bytes += sum(array.nbytes for array in self._since[-1])
        if self._since_bytes > MOST_KEPT_BYTES:
            self.state()

    def _halted(self, X_BF: Matrix, y_B: Vector, action_B: Actions, reason: str) -> Vector:
        """Find the row that fails, and answer those before it as they were answered, those behind with what is known.

        A learner that does not fail again at the same rows is no function of them; nothing of the call is kept then.
        """
        score_BS, row = self._blank(len(y_B)), 0
        try:
            self._go_back()
            for row in range(len(y_B)):
                one = slice(row, row + 1)
                score_BS[row] = self.learner.step(X_BF[one], y_B[one], action_B[one])[0]
            row, reason = 0, f"{reason} {_NOT_AGAIN}"
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - unknown code
            reason = str(error)
        self._stand_before(X_BF[:row], y_B[:row], action_B[:row])
        self.failure = Failure(row, _line(reason))
        self.halt()
        score_BS[row:] = self._answered(X_BF[row:], action_B[row:])
        return score_BS

    def _halted_unchanged(self, X_BF: Matrix, action_B: Actions, reason: str) -> Vector:
        """Find the first row that one fails at which learns nothing: by halves, for it is asked for many at once."""
        at_B = np.flatnonzero(action_B == PREDICT)
        sound, failing = 0, at_B.size  # it answers all before the one, and raises at one before the other
        while failing - sound > 1:
            middle = (sound + failing) // 2
            if self._raised(X_BF[at_B[sound:middle]]):
                failing = middle
            else:
                sound = middle
        row = int(at_B[sound]) if at_B.size else 0
        self.failure = Failure(row, _line(self._raised(X_BF[row : row + 1]) or f"{reason} {_NOT_AGAIN}"))
        self.halt()
        return self._answered(X_BF, action_B)

    def _raised(self, X_BF: Matrix) -> str:
        """Give what the learner raises at rows, empty if it answers them."""
        try:
            self.learner.predict(X_BF)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - unknown code
            return str(error) or type(error).__name__
        return ""

    def _stand_before(self, X_BF: Matrix, y_B: Vector, action_B: Actions) -> None:
        """Bring the model to where it had taken these rows and no more."""
        try:
            self._go_back()
            self.learner.step(X_BF, y_B, action_B)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - what cannot go the same way twice answers as untrained
            self.learner = self._make()

    def _go_back(self) -> None:
        self.learner = self._make()
        if self._kept is not None:
            self.learner.restore(self._kept)
        for rows in self._since:
            self.learner.step(*rows)

    def _answered(self, X_BF: Matrix, action_B: Actions) -> Vector:
        score_BS, asked_B = self._blank(len(action_B)), action_B == PREDICT
        if asked_B.any():
            score_BS[asked_B] = self.predict(X_BF[asked_B])
        return score_BS

    def _answered_apart(self, X_BF: Matrix) -> Vector:
        """Answer rows of which one at least makes the learner raise: both halves, down to that one."""
        half = len(X_BF) // 2
        if half:
            return np.concatenate([self.predict(X_BF[:half]), self.predict(X_BF[half:])])
        score_BS = self._blank(len(X_BF))
        score_BS[:] = untrained_answer(self._task)
        self.failed_answers += len(X_BF)
        return score_BS

    def _blank(self, rows: int) -> Vector:
        outputs = self._task.outputs
        return np.full(rows if outputs == 1 else (rows, outputs), np.nan)


def _line(reason: str) -> str:
    """Make a reason one short line that is the same in every process: objects have addresses of their own in each."""
    line = " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", reason).split())
    return line if len(line) <= MOST_REASON else line[: MOST_REASON - 1] + "…"
