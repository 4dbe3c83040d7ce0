"""Shortfalls: rows that a model could not answer, for it raised at them or its answer was none.

They are answered as by an untrained model, so no score tells of them but by its loss. Counted for people: a replay
counts them again.
"""

from __future__ import annotations

from models.contained import Contained
from models.learner import Learner, replaced_of


class Shortfalls:
    """Counts the shortfalls of one candidate, whichever model it has.

    Example:
        >>> Shortfalls().take()
        {}
    """

    def __init__(self) -> None:
        self._counted = {"answer_failed": 0, "answer_not_finite": 0}  # by their names among the incidents
        self._before: dict[str, int] = {}

    def watch(self, learner: Learner) -> None:
        """Note where a model's counts stand, before it is asked."""
        self._before = _counts(learner)

    def count(self, learner: Learner) -> None:
        """Add what its counts have risen by; those of one that went back to an earlier state begin lower."""
        for what, now in _counts(learner).items():
            self._counted[what] += max(0, now - self._before[what])

    def take(self) -> dict[str, int]:
        """Give the rows since the last call, those that there are."""
        found = {what: rows for what, rows in self._counted.items() if rows}
        self._counted = dict.fromkeys(self._counted, 0)
        return found


def _counts(learner: Learner) -> dict[str, int]:
    failed = learner.failed_answers if isinstance(learner, Contained) else 0
    return {"answer_failed": failed, "answer_not_finite": replaced_of(learner)}
