"""The scoreboard: predictions that wait for their label, and blocks of losses for the evidence.

An event's name is (source, number); numbers of a source rise by one. Its prediction waits here until its label row
comes and is scored then. A block is 100 consecutive numbers of one source; it leaves when all of them are settled,
and after the source's earlier blocks (evidence goes by event number, not by label arrival: early labels are biased).

What was said of a settled event is remembered until the clock has passed its label row's time + keep: a label that is
amended or retracted by then corrects the metrics since the start, though no block.

Invariants: an event is settled once; a block leaves once, in order, and only if it was seen whole; what leaves depends
on the rows and their order alone, not on how they were cut into batches. Memory is that of the open and the remembered
blocks, 100 events each.
"""

from __future__ import annotations

import numpy as np

from models.block_arrays import (
    BLOCK_EVENTS,
    CLOCK,
    FREE,
    SETTLED_TO,
    SOURCES,
    STOPPED,
    Int32,
    Int64,
    arrays_state,
    forget_kernel,
    longer_rings,
    more_nodes,
    more_sources,
    new_nodes,
    new_sources,
    nodes_of,
    restored_arrays,
)
from models.drift import LossDrift
from models.label_blocks import NO_BLOCKS, Blocks, LabelBlocks
from models.learner import PREDICT, Actions, State, Vector
from models.pending import (
    AT_JUMP,
    COUNTERS,
    DROPPED,
    JUMPS,
    NO_NODE,
    NO_RING,
    NO_SOURCE,
    PENDING,
    PREDICTED,
    SCORED,
    UNLABELLED,
    Rows,
    plan_kernel,
    settle_kernel,
)
from models.scoring import Scores
from streams.drift import Drift
from streams.errors import ModelError
from streams.frames import BEGINNING


