"""Archiving: the label rows of P.examples into the archive, for whoever runs it beside something else.

What is closed is durable before the step ends, and so before any snapshot that does not hold these rows any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from streams.archive_store import ArchiveStore
from streams.archiver import Archiver
from streams.features import columns
from streams.frames import Batch, Outgoing
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.snapshots import State
from streams.state_folder import Place


class ArchiveTask:
    """The state of the archive on the examples partition; a task of the worker loop, or a part of one.

    Args:
        pipeline: says what examples have, how long labels are waited for, and how long days are kept.
        state: where the archive lies; it is opened by the first step.
        aliases: sources of events that were numbered before partitions were parted anew (streams/event_numbers.py).
    """

    def __init__(self, pipeline: Pipeline, state: Place, aliases: Mapping[int, int] | None = None) -> None:
        self._state = state
        self._wait_us = pipeline.labels.wait_us
        self._keep_us = pipeline.archive.keep_us if pipeline.archive else None
        keep_us = self._wait_us + pipeline.labels.keep_us
        self._new_archiver = partial(Archiver, columns(pipeline), pipeline.task.classes, keep_us, aliases)
        self.archiver = self._new_archiver()
        self._store: ArchiveStore | None = None
        self._noted = 0  # damaged days that were counted

    @property
    def store(self) -> ArchiveStore:
        """The archive, as it was listed once."""
        if self._store is None:
            self._store = ArchiveStore(self._state, self._wait_us, self._keep_us)
        return self._store

    @property
    def taken(self) -> int:
        """How many rows were taken, counted likewise: the number of the next one."""
        return self.archiver.archived + self.archiver.collected

    @property
    def rows(self) -> int:
        """How many rows were closed, counted from the first one ever: trainings find all before this one."""
        return self.archiver.archived

    def process(self, batch: Batch) -> list[Outgoing]:
        """Take rows in order and write what is closed; there is nothing to put out.

        Raises:
            ArchiveError: other rows are there under their numbers.
            UnavailableError: there is no room, or an object store does not answer.
        """
        for closed in self.archiver.take(batch):
            self.store.put(closed)
        return []

    def tick(self) -> bool:
        """Do one thing that is due, if any: merge a day that is over, or remove one; says whether one was done.

        Merging a million rows takes some seconds, in which nothing else goes on.
        """
        return self.store.tidy()

    def renew(self, given_up: State | None = None) -> None:
        """Go on behind rows that are gone; before anything is taken.

        What a state that was given up has collected is archived yet, unless it was written behind that snapshot: then
        the rows between are not known any more, and what is there is gone on from.
        """
        if given_up:
            self.restore(given_up)
            if self.rows >= self.store.next_row():
                return
            self.archiver = self._new_archiver()
        self.archiver.renew(self.store.next_row())

    def is_sound(self) -> bool:
        """Nothing here can be unsound."""
        return True

    def state(self) -> State:
        """Give what is not in the archive yet, and the times of events that may get label rows."""
        return self.archiver.state()

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        self.archiver.restore(state)

    def measure(self, metrics: RoleMetrics) -> None:
        """Set what the archive holds."""
        segments = self.store.segments
        rows, size_bytes = (sum(getattr(one, what) for one in segments) for what in ("rows", "size_bytes"))
        metrics.archived(rows, size_bytes, len(segments))
        metrics.incident("archive_damaged", len(self.store.damaged) - self._noted)
        self._noted = len(self.store.damaged)
