"""The quarantine: a candidate that raised learns nothing any more, and the others go on.

It is part of the snapshot, so a restart changes nothing; other parameters in the pipeline file, or a rebuild, end it,
and where the candidate is trained in batches its next version.
Which row failed and what the model was before it follow from the rows alone, so that a replay finds the same.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import msgspec
import numpy as np

from models.contained import Contained
from models.learner import Learner, State
from models.pending import Rows
from streams.advice import rebuild_of
from streams.errors import ModelError
from streams.frames import EVENT
from streams.pipeline import Model

LOG = logging.getLogger("consumers.quarantine")
_NAME = "quarantine"  # of its array in a snapshot


class Quarantined(msgspec.Struct, frozen=True, tag="quarantined", tag_field="decision"):
    """A record of P.decisions, and what a snapshot keeps: a candidate raised at a row and was set aside.

    `row` is the kind of the row, `source` and `number` name its event; `time_us` is the row's, not the clock's.
    """

    candidate: str
    lineage: int
    generation: int
    reason: str
    row: str
    source: int
    number: int
    time_us: int
    parameters: str  # of the model that raised, as `parameters_of`

    def __str__(self) -> str:
        where = f"the {self.row} row of event {self.number} of source {self.source}"
        return f"{self.candidate} is in quarantine: at {where} {self.reason}"


class Released(msgspec.Struct, frozen=True, tag="released", tag_field="decision"):
    """A record of P.decisions: other parameters or a version ended a quarantine; the candidate begins anew here."""

    candidate: str
    lineage: int
    generation: int
    reason: str


class Ward:
    """Whether one candidate is set aside, and what there is to tell of it.

    Args:
        candidate: its name.
        parameters: of the model as it is declared now, as `parameters_of` gives them.
        is_trained: whether it is trained in batches. Then its next version ends it, where the file's parameters take
            effect.
    """

    def __init__(self, candidate: str, parameters: str, *, is_trained: bool = False) -> None:
        self.quarantine: Quarantined | None = None
        self._candidate, self._parameters, self._is_trained = candidate, parameters, is_trained
        self._untold: list[tuple[int, Quarantined | Released]] = []

    def taken(self, learner: Learner, rows: Rows, start: int, stop: int, order: tuple[int, int]) -> int:
        """Say how many of the rows from `start` to `stop` the model took, and set it aside if it raised at one.

        `start` is the first row of its last step, which may have gone further: drift may renew it before that counts.
        `order` is the candidate's lineage and generation.
        """
        if self.quarantine is not None:
            return 0
        failure = learner.failure if isinstance(learner, Contained) else None
        if failure is None or start + failure.row >= stop:
            return stop - start
        self.set_aside(failure.reason, rows, start + failure.row, order)
        return failure.row

    def set_aside(self, reason: str, rows: Rows, at: int, order: tuple[int, int]) -> None:
        """Set the candidate aside at a row, with the reason."""
        kind = "event" if rows.kind[at] == EVENT else "label"
        place = int(rows.source[at]), int(rows.number[at]), int(rows.time[at])
        self.quarantine = Quarantined(self._candidate, *order, reason, kind, *place, self._parameters)
        self._untold.append((at, self.quarantine))

    def release(self, at: int, order: tuple[int, int]) -> None:
        """End a quarantine at a row where a version takes the place of the model that raised."""
        if self.quarantine is not None:
            self._end(at, Released(self._candidate, *order, "another version takes the place of the one that raised"))

    def notice(self, learner: Learner, order: tuple[int, int]) -> None:
        """Set a candidate aside whose state cannot be written; no row is to blame, so none is named."""
        if self.quarantine is None and isinstance(learner, Contained) and learner.unwritable:
            self.quarantine = Quarantined(
                self._candidate, *order, learner.unwritable, "no", -1, -1, -1, self._parameters
            )
            self._untold.append((0, self.quarantine))

    def told(self) -> list[tuple[int, Quarantined | Released]]:
        """Give the records for P.decisions that were not given yet, each with the row of the batch that caused it."""
        told, self._untold = self._untold, []
        return told

    def state(self) -> State:
        """Give the quarantine, nothing without one."""
        if self.quarantine is None:
            return {}
        return {_NAME: np.frombuffer(msgspec.json.encode(self.quarantine), np.uint8)}

    def restore(self, state: State, generation: int) -> bool:
        """Take the quarantine of a snapshot; True if other parameters end it, and the model must begin anew.

        Raises:
            ModelError: when it cannot be read.
        """
        if _NAME not in state:
            self.quarantine = None
            return False
        try:
            found = msgspec.json.decode(state[_NAME].tobytes(), type=Quarantined)
        except msgspec.MsgspecError as error:
            command = rebuild_of(f"learn.{self._candidate}")
            raise ModelError(f"the snapshot's quarantine cannot be read: {error}; run `{command}`") from error
        if self._is_trained or found.parameters == self._parameters:
            self.quarantine = found
            return False
        reason = "its parameters are others than those that raised"
        self._end(0, Released(self._candidate, found.lineage + 1, generation, reason))
        return True

    def _end(self, at: int, released: Released) -> None:
        self.quarantine = None
        self._untold.append((at, released))
        LOG.warning("%s: is out of quarantine and begins anew: %s", self._candidate, released.reason)

    def halt(self, learner: Learner) -> None:
        """Let a restored learner learn nothing if it is set aside."""
        if self.quarantine is not None and isinstance(learner, Contained):
            learner.halt()


def parameters_of(model: Model) -> str:
    """Give a text that two declarations share if kind and parameters are equal."""
    return hashlib.blake2b(msgspec.json.encode([model.kind, _sorted(model.params)]), digest_size=8).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