class Scoreboard:
    """Pairs predictions with labels. One per candidate.

    Use per batch, while rows are left: `plan` says what to do with each row, the learner does it, `settle` takes the
    scores.

    Example:
        >>> board, scores = Scoreboard(), Scores()
        >>> kind, number = np.array([0, 1], np.int8), np.array([0, 0])
        >>> rows = Rows(kind, np.zeros(2, np.int32), number, number, np.array([np.nan, 1.0]), kind - np.int8(1))
        >>> board.plan(rows, 0)
        (2, array([1, 2], dtype=int8))
        >>> _ = board.settle(rows, 0, 2, np.array([0.75, np.nan]), scores)
        >>> scores.since_start().log_loss.__round__(4), board.count("scored")
        (0.2877, 1)
    """

    def __init__(
        self,
        outputs: int = 1,
        keep_us: int = 0,
        *,
        is_relearned: bool = False,
        learns_all: bool = False,
        tells_labels: bool = True,
        may_be_silent: bool = False,
    ) -> None:
        """Begin without events.

        Args:
            outputs: how many numbers a prediction has.
            keep_us: how long a settled event is remembered.
            is_relearned: whether an amended label is to be learned.
            learns_all: whether models learn all that passes, with a label or without.
            tells_labels: whether blocks in the order of labels are made, too: a fifth of a fast learner's time.
            may_be_silent: whether an event may have no prediction (its first number is NaN): it is never scored.
        """
        self.drift = LossDrift(Drift(loss=()))
        self.labels = LabelBlocks(learns_all=learns_all)
        self.tells_labels = tells_labels
        self._outputs, self._learns_all, self._may_be_silent = outputs, learns_all, may_be_silent
        self._keep_us, self._is_relearned = keep_us, is_relearned
        self.counters: Int64 = np.zeros(len(COUNTERS), np.int64)
        self._sizes: Int64 = np.array([0, 0, 0, BEGINNING, 0], np.int64)
        self._sources = new_sources(4, 16)
        self._nodes = new_nodes(0, outputs)
        self._place: Int64 = np.zeros(0, np.int64)
        self._time = self._place  # of a label's event
        self._ready = np.zeros(0, np.int32), np.zeros(0, np.int64)  # room for all nodes and the rows that complete them

    def plan(self, rows: Rows, start: int, clock_B: Int64 | None = None) -> tuple[int, Actions]:
        """Enter the events from row `start` on and find the labels' predictions.

        Args:
            rows: a batch.
            start: the first row to take.
            clock_B: how the clock stands after each row (PROTOCOL 12); without it nothing is forgotten.

        Returns:
            Where it stopped (the end, except before a jump of numbers) and each row's action from `start` on: predict
            for new events, learn for labels of predicted events, else skip. Call `settle` for these rows before
            planning on.
        """
        size = rows.kind.size
        clock = np.full(size, BEGINNING) if clock_B is None else clock_B
        action, self._time = np.zeros(size - start, np.int8), np.zeros(size - start, np.int64)
        self._place = np.full(size - start, -1, np.int64)
        stop = start
        while stop < size:
            stop = plan_kernel(
                rows,
                clock,
                self._keep_us,
                self._is_relearned,
                start,
                stop,
                self._sources,
                self._nodes,
                self._sizes,
                self.counters,
                action,
                self._place,
                self._time,
                self._learns_all,
            )
            why = int(self._sizes[STOPPED])
            if why == AT_JUMP and stop > start:
                break
            self._make_room(why, rows, stop)
        return stop, action[: stop - start]

    def settle(self, rows: Rows, start: int, stop: int, score_B: Vector, scores: Scores) -> Blocks:
        """Store the predictions and score the labels of rows `start` to `stop`; gives the blocks they complete.

        `score_B` is [B], or [B, S] where a prediction has several numbers. Where a loss raises an alarm of `drift` it
        stops: call it again for the rows from `settled_to` on.
        """
        node, row = self._ready
        ready = settle_kernel(
            rows,
            start,
            stop,
            score_B.reshape(len(score_B), self._outputs),
            self._place,
            self._time,
            self._sources,
            self._nodes,
            scores.tally,
            self.counters,
            self._sizes,
            self.drift.detectors,
            node,
            row,
            self._learns_all,
            self._may_be_silent,
        )
        if self.tells_labels:
            self._add_labels(rows, start, self.settled_to)
        self._place, self._time = self._place[self.settled_to - start :], self._time[self.settled_to - start :]
        blocks = self._take(node[:ready], row[:ready])
        if not self._place.size:  # what is planned may yet correct what its clock has not forgotten
            forget_kernel(self._sources, self._nodes, self._sizes)
        return blocks

    def _add_labels(self, rows: Rows, start: int, stop: int) -> None:
        """Let losses that were settled count in the order of their labels, too."""
        place = self._place[: stop - start]
        loss_B = np.full(stop - start, np.nan)
        loss_B[place >= 0] = self._nodes.loss.ravel()[place[place >= 0]]
        self.labels.add(Rows._make(column[start:stop] for column in rows), loss_B, start)

    @property
    def settled_to(self) -> int:
        """The row behind the last one that was settled."""
        return int(self._sizes[SETTLED_TO])

    def renew(self, rows: Rows, start: int, action_B: Actions) -> None:
        """Let another model predict from row `start` on, for which there is a plan already (`action_B`).

        What the one before has said is scored as it comes, but is neither evidence nor drift of the new one.
        """
        sources = self._sources
        sources.since[...] = sources.next
        ahead = start + np.flatnonzero(action_B == PREDICT)
        for name in np.unique(rows.source[ahead]).tolist():
            place = np.flatnonzero(sources.name[: self._sizes[SOURCES]] == name)
            sources.since[place] = rows.number[ahead[rows.source[ahead] == name]].min()
        self.drift.clear()

    def drop(self, source: int) -> int:
        """Forget a source that was replaced; gives how many predictions were still pending. Unknown: 0."""
        places = np.flatnonzero(self._sources.name[: self._sizes[SOURCES]] == source)
        self.labels.drop(source)
        if not places.size:
            return 0
        place = int(places[0])
        pending = self._clear(place)
        for column in self._sources:
            column[place:-1] = column[place + 1 :]
        self._sources.name[-1], self._sources.ring[-1] = -1, -1
        self._nodes.owner[self._nodes.owner > place] -= 1
        self._sizes[SOURCES] -= 1
        return pending

    def pending(self) -> int:
        """Give how many predictions wait for a label row."""
        return int(self.counters[PREDICTED] - self.counters[[SCORED, UNLABELLED, DROPPED]].sum())

    def count(self, name: str) -> int:
        """Give one of COUNTERS."""
        return int(self.counters[COUNTERS.index(name)])

    def state(self) -> State:
        """Give sources, open and remembered blocks, in an order that depends on the rows alone."""
        own: State = {"counters": self.counters.copy(), "clock": self._sizes[CLOCK : CLOCK + 1].copy()}
        return arrays_state(self._sources, self._nodes, int(self._sizes[SOURCES])) | self.labels.state() | own

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            ModelError: when arrays are absent or do not fit together.
        """
        try:
            sources, nodes = restored_arrays(state, self._outputs)
            used, count = state["sources.name"].size, nodes.block.size
            self.labels.restore(state)
            self.counters = np.array(state["counters"], np.int64).reshape(len(COUNTERS))
            clock_us = int(np.array(state["clock"], np.int64).reshape(1)[0])
        except (KeyError, ValueError, IndexError) as error:
            raise ModelError(f"the scoreboard is not whole in this snapshot: {error}") from error
        self._sources, self._nodes = sources, nodes
        self._ready = np.zeros(count, np.int32), np.zeros(count, np.int64)
        self._sizes[:] = used, 0, 0, clock_us, 0

    def _take(self, node: Int32, row: Int64) -> Blocks:
        """Read complete blocks out; one that was not seen from its first number is no evidence."""
        if not node.size:
            return NO_BLOCKS
        nodes, sources = self._nodes, self._sources
        owner, block = nodes.owner[node], nodes.block[node]
        whole = block * BLOCK_EVENTS >= np.maximum(sources.first, sources.since)[owner]
        times = nodes.first_time[node][whole], nodes.last_time[node][whole]
        losses = nodes.loss[node[whole]].astype(np.float32)
        return Blocks(sources.name[owner][whole], block[whole], *times, losses, row[whole])

    def _release(self, node: Int32) -> None:
        height = int(self._sizes[FREE])
        self._nodes.free[height : height + node.size] = node
        self._sizes[FREE] += node.size

    def _clear(self, place: int) -> int:
        node = nodes_of(self._sources, place)
        pending = int((self._nodes.status[node] == PENDING).sum())
        self._release(node)
        self._sources.ring[place] = -1
        self.counters[DROPPED] += pending
        return pending

    def _make_room(self, why: int, rows: Rows, stop: int) -> None:
        sources, nodes = self._sources, self._nodes
        if why == NO_NODE:
            size = nodes.left.size
            self._nodes = more_nodes(nodes)
            room = self._nodes.left.size
            self._ready = np.zeros(room, np.int32), np.zeros(room, np.int64)
            self._release(np.arange(size, room, dtype=np.int32))
        elif why == NO_SOURCE:
            self._sources = more_sources(sources)
        elif why == NO_RING:
            self._sources = longer_rings(sources, nodes, int(self._sizes[SOURCES]))
        elif why == AT_JUMP:
            place = int(np.flatnonzero(sources.name[: self._sizes[SOURCES]] == rows.source[stop])[0])
            self._clear(place)
            self.counters[JUMPS] += 1
            sources.first[place] = sources.next[place] = rows.number[stop]
            sources.head[place] = sources.tail[place] = rows.number[stop] // BLOCK_EVENTS
