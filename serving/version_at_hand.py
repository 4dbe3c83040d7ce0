"""A version at hand: a model, the columns it was made for, and what it says of rows, whatever it raises."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.contained import Contained
from models.learner import Learner, replaced_of, untrained_answer
from models.version import Version
from streams.fitting import fit_matrix
from streams.frames import Column
from streams.pipeline import Task

Matrix = npt.NDArray[np.float64]


class Answered(NamedTuple):
    """What was said of rows.

    Attributes:
        score_BS: [B] or [B, S]; of a row that the model could not answer what an untrained one says.
        failed: how many rows that are.
        replaced: how many the model has answered, though with nothing that it had reckoned: a library gave no number.
        reason: what went wrong, empty if nothing did.
    """

    score_BS: Matrix
    failed: int = 0
    reason: str = ""
    replaced: int = 0


class VersionAtHand:
    """A model that is loaded.

    Args:
        learner: the model; None where none can be made, and rows are answered as by an untrained one.
        learned: the columns it was made for.
        lineage, examples: the version's order.
        made_us: wall clock.
        record: as P.control has it; None of the untrained model.
    """

    def __init__(
        self,
        learner: Learner | None,
        learned: tuple[Column, ...],
        lineage: int = 0,
        examples: int = 0,
        made_us: int = 0,
        record: bytes | None = None,
    ) -> None:
        self.learner, self.learned, self.record = learner, learned, record
        self.lineage, self.examples, self.made_us = lineage, examples, made_us

    @classmethod
    def of(cls, learner: Learner, version: Version, record: bytes) -> VersionAtHand:
        """Give a version that was loaded."""
        return cls(learner, version.columns, version.lineage, version.examples, version.created_us, record)

    @property
    def order(self) -> tuple[int, int]:
        """Lineage and examples: a larger one is newer."""
        return self.lineage, self.examples

    def __str__(self) -> str:
        """Give `lineage.examples`."""
        return f"{self.lineage}.{self.examples}"

    def fitted(self, x_BF: Matrix, columns: tuple[Column, ...]) -> Matrix:
        """Give rows of other columns as the model knows them: by name, and what is not there any more is missing."""
        if self.learned != columns:
            x_BF = fit_matrix(x_BF, columns, self.learned)
            x_BF.flags.writeable = False  # as rows of a batch are: another type of array compiles another kernel
        return x_BF

    def answer(self, x_BF: Matrix, columns: tuple[Column, ...], task: Task) -> Answered:
        """Answer rows of these columns, all of them."""
        if self.learner is None:
            return Answered(_blank(len(x_BF), task))
        replaced = replaced_of(self.learner)
        try:
            score_BS = self.learner.predict(self.fitted(x_BF, columns))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a library's code: whatever it raises, the rows must be answered
            return Answered(_blank(len(x_BF), task), len(x_BF), str(error))
        failed, reason = 0, ""
        if isinstance(self.learner, Contained) and self.learner.failed_answers:
            failed, reason = self.learner.failed_answers, "it raises at single ones"
            self.learner.failed_answers = 0
        is_bad_B = ~np.isfinite(score_BS).reshape(len(x_BF), task.outputs).all(axis=1)
        if is_bad_B.any():
            score_BS = score_BS.copy()
            score_BS[is_bad_B] = untrained_answer(task)
            failed, reason = failed + int(np.count_nonzero(is_bad_B)), reason or "the prediction is not finite"
        return Answered(score_BS, failed, reason, replaced_of(self.learner) - replaced)


def _blank(rows: int, task: Task) -> Matrix:
    return np.full((rows, task.outputs), untrained_answer(task))
