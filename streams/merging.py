"""Merging partitions by time: which rows of each partition may be taken now (PROTOCOL 10).

A worker that reads several partitions takes row by row the one with the smallest (running maximum of time within the
partition; events' topic before labels'; partition). It costs no small tables: every partition gives all its rows up
to the common horizon at once, and the outputs are merged by the same key afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.building import Located
from streams.compiled import bare, inlined, njit, straight
from streams.frames import BEGINNING, END, EVENT, LABEL, MISSING, NO_OUTCOME
from streams.intrinsics import load_8, load_64
from streams.layouts import ReusedMemory
from streams.message_kernels import ITEMS, PARTS
from streams.routing import NOWHERE, begin_kernel
from streams.tables import Table, join

LIVE_AGE_US = 5_000_000  # a head younger than this is live: nothing waits for it

Int64s = npt.NDArray[np.int64]


class Bound(NamedTuple):
    """A merge key, compared as a tuple: nothing that comes later in the partition is smaller."""

    time: int
    rank: int
    partition: int


class Intake:
    """Rows of one partition that were read but not yet taken, with their merge keys.

    Args:
        rank: 0 for the events' topic and inner topics, 1 for the labels' topic.
        partition: the partition's number.
    """

    def __init__(self, rank: int, partition: int) -> None:
        self.rank = rank
        self.partition = partition
        self.mark = BEGINNING
        self._parts: list[_Part] = []
        self._memory = ReusedMemory()  # for what is taken: the rows of one step are gone when the next takes its own
        self._last_key = BEGINNING
        self._end = -1
        self.rows = 0

    def add(self, rows: Table | Located, offsets: Int64s, stamps: Int64s, end: int) -> None:
        """Append rows in order.

        Args:
            rows: of what one poll gave, decoded or located.
            offsets: for each row the Kafka offset of its message.
            stamps: for each row its message's Kafka timestamp, us.
            end: the offset after the last message read, also if that message gave no row.
        """
        self._end = end
        if rows.num_rows == 0:
            return
        keys = merge_keys(rows, self._last_key)
        self._last_key = int(keys[-1])
        self._parts.append(_Part(rows, keys, offsets, stamps))
        self.rows += rows.num_rows

    def pass_to(self, end: int) -> None:
        """Go on to an offset; those before it hold no record. Only without rows."""
        self._end = end

    @property
    def head(self) -> Bound:
        """The merge key of the first row; only while there are rows."""
        return Bound(int(self._parts[0].keys[0]), self.rank, self.partition)

    def key(self, index: int) -> Bound:
        """The merge key of the row at `index`."""
        for part in self._parts:
            if index < part.keys.size:
                return Bound(int(part.keys[index]), self.rank, self.partition)
            index -= part.keys.size
        raise IndexError(index)

    @property
    def head_stamp(self) -> int:
        """The Kafka timestamp (us) of the first row; only while there are rows."""
        return int(self._parts[0].stamps[0])

    @property
    def bound(self) -> Bound:
        """Nothing that comes after the rows at hand has a smaller merge key than this."""
        return Bound(max(self._last_key, self.mark), self.rank, self.partition)

    @property
    def position(self) -> int:
        """The offset of the first message not wholly taken; -1 before anything was read."""
        return int(self._parts[0].offsets[0]) if self.rows else self._end

    def count(self, limit: Bound) -> int:
        """How many rows have a merge key at or below `limit`."""
        side: Literal["left", "right"] = "right" if (self.rank, self.partition) <= limit[1:] else "left"
        total = 0
        for part in self._parts:
            found = int(part.keys.searchsorted(limit.time, side=side))
            total += found
            if found < part.keys.size:
                break
        return total

    def take(self, count: int) -> tuple[Table, Int64s]:
        """Take the first `count` > 0 rows as one batch, with their merge keys."""
        taken: list[_Part] = []
        left = count
        while left:
            first = self._parts[0]
            size = first.keys.size
            if size <= left:
                taken.append(self._parts.pop(0))
            else:
                taken.append(first.slice(0, left))
                self._parts[0] = first.slice(left, size)
                size = left
            left -= size
        self.rows -= count
        if len(taken) == 1 and isinstance(taken[0].rows, Table):
            return taken[0].rows, taken[0].keys
        keys = taken[0].keys if len(taken) == 1 else np.concatenate([part.keys for part in taken])
        return join([part.rows for part in taken], self._memory), keys


class _Part(NamedTuple):
    """Rows that lie together, and for each its merge key, and the offset and stamp of its message."""

    rows: Table | Located
    keys: Int64s
    offsets: Int64s
    stamps: Int64s

    def slice(self, start: int, stop: int) -> _Part:
        """Give some of the rows, without a copy."""
        span = slice(start, stop)
        return _Part(self.rows.slice(start, stop - start), self.keys[span], self.offsets[span], self.stamps[span])


def merge_keys(rows: Table | Located, before: int) -> Int64s:
    """Running maximum of time over events and settled labels; other rows are taken at once with what came before."""
    places, keys = rows.layout.places, np.empty(rows.num_rows, np.int64)
    _merge_keys_kernel(rows.source(), places["kind"], places.get("outcome", -1), places["time"], before, keys)
    return keys


@straight
@njit
def _merge_keys_kernel(source: Int64s, kind: int, outcome: int, time: int, before: int, keys: Int64s) -> None:
    """Fill in the keys of the rows of a source, of which three columns are named by number, -1 for none."""
    start = source[source.size - 1]
    kinds, times = source[kind * PARTS + ITEMS] + start, source[time * PARTS + ITEMS] + 8 * start
    outcomes = source[outcome * PARTS + ITEMS] + start if outcome >= 0 else 0
    highest = before
    for i in range(keys.size):
        own = load_8(kinds + i)
        if own == EVENT or (own == LABEL and (outcomes == 0 or is_settled_kernel(load_8(outcomes + i)))):
            highest = max(highest, load_64(times + 8 * i))
        keys[i] = highest


@inlined
def is_settled_kernel(outcome: int) -> bool:
    """Whether a label row has its outcome from a label, or none; by its byte, of which -1 is 255."""
    return outcome < MISSING or outcome == NO_OUTCOME & 0xFF


class Aligner:
    """Decides how many rows each partition may give now.

    Args:
        is_replay: an empty partition is waited for without limit while its mark is behind the smallest head.
        align_wait_us: how long a worker that is catching up waits for an empty partition.
    """

    def __init__(self, *, is_replay: bool, align_wait_us: int) -> None:
        self._is_replay = is_replay
        self._align_wait_us = align_wait_us
        self._blocked_since: int | None = None

    def counts(self, intakes: Sequence[Intake], now_us: int) -> list[int]:
        """Give for each partition how many of its rows may be taken; all zero means: wait for more input."""
        full = [intake for intake in intakes if intake.rows]
        if not full:
            return [0] * len(intakes)
        if not self._is_replay and not self._is_catching_up(full, now_us):
            return [intake.rows for intake in intakes]
        counts = self._counts_below(intakes, skip_empty=False)
        if any(counts):
            self._blocked_since = None
            return counts
        if self._is_replay:
            return counts
        if self._blocked_since is None:
            self._blocked_since = now_us
        if now_us - self._blocked_since < self._align_wait_us:
            return counts
        self._blocked_since = None
        return self._counts_below(intakes, skip_empty=True)

    def _is_catching_up(self, full: Sequence[Intake], now_us: int) -> bool:
        """Whether the smallest head is no longer live."""
        if all(now_us - intake.head_stamp < LIVE_AGE_US for intake in full):
            return False  # whichever is the smallest: to find it takes longer, and this is what a live worker meets
        return now_us - min(full, key=lambda intake: intake.head).head_stamp >= LIVE_AGE_US

    def capped(self, intakes: Sequence[Intake], counts: list[int], most: int) -> list[int]:
        """Cut a take to about `most` rows at one common merge key, so that the order stays what it would have been."""
        if sum(counts) <= most:
            return counts
        share = max(1, most // sum(count > 0 for count in counts))
        limit = min(i.key(min(share, count) - 1) for i, count in zip(intakes, counts, strict=True) if count)
        return [min(count, i.count(limit)) if count else 0 for i, count in zip(intakes, counts, strict=True)]

    def _counts_below(self, intakes: Sequence[Intake], *, skip_empty: bool) -> list[int]:
        counts = []
        bounds = sorted(Bound(END, 1, END) if skip_empty and not i.rows else i.bound for i in intakes)
        for intake in intakes:
            others = bounds[1] if len(bounds) > 1 and bounds[0] == intake.bound else bounds[0]
            limit = others if len(intakes) > 1 else Bound(END, 1, END)
            counts.append(intake.count(limit) if intake.rows else 0)
        return counts


def merge_order(keys: list[Int64s], intakes: list[Intake]) -> npt.NDArray[np.int64] | None:
    """Order of the concatenated outputs of several partitions, stable by merge key; None if there is but one."""
    if len(keys) == 1:
        return None
    ranks = np.concatenate([np.full(k.size, i.rank, np.int64) for k, i in zip(keys, intakes, strict=True)])
    partitions = np.concatenate([np.full(k.size, i.partition, np.int64) for k, i in zip(keys, intakes, strict=True)])
    return np.lexsort((partitions, ranks, np.concatenate(keys)))


def spread_order(
    keys: list[Int64s], targets: list[Int64s], intakes: list[Intake], partitions: int
) -> tuple[Int64s, Int64s]:
    """Order of the concatenated outputs of several partitions, by target and within each as `merge_order` has it.

    Args:
        keys: merge keys, ascending within each output.
        targets: where each row goes, or NOWHERE.
        intakes: where each output comes from.
        partitions: how many targets there are.

    Returns:
        The order, and for each target where in it its rows end.
    """
    ranked = sorted(range(len(keys)), key=lambda i: (intakes[i].rank, intakes[i].partition))
    ends = np.cumsum([part.size for part in keys])
    all_keys, all_targets = (keys[0], targets[0]) if len(keys) == 1 else (np.concatenate(keys), np.concatenate(targets))
    stops = ends[ranked]
    heads = stops - np.array([keys[i].size for i in ranked])
    order, filled = np.empty(all_keys.size, np.int64), np.zeros(partitions, np.int64)
    _spread_kernel(all_keys, all_targets, heads, stops, order, filled)
    return order, filled


@bare
def _spread_kernel(keys: Int64s, targets: Int64s, heads: Int64s, stops: Int64s, order: Int64s, filled: Int64s) -> None:
    """Merge runs that begin at `heads`, of equal keys the first run's first, straight into their targets' places."""
    begin_kernel(targets, filled)
    while True:
        best, second = -1, -1
        for run in range(heads.size):
            if heads[run] < stops[run]:
                if best < 0 or keys[heads[run]] < keys[heads[best]]:
                    best, second = run, best
                elif second < 0 or keys[heads[run]] < keys[heads[second]]:
                    second = run
        if best < 0:
            return
        limit = keys[heads[second]] - (second < best) if second >= 0 else END
        at = heads[best]
        while at < stops[best] and keys[at] <= limit:
            target = targets[at]
            if target != NOWHERE:
                order[filled[target]] = at
                filled[target] += 1
            at += 1
        heads[best] = at
