"""The selector's desk: a selection, and what it needs of Kafka. What Faust hands over may repeat or leave gaps.

    open:   take the saved state; read P.decisions to its end; read again the scores whose blocks wait
    scores: read what lies between the state and the record at hand, weigh it, and save now and then
    decide: write the record, flush, read P.decisions to its end: the first that follows the reign counts

A state that is saved is of a point between two records. An older one only repeats more, so nothing depends on which
one is found after a crash, nor on the offsets that Faust has committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from consumers.score_records import decode_scores
from consumers.selection import Selection
from consumers.selection_state import SelectionState, restored, stored
from consumers.standings import standings_of, write_standings
from streams.errors import FrameError, UnavailableError
from streams.faults import fail_point
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.reign import Promoted, promotion_in
from streams.selecting import Select
from streams.state_folder import Folder

LOG = logging.getLogger("consumers.selector")
SAVE_EVERY_S = 1.0  # a second of scores is weighed again in some milliseconds
TELL_EVERY_S = 2.0


class Topic(Protocol):
    """One partition of one topic; the tests have one in memory."""

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Give (offset, value) of what there is from `start` on, up to `stop` or to the end as it is now."""

    def append(self, value: bytes) -> None:
        """Write a record; it is acknowledged when this returns."""


class Doors(NamedTuple):
    """What the desk reaches."""

    scores: Topic
    decisions: Topic
    folder: Folder
    metrics: RoleMetrics


class Desk:
    """See the module.

    Args:
        pipeline: it has `[select]`.
        doors: to Kafka, the state folder and Prometheus.
        clock: monotonic seconds.
    """

    def __init__(self, pipeline: Pipeline, doors: Doors, clock: Callable[[], float] = time.monotonic) -> None:
        assert pipeline.select is not None  # noqa: S101 - as whoever starts the role has checked
        self._settings: Select = pipeline.select
        self._pipeline, self._doors, self._clock = pipeline, doors, clock
        self._selection: Selection | None = None
        self._save_at = self._tell_at = 0.0
        self._told: tuple[int, str] | None = None
        self._counted: dict[tuple[str, str], int] = {}  # what Prometheus knows, and what was before this process

    @property
    def selection(self) -> Selection:
        """What is at hand; the desk is open."""
        assert self._selection is not None  # noqa: S101 - `open` comes first
        return self._selection

    @property
    def is_open(self) -> bool:
        """Whether there is a state at hand."""
        return self._selection is not None

    def open(self, saved: dict[str, Any] | None) -> None:
        """Begin with what was saved, None: with nothing.

        Raises:
            SnapshotError: it cannot be read.
        """
        state: SelectionState | None = None if saved is None else restored(saved)
        names = tuple(model.name for model in self._pipeline.models)
        heard = [] if state is None else self._promotions(state.decisions_to)
        self._selection = Selection(self._pipeline.serve.champion, names, self._settings, state, heard)
        found = self._selection.state
        self._counted = {("promotions", why): times for why, times in found.promotions.items()}
        self._counted |= {("uncompared", name): blocks for name, blocks in found.seen["number"].uncompared.items()}
        for offset, value in self._doors.scores.read(found.scores_from, found.scores_to):
            try:
                self._selection.again(offset, decode_scores(value))
            except FrameError:  # it was counted when it came
                continue
        self.hear()
        LOG.info("selecting: %s reigns, scores are read from %d on", self._selection.champion, found.scores_to)

    def _promotions(self, stop: int) -> list[Promoted]:
        """Read what was decided before an offset, from the first record on: some thousand records at most."""
        found = [promotion_in(value) for _, value in self._doors.decisions.read(0, stop)]
        return [record for record in found if record is not None]

    def hear(self) -> None:
        """Read P.decisions to its end."""
        before = self.selection.champion
        for offset, value in self._doors.decisions.read(self.selection.state.decisions_to):
            self.selection.hear(offset, value)
        if self.selection.champion != before:
            self._save_at = 0.0
            self._doors.metrics.unchallenged(self.selection.champion)

    def take(self, offset: int, value: bytes) -> dict[str, Any] | None:
        """Weigh a record of scores, and those before it that were left out; gives the state if it is to be saved."""
        to = self.selection.state.scores_to
        if offset > to:
            for one, missed in self._doors.scores.read(to, offset):
                self._weigh(one, missed)
        self._weigh(offset, value)
        self.tell()
        return self.saved() if self._clock() >= self._save_at else None

    def saved(self) -> dict[str, Any]:
        """Give the state to save."""
        self._save_at = self._clock() + SAVE_EVERY_S
        return stored(self.selection.saved())

    def _weigh(self, offset: int, value: bytes) -> None:
        try:
            record = decode_scores(value)
        except FrameError as error:
            LOG.warning("scores at offset %d are left out: %s", offset, error)
            self._doors.metrics.incident("scores_unread")
            self.selection.pass_over(offset)
            return
        while (decision := self.selection.take(offset, record)) is not None:
            self._decide(decision)

    def _decide(self, decision: Promoted) -> None:
        fail_point("select.before_decision")
        self._doors.decisions.append(msgspec.json.encode(decision))
        fail_point("select.after_decision")
        self.hear()
        reign = self.selection.state.reign
        won = "" if reign.id == decision.id else f", but {reign.champion} came first"
        LOG.warning("%s is to be champion, %s%s", decision.candidate, decision.why, won)
        self._save_at = self._tell_at = 0.0

    def _count(self, what: str, name: str, total: int, count: Callable[[str, int], None]) -> None:
        count(name, total - self._counted.get((what, name), 0))
        self._counted[what, name] = total

    def tell(self) -> None:
        """Say how everybody stands, to Prometheus and in the state folder; now and then, if something has changed."""
        point = self.selection.state.scores_to, self.selection.state.reign.id
        if self._clock() < self._tell_at or point == self._told:
            return
        self._tell_at, self._told = self._clock() + TELL_EVERY_S, point
        found, metrics = standings_of(self.selection), self._doors.metrics
        for one in found.challengers:
            metrics.evidence(one.candidate, one.bound)
            self._count("uncompared", one.candidate, one.uncompared, metrics.uncompared)
        for why, times in found.promotions.items():
            self._count("promotions", why, times, metrics.promoted)
        guard = found.guard
        fill = None
        if guard.thresholds is not None:
            fill = max(line / most for line, most in zip(guard.lines, guard.thresholds, strict=True))
        metrics.guard(fill, guard.expected_delay_events)
        try:
            write_standings(self._doors.folder, found)
        except (OSError, UnavailableError) as error:
            LOG.warning("standings are not written: %s", error)
            metrics.incident("standings_unwritten")
