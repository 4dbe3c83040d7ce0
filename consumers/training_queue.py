"""The queue of trainings: which one is next, one at a time, and when one that failed is tried again.

A training that is due waits until the archive has the rows it is due for. Of several that wait the newest is trained:
what the others would have made would be replaced at once. Of several candidates that wait the one
whose last training was begun longest ago comes first, and of equals the file's first: else one that is due again while
it is trained would keep the others waiting for ever.
"""

from __future__ import annotations

import msgspec

from consumers.triggers import Due, Triggers

FIRST_RETRY_S = 60.0
LONGEST_RETRY_S = 3_600.0


class Ongoing(msgspec.Struct, frozen=True):
    """The training that was begun: of whom, what for, and which lineage its version will have."""

    candidate: str
    due: Due
    rows: int
    lineage: int
    begun_us: int


class Trials(msgspec.Struct):
    """How a candidate's trainings went: rows at the last one, failures in a row, when it may be tried again.

    `begun` is which of all trainings the last one was, from 1: wall clocks may stand still or go back.
    """

    rows: int = 0
    failures: int = 0
    retry_at_us: int = 0
    begun: int = 0


class TrainingQueue:
    """What waits, what is under way, and what has failed.

    Args:
        triggers: say what is due.
    """

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers
        self.ongoing: Ongoing | None = None
        self.trials: dict[str, Trials] = {name: Trials() for name in triggers.courses}

    def next(self, now_us: int, archived: int) -> tuple[str, Due] | None:
        """Give the candidate that is to be trained now, and what for; None: none, or one is under way.

        Args:
            now_us: wall clock.
            archived: rows that the archive has.
        """
        if self.ongoing is not None:
            return None
        for candidate, trials in sorted(self.trials.items(), key=lambda one: one[1].begun):  # keeps the order of equals
            course = self._triggers.courses[candidate]
            if now_us >= trials.retry_at_us:
                ready = [due for due in course.due if (due.rows or trials.rows + 1) <= archived]
                if ready:
                    return candidate, ready[-1]
        return None

    def begin(self, candidate: str, due: Due, archived: int, lineage: int, now_us: int) -> Ongoing:
        """Note that a training is under way; those that were due before it wait no more."""
        course = self._triggers.courses[candidate]
        course.due = course.due[course.due.index(due) + 1 :]
        self.trials[candidate].rows = due.rows or archived
        self.trials[candidate].begun = 1 + max(trials.begun for trials in self.trials.values())
        self.ongoing = Ongoing(candidate, due, due.rows or archived, lineage, now_us)
        return self.ongoing

    def finish(self) -> None:
        """Note that the training under way has made its version, and this is announced."""
        if self.ongoing is not None:
            begun = self.trials[self.ongoing.candidate].begun
            self.trials[self.ongoing.candidate] = Trials(self.ongoing.rows, begun=begun)
        self.ongoing = None

    def fail(self, now_us: int, *, is_certain: bool = False) -> float:
        """Note that the training under way has failed; gives the seconds until its candidate is tried again.

        Where the same training would fail again, only one from other rows is tried.
        """
        if self.ongoing is None:
            return 0.0
        due, trials = self.ongoing.due, self.trials[self.ongoing.candidate]
        course = self._triggers.courses[self.ongoing.candidate]
        if not (is_certain and due.rows):
            course.due = [due, *course.due]
        trials.rows -= not (is_certain or due.rows)  # what takes all there is may take the same again
        trials.failures += 1
        wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (trials.failures - 1))
        trials.retry_at_us = now_us + int(wait_s * 1e6)
        self.ongoing = None
        return wait_s

    def lineage(self, candidate: str) -> int:
        """Give the lineage of the newest version that was announced."""
        return self._triggers.courses[candidate].order[0]

    @property
    def is_overtaken(self) -> bool:
        """Whether a version as new as the one that is being trained was announced meanwhile."""
        now = self.ongoing
        return now is not None and self.lineage(now.candidate) >= now.lineage

    def state(self) -> bytes:
        """Give all that is remembered."""
        return msgspec.json.encode((self.ongoing, self.trials))

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave; a candidate that is declared no more is not trained any further."""
        ongoing, trials = msgspec.json.decode(state, type=tuple[Ongoing | None, dict[str, Trials]])
        known = self._triggers.courses
        self.ongoing = ongoing if ongoing is not None and ongoing.candidate in known else None
        self.trials = {name: trials.get(name) or Trials() for name in known}
