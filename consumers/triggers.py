"""Triggers: at which row of the examples a training of which candidate is due.

A function of the rows of P.examples alone: a candidate's k-th training by number or by time is due at the same row in
every replay, whatever was polled together. Rows are counted as the archive numbers them, one for each label row. Time
is the events', as far as any has come. Only alarms of drift come from another topic; when they are seen is no matter
of rows. A version row that a person's own training has made counts as a training, for it is one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.version_rows import Announced, announced
from models.version import Version, decode_record
from streams.errors import ModelError
from streams.frames import BEGINNING, EVENT, LABEL, MISSING, SET
from streams.pipeline import Model
from streams.retraining import Retrain
from streams.tables import Table

LOG = logging.getLogger("consumers.triggers")
MOST_DUE = 1_000  # of a candidate that wait for the archive; of more the oldest are left out

Int64s = npt.NDArray[np.int64]


class Due(msgspec.Struct, frozen=True):
    """A training that is due, as of one row.

    Attributes:
        reason: "every", "examples", "drift" or "command".
        rows: of the archive that it must have: all up to the row that made it due. 0: as many as there are.
        time_us: of the newest event by then.
        known_us: of the newest label by then.
    """

    reason: str
    rows: int
    time_us: int
    known_us: int


class Course(msgspec.Struct):
    """What is remembered of one candidate.

    Attributes:
        labelled: labels that had come when its last training was due.
        began_us: event time from which `every` counts, BEGINNING before the first event.
        cooled_us: event time from which the next training may be due.
        order: (lineage, examples) of the newest version that was announced.
        has_alarm: whether an alarm of drift waits for the cool-down to be over.
        due: trainings, the oldest first.
    """

    labelled: int = 0
    began_us: int = BEGINNING
    cooled_us: int = BEGINNING
    order: tuple[int, int] = (0, 0)
    has_alarm: bool = False
    due: list[Due] = []


class Reached(msgspec.Struct):
    """How far the examples were read: rows of the archive, labels, the newest event's and the newest label's time."""

    rows: int = 0
    labelled: int = 0
    time_us: int = BEGINNING
    known_us: int = BEGINNING


class _Ahead(NamedTuple):
    """The same after each label row of a stretch."""

    rows: Int64s
    labelled: Int64s
    time_us: Int64s
    known_us: Int64s


class Triggers:
    """When candidates are trained.

    Args:
        models: the candidates with a `retrain`, in the file's order.
        learns_all: whether rows without a label are examples, too.

    Example:
        >>> triggers = Triggers([Model("net", "torch:mlp", {}, retrain=Retrain(examples=100))])
        >>> triggers.courses["net"].due
        []
    """

    def __init__(self, models: Sequence[Model], *, learns_all: bool = False) -> None:
        self._retrains = {model.name: model.retrain or Retrain() for model in models}
        self._learns_all = learns_all
        self.reached = Reached()
        self.courses = {name: Course() for name in self._retrains}

    def take(self, rows: Table) -> list[tuple[int, Version]]:
        """Take rows in order; gives the versions that they announce, if these are newer than all before."""
        found, start = [], 0
        for one in announced(rows):
            self._pass(rows.slice(start, one.row - start))
            start = one.row
            version = self._announce(one)
            if version is not None:
                found.append((one.row, version))
        self._pass(rows.slice(start))
        return found

    def alarm(self, candidate: str, lineage: int) -> None:
        """Take an alarm of drift on the loss of a candidate's model of this lineage; of an older one it is none."""
        course, retrain = self.courses.get(candidate), self._retrains.get(candidate)
        if course is not None and retrain is not None and retrain.on_drift and lineage >= course.order[0]:
            course.has_alarm = not course.due
            self._heed(course, retrain)

    def state(self) -> bytes:
        """Give all that is remembered."""
        return msgspec.json.encode((self.reached, self.courses))

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave; candidates that are declared no more are forgotten, new ones begin here."""
        self.reached, courses = msgspec.json.decode(state, type=tuple[Reached, dict[str, Course]])
        began = Course(self.reached.labelled, self.reached.time_us)
        self.courses = {name: courses.get(name) or msgspec.structs.replace(began, due=[]) for name in self._retrains}

    def _pass(self, rows: Table) -> None:
        """Count the rows of a stretch in which no version is announced."""
        if not rows.num_rows:
            return
        ahead = self._ahead(rows)
        for name, retrain in self._retrains.items():
            course = self.courses[name]
            if course.began_us == BEGINNING:
                course.began_us = _first_us(rows)
            self._find_due(course, retrain, ahead)
        self._move(rows, ahead)
        for name, retrain in self._retrains.items():
            self._heed(self.courses[name], retrain)

    def _ahead(self, rows: Table) -> _Ahead:
        kind, time, label = (rows.numbers(name) for name in ("kind", "time", "label"))
        is_label = kind == LABEL
        newest = np.maximum.accumulate(np.where(kind == EVENT, time, BEGINNING))
        known = np.maximum.accumulate(np.where(is_label, time, BEGINNING))
        is_first = np.isin(rows.numbers("outcome"), (SET, MISSING))
        is_example = is_label & is_first & (self._learns_all | ~np.isnan(label))
        now = self.reached
        return _Ahead(
            now.rows + np.cumsum(is_label)[is_label],
            now.labelled + np.cumsum(is_example)[is_label],
            np.maximum(newest, now.time_us)[is_label],
            np.maximum(known, now.known_us)[is_label],
        )

    def _find_due(self, course: Course, retrain: Retrain, ahead: _Ahead) -> None:
        """Note each row at which a training is due; the counts go on from there."""
        while True:
            by = {
                "every": _reaches(ahead.time_us, course.began_us, retrain.every_us),
                "examples": _reaches(ahead.labelled, course.labelled, retrain.examples),
            }
            reason = min(by, key=lambda name: by[name])
            row = max(by[reason], int(np.searchsorted(ahead.time_us, course.cooled_us)))
            if row >= ahead.rows.size:
                return
            at = Reached(*(int(column[row]) for column in ahead))
            self._note(course, retrain, Due(reason, at.rows, at.time_us, at.known_us), at)

    def _heed(self, course: Course, retrain: Retrain) -> None:
        """Let an alarm make a training due once the cool-down is over; it takes what the archive has."""
        now = self.reached
        if course.has_alarm and now.time_us >= course.cooled_us:
            self._note(course, retrain, Due("drift", 0, now.time_us, now.known_us), now)

    def _note(self, course: Course, retrain: Retrain, due: Due, at: Reached) -> None:
        course.due = [*course.due, due][-MOST_DUE:]
        self._begin(course, retrain, at)

    def _begin(self, course: Course, retrain: Retrain, at: Reached) -> None:
        course.labelled, course.began_us, course.has_alarm = at.labelled, at.time_us, False
        course.cooled_us = at.time_us + retrain.cooldown_us if at.time_us != BEGINNING else BEGINNING

    def _move(self, rows: Table, ahead: _Ahead) -> None:
        is_event = rows.numbers("kind") == EVENT
        if is_event.any():
            self.reached.time_us = max(self.reached.time_us, int(rows.numbers("time")[is_event].max()))
        if ahead.rows.size:
            self.reached.rows, self.reached.labelled = int(ahead.rows[-1]), int(ahead.labelled[-1])
            self.reached.known_us = int(ahead.known_us[-1])

    def _announce(self, found: Announced) -> Version | None:
        """Note a version; None if it is none of ours, or no newer one."""
        course = self.courses.get(found.candidate)
        if course is None:
            return None
        try:
            version = decode_record(found.record)
        except ModelError as error:
            LOG.error("%s: a version row is passed over: %s", found.candidate, error)  # noqa: TRY400  # one line says it
            return None
        if version.order <= course.order:
            return None
        course.order = version.order
        course.due = [due for due in course.due if due.known_us > found.time_us]
        if version.training is not None and version.training.reason == "command":
            self._begin(course, self._retrains[found.candidate], self.reached)
        return version


def _first_us(rows: Table) -> int:
    """Give the time of the first event among rows."""
    place_N = np.flatnonzero(rows.numbers("kind") == EVENT)
    return int(rows.numbers("time")[place_N[0]]) if place_N.size else BEGINNING


def _reaches(ahead: Int64s, since: int, distance: int | None) -> int:
    """Find the first place at which a rising number is so far from where it was; behind the last one if none is."""
    if distance is None or since == BEGINNING:
        return int(ahead.size)
    return int(np.searchsorted(ahead, since + distance))
