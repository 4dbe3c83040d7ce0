"""Blocks in the order of labels: what the guard reads, for it must not wait for the latest label of a hundred events.

A block is up to 100 set labels of one source, in the order of their rows. Candidates that began at different rows must
cut the same blocks, so each source begins one anew at every thousandth event number, and blocks are counted from there:
the last one before that is shorter. A label whose event a candidate has not seen takes its place with NaN.

What leaves depends on the rows and their order alone, not on how they were cut into batches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.block_arrays import BLOCK_EVENTS, Int32, Int64
from models.learner import State, Vector
from models.pending import Rows
from streams.frames import EVENT, LABEL, MISSING, SET

STRETCH_EVENTS = 1_000  # a block in eleven or so is a short one
MOST_IN_STRETCH = 1 << 20  # blocks; labels of many earlier events may come in one stretch


class Blocks(NamedTuple):
    """Blocks that became complete, in that order; `row` is the row that completed each."""

    source: Int32
    block: Int64
    first_time_us: Int64
    last_time_us: Int64
    losses: npt.NDArray[np.float32]  # [n, 100], NaN where no label counted
    row: Int64


class LabelBlocks:
    """The open block of each source, and those that became complete since `take`.

    Args:
        learns_all: whether events count that are settled without a label, for their loss needs none.

    Example:
        >>> blocks, number = LabelBlocks(), np.arange(200)
        >>> kind, zero = np.full(200, 1, np.int8), np.zeros(200, np.int8)
        >>> blocks.add(Rows(kind, np.zeros(200, np.int32), number, number, np.ones(200), zero), np.ones(200), 0)
        >>> blocks.take().block.tolist()
        [0, 1]
    """

    def __init__(self, *, learns_all: bool = False) -> None:
        self._learns_all = learns_all
        self._open: dict[int, _Open] = {}
        self._done: list[tuple[int, int, int, int, npt.NDArray[np.float32], int]] = []

    def add(self, rows: Rows, loss_B: Vector, first_row: int) -> None:
        """Take rows just settled; `loss_B` is NaN where there is none, `first_row` is their place in the batch."""
        is_event_B = rows.kind == EVENT
        is_set_B = (rows.kind == LABEL) & (rows.outcome == SET)
        if self._learns_all:
            is_set_B |= (rows.kind == LABEL) & (rows.outcome == MISSING)
        stretch_B = np.where(is_event_B, rows.number // STRETCH_EVENTS, -1)
        done = len(self._done)
        for source in np.unique(rows.source[is_set_B | is_event_B]).tolist():
            place = np.flatnonzero((rows.source == source) & (is_set_B | is_event_B))
            self._add(
                source, place, np.maximum.accumulate(stretch_B[place]), is_set_B[place], rows.time, loss_B, first_row
            )
        self._done[done:] = sorted(self._done[done:], key=lambda one: one[5])  # by row: sources leave as they came

    def _add(
        self,
        source: int,
        place: Int64,
        stretch_P: Int64,
        is_set_P: npt.NDArray[np.bool_],
        time_B: Int64,
        loss_B: Vector,
        first_row: int,
    ) -> None:
        open_ = self._open.setdefault(source, _Open())
        cuts = np.flatnonzero(np.diff(stretch_P, prepend=open_.stretch) > 0) if place.size else place
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), place.size], strict=True):
            if start < place.size and stretch_P[start] > open_.stretch:
                self._close(source, open_, first_row + int(place[start]))
                open_.stretch, open_.block = int(stretch_P[start]), 0
            taken = place[start:stop][is_set_P[start:stop]]
            while taken.size:
                few, taken = np.split(taken, [BLOCK_EVENTS - open_.count])
                open_.put(loss_B[few], time_B[few])
                if open_.count == BLOCK_EVENTS:
                    self._close(source, open_, first_row + int(few[-1]))

    def _close(self, source: int, open_: _Open, row: int) -> None:
        """Let the open block leave, if it has anything."""
        if open_.count:
            block = max(open_.stretch, 0) * MOST_IN_STRETCH + open_.block
            self._done.append((source, block, open_.first_time_us, open_.last_time_us, open_.losses, row))
            open_.block += 1
            open_.count, open_.losses = 0, np.full(BLOCK_EVENTS, np.nan, np.float32)

    def take(self) -> Blocks:
        """Give the blocks that became complete since the last call."""
        done, self._done = self._done, []
        source, block, first, last, losses, row = zip(*done, strict=True) if done else ((),) * 6
        return Blocks(
            np.array(source, np.int32),
            np.array(block, np.int64),
            np.array(first, np.int64),
            np.array(last, np.int64),
            np.array(losses, np.float32).reshape(-1, BLOCK_EVENTS),
            np.array(row, np.int64),
        )

    def drop(self, source: int) -> None:
        """Forget a source that was replaced."""
        self._open.pop(source, None)

    def state(self) -> State:
        """Give the open blocks."""
        found = sorted(self._open.items())
        columns = {
            "source": np.array([source for source, _ in found], np.int64),
            "places": np.array(
                [[one.stretch, one.block, one.count, one.first_time_us, one.last_time_us] for _, one in found], np.int64
            ).reshape(-1, 5),
            "losses": np.array([one.losses for _, one in found], np.float64).reshape(-1, BLOCK_EVENTS),
        }
        return {f"labels.{name}": column for name, column in columns.items()}

    def restore(self, state: State) -> None:
        """Take back what `state` gave; an older snapshot has none, and blocks begin with the next stretch.

        Raises:
            KeyError, ValueError: when arrays do not fit together.
        """
        self._open, self._done = {}, []
        if "labels.source" not in state:
            return
        sources = np.array(state["labels.source"], np.int64)
        places = np.array(state["labels.places"], np.int64).reshape(sources.size, 5)
        losses = np.array(state["labels.losses"], np.float32).reshape(sources.size, BLOCK_EVENTS)
        for source, place, values in zip(sources.tolist(), places.tolist(), losses, strict=True):
            stretch, block, count, first_us, last_us = place
            self._open[source] = _Open(stretch, block, count, first_us, last_us, values.copy())


class _Open:
    """The block of one source that is not complete."""

    def __init__(
        self,
        stretch: int = -1,
        block: int = 0,
        count: int = 0,
        first_time_us: int = 0,
        last_time_us: int = 0,
        losses: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.stretch, self.block, self.count = stretch, block, count
        self.first_time_us, self.last_time_us = first_time_us, last_time_us
        self.losses = np.full(BLOCK_EVENTS, np.nan, np.float32) if losses is None else losses

    def put(self, loss_N: Vector, time_us_N: Int64) -> None:
        """Take so many labels; there is room for them."""
        first, last = int(time_us_N.min()), int(time_us_N.max())
        self.first_time_us = first if self.count == 0 else min(self.first_time_us, first)
        self.last_time_us = last if self.count == 0 else max(self.last_time_us, last)
        self.losses[self.count : self.count + loss_N.size] = loss_N
        self.count += loss_N.size
