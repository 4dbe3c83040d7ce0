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
        self._done: list[Blocks] = []

    def add(self, rows: Rows, loss_B: Vector, first_row: int) -> None:
        """Take rows just settled; `loss_B` is NaN where there is none, `first_row` is their place in the batch."""
        is_event_B = rows.kind == EVENT
        is_set_B = (rows.kind == LABEL) & (rows.outcome == SET)
        if self._learns_all:
            is_set_B |= (rows.kind == LABEL) & (rows.outcome == MISSING)
        stretch_B = np.where(is_event_B, rows.number // STRETCH_EVENTS, -1)
        found: list[Blocks] = []
        for source in np.unique(rows.source[is_set_B | is_event_B]).tolist():
            place = np.flatnonzero((rows.source == source) & (is_set_B | is_event_B))
            stretch_P = np.maximum.accumulate(stretch_B[place])
            found += self._add(source, place, stretch_P, is_set_B[place], rows.time, loss_B, first_row)
        if found:
            blocks = _joined(found)
            order = np.argsort(blocks.row, kind="stable")  # sources leave as their rows came
            self._done.append(Blocks._make(column[order] for column in blocks))

    def _add(
        self,
        source: int,
        place: Int64,
        stretch_P: Int64,
        is_set_P: npt.NDArray[np.bool_],
        time_B: Int64,
        loss_B: Vector,
        first_row: int,
    ) -> list[Blocks]:
        open_, found = self._open.setdefault(source, _Open()), list[Blocks]()
        cuts = np.flatnonzero(np.diff(stretch_P, prepend=open_.stretch) > 0)
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), place.size], strict=True):
            if start < place.size and stretch_P[start] > open_.stretch:
                found += open_.closed(source, first_row + int(place[start]))
                open_.stretch, open_.block = int(stretch_P[start]), 0
            taken = place[start:stop][is_set_P[start:stop]]
            begun = BLOCK_EVENTS - open_.count if open_.count else 0
            if begun and taken.size:
                few, taken = taken[:begun], taken[begun:]
                open_.put(loss_B[few], time_B[few])
                found += open_.closed(source, first_row + int(few[-1])) if open_.count == BLOCK_EVENTS else []
            whole = taken.size // BLOCK_EVENTS
            if whole:
                found.append(open_.whole(source, taken[: whole * BLOCK_EVENTS], time_B, loss_B, first_row))
            rest = taken[whole * BLOCK_EVENTS :]
            if rest.size:
                open_.put(loss_B[rest], time_B[rest])
        return found

    def take(self) -> Blocks:
        """Give the blocks that became complete since the last call."""
        done, self._done = self._done, []
        return _joined(done) if done else NO_BLOCKS

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

    def closed(self, source: int, row: int) -> list[Blocks]:
        """Let the block leave at a row, if it has anything, and begin the next."""
        if not self.count:
            return []
        times = [self.first_time_us], [self.last_time_us]
        left = _blocks([source], [self.number], *times, self.losses.reshape(1, BLOCK_EVENTS), [row])
        self.block += 1
        self.first_time_us = self.last_time_us = 0  # an empty block is the same whatever was before it
        self.count, self.losses = 0, np.full(BLOCK_EVENTS, np.nan, np.float32)
        return [left]

    def whole(self, source: int, place: Int64, time_B: Int64, loss_B: Vector, first_row: int) -> Blocks:
        """Let whole blocks leave at once; the open one is empty."""
        place_NE = place.reshape(-1, BLOCK_EVENTS)
        time_NE, count = time_B[place_NE], len(place_NE)
        number = self.number + np.arange(count)
        self.block += count
        times = time_NE.min(axis=1), time_NE.max(axis=1)
        losses = loss_B[place_NE].astype(np.float32)
        return _blocks(np.full(count, source), number, *times, losses, first_row + place_NE[:, -1])

    @property
    def number(self) -> int:
        """The block's number among those of its source."""
        return max(self.stretch, 0) * MOST_IN_STRETCH + self.block


def _blocks(
    source: npt.ArrayLike,
    block: npt.ArrayLike,
    first_time_us: npt.ArrayLike,
    last_time_us: npt.ArrayLike,
    losses: npt.NDArray[np.float32],
    row: npt.ArrayLike,
) -> Blocks:
    block, first, last, row = (np.asarray(column, np.int64) for column in (block, first_time_us, last_time_us, row))
    return Blocks(np.asarray(source, np.int32), block, first, last, losses, row)


def _joined(found: list[Blocks]) -> Blocks:
    return Blocks._make(np.concatenate(columns) for columns in zip(*found, strict=True))


NO_BLOCKS = _blocks([], [], [], [], np.zeros((0, BLOCK_EVENTS), np.float32), [])
