"""What a reader remembers of the sources that write into its partition: last sequence taken, and marks.

A row is numbered by where it came from, and a reader drops the numbers it has seen: that alone makes effects
exactly-once (PROTOCOL 3-7, 11-12). Marks raise a maximum and are outside the numbering.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streams import frames
from streams.advice import rebuild_of
from streams.compiled import njit, straight
from streams.control import Claim, Control
from streams.errors import HoleError
from streams.frames import BEGINNING, MARK, Batch
from streams.tables import Table

EVENTS, LABELS = 0, 1
_GROUPS = {"events": EVENTS, "labels": LABELS, "rows": LABELS}
DONE, UNKNOWN, HOLE = 0, 1, 2

END_OF_TIME = np.int64(frames.END)
BEGINNING_OF_TIME = np.int64(frames.BEGINNING)
Int64s = npt.NDArray[np.int64]


class SourceMemory:
    """Drops repeats, finds holes and keeps the clocks of one input partition.

    Args:
        control: resolves source numbers to claims.
        is_log: whether ingest writes the partition; then the clocks wait for events' and labels' sources alike.
        has_labels: without, the events' marks are the clock of what is due (PROTOCOL 12).
        heard_needed: how many sources the partition has; None takes each claim's `siblings`.
    """

    def __init__(
        self, control: Control, *, is_log: bool = False, has_labels: bool = True, heard_needed: int | None = None
    ) -> None:
        self._control = control
        self._groups = _GROUPS if has_labels else _GROUPS | {"events": LABELS}
        self._heard_needed = heard_needed
        self.is_from_start = True
        self.repeats = 0
        self.jumps = 0
        self._claims: list[Claim] = []
        self.numbers = np.zeros(0, np.int32)
        self.last = np.zeros(0, np.int64)
        self.marks = np.zeros(0, np.int64)
        self._group = np.zeros(0, np.int8)
        self._is_gapless = np.zeros(0, np.bool_)
        self._is_alive = np.zeros(0, np.bool_)
        self._needed = np.array([1 if is_log and has_labels else 0, 1], np.int64)
        self.label_clock = BEGINNING
        self.clock = BEGINNING

    def admit(self, rows: Table) -> tuple[Batch, Int64s | None]:
        """Take rows in order; gives the batch without repeats and the indexes kept (None for all).

        Raises:
            HoleError: when a gapless source jumps; nothing of `rows` may be used then.
        """
        kind, source = rows.numbers("kind"), rows.numbers("source")
        sequence, time = rows.numbers("sequence"), rows.numbers("time")
        size = rows.num_rows
        keep = np.zeros(size, np.bool_)
        label_clock, clock = np.empty(size, np.int64), np.empty(size, np.int64)
        counts = np.zeros(2, np.int64)
        start = 0
        while start < size:
            table = (self.numbers, self.last, self.marks, self._group, self._is_gapless, self._is_alive, self._needed)
            now = np.array([self.label_clock, self.clock])
            code, at = _admit_kernel(
                start, kind, source, sequence, time, *table, self.is_from_start, now, keep, label_clock, clock, counts
            )
            self.label_clock, self.clock = now.tolist()
            if code == HOLE:
                self._raise_hole(int(source[at]), int(sequence[at]))
            if code == UNKNOWN:
                self._register(int(source[at]))
            start = at
        repeats, jumps = counts.tolist()
        self.repeats, self.jumps = self.repeats + repeats, self.jumps + jumps
        if not repeats:
            return Batch(rows, label_clock, clock), None
        kept = np.flatnonzero(keep)
        return Batch(rows.take(kept), label_clock[kept], clock[kept]), kept

    def _register(self, number: int) -> None:
        self._add(number, self._control.source(number), -1, BEGINNING)

    def _add(self, number: int, claim: Claim, last: int, mark: int) -> None:
        self._claims.append(claim)
        self.numbers = np.append(self.numbers, np.int32(number))
        self.last = np.append(self.last, np.int64(last))
        self.marks = np.append(self.marks, np.int64(mark))
        self._group = np.append(self._group, np.int8(self._groups[claim.kind]))
        self._is_gapless = np.append(self._is_gapless, claim.is_gapless)
        self._is_alive = np.array([not self._is_replaced(slot) for slot in range(len(self._claims))], np.bool_)
        for _, living in self.alive():
            group = self._groups[living.kind]
            siblings = max(c.siblings for _, c in self.alive() if self._groups[c.kind] == group)
            self._needed[group] = self._heard_needed or siblings
        now = np.empty(2, np.int64)
        _clocks_kernel(self.marks, self._group, self._is_alive, self._needed, now)
        self.label_clock, self.clock = int(now[0]), int(now[1])

    def _is_replaced(self, slot: int) -> bool:
        """Whether another topic, claimed later, or a newer generation of the partition has come (PROTOCOL 11)."""
        mine = self._claims[slot]
        for number, other in zip(self.numbers, self._claims, strict=True):
            if (other.stream, other.kind) == (mine.stream, mine.kind):
                if other.topic_id != mine.topic_id:
                    if number > self.numbers[slot]:
                        return True
                elif other.partition == mine.partition and other.generation > mine.generation:
                    return True
        return False

    def _raise_hole(self, number: int, sequence: int) -> None:
        claim = self._control.source(number)
        slot = int(np.flatnonzero(self.numbers == number)[0])
        message = (
            f"rows are missing: source {number} ({claim.stream}, partition {claim.partition}) went from sequence "
            f"{self.last[slot]} to {sequence}; the topic was damaged, run `{rebuild_of('features')}`"
        )
        raise HoleError(message)

    def alive(self) -> list[tuple[int, Claim]]:
        """Give the sources that have not been replaced by a newer generation or topic."""
        return [(int(n), c) for n, c, ok in zip(self.numbers, self._claims, self._is_alive, strict=True) if ok]

    def ended(self) -> list[int]:
        """Give the sources that have been replaced by a newer generation or topic."""
        return [int(number) for number, is_alive in zip(self.numbers, self._is_alive, strict=True) if not is_alive]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for the snapshot; the memory belongs to the position it is saved with."""
        flags = np.array([self.is_from_start, self.jumps, self.repeats], np.int64)
        return {"numbers": self.numbers.copy(), "last": self.last.copy(), "marks": self.marks.copy(), "flags": flags}

    def restore(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Take back what `state` gave; claims are resolved again from P.control."""
        for number, last, mark in zip(state["numbers"], state["last"], state["marks"], strict=True):
            self._add(int(number), self._control.source(int(number)), int(last), int(mark))
        self.is_from_start = bool(state["flags"][0])
        self.jumps, self.repeats = int(state["flags"][1]), int(state["flags"][2])


@njit
def _clocks_kernel(
    marks: Int64s,
    group: npt.NDArray[np.int8],
    is_alive: npt.NDArray[np.bool_],
    needed: Int64s,
    now: Int64s,
) -> None:
    """Smallest mark over labels' sources, and over all; BEGINNING while a sibling has not been heard of."""
    least = np.full(2, END_OF_TIME)
    heard = np.zeros(2, np.int64)
    for slot in range(marks.size):
        if is_alive[slot]:
            heard[group[slot]] += 1
            least[group[slot]] = min(least[group[slot]], marks[slot])
    for g in range(2):
        if heard[g] < needed[g]:
            least[g] = BEGINNING_OF_TIME
    now[0] = least[LABELS]
    now[1] = min(least[EVENTS], least[LABELS])


@straight
@njit
def _admit_kernel(
    start: int,
    kind: npt.NDArray[np.int8],
    source: npt.NDArray[np.int32],
    sequence: Int64s,
    time: Int64s,
    numbers: npt.NDArray[np.int32],
    last: Int64s,
    marks: Int64s,
    group: npt.NDArray[np.int8],
    is_gapless: npt.NDArray[np.bool_],
    is_alive: npt.NDArray[np.bool_],
    needed: Int64s,
    is_from_start: bool,
    now: Int64s,
    keep: npt.NDArray[np.bool_],
    label_clock: Int64s,
    clock: Int64s,
    counts: Int64s,
) -> tuple[int, int]:
    slot = -1
    for i in range(start, kind.size):
        if kind[i] > MARK:  # versions and commands have no source (PROTOCOL 6)
            keep[i] = True
            label_clock[i] = now[0]
            clock[i] = now[1]
            continue
        if slot < 0 or numbers[slot] != source[i]:
            slot = -1
            for s in range(numbers.size):
                if numbers[s] == source[i]:
                    slot = s
                    break
            if slot < 0:
                return UNKNOWN, i
        if kind[i] == MARK:
            keep[i] = True
            if time[i] > marks[slot]:
                marks[slot] = time[i]
                _clocks_kernel(marks, group, is_alive, needed, now)
        elif sequence[i] <= last[slot]:
            counts[0] += 1
        else:
            if is_gapless[slot] and sequence[i] != last[slot] + 1:
                if is_from_start:
                    return HOLE, i
                counts[1] += 1
            last[slot] = sequence[i]
            keep[i] = True
        label_clock[i] = now[0]
        clock[i] = now[1]
    return DONE, kind.size
