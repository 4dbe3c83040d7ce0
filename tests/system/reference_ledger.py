"""What becomes of every event and label, worked out row by row from P.log with dicts and one sorted list of deadlines.

Written from PROTOCOL 11, 12 and 17 to 19; shares nothing with the kernels.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from typing import Any, NamedTuple

from streams.frames import AMENDED, EVENT, LABEL, MARK, MISSING, NO_OUTCOME, RETRACTED, SET
from streams.pipeline import Labels
from streams.tables import Table
from tests.system.flights_run import numbered

NEVER = -math.inf
Name = tuple[str, str]  # id and key


class ExampleRow(NamedTuple):
    """One row of P.examples; `at` is the row of the log that its vector belongs to, -1 for no vector."""

    kind: int
    number: int
    time: int
    name: Name
    label: float
    outcome: int
    at: int


class Known(NamedTuple):
    """A settled event: when it is forgotten, its number, and the label that stands (None = taken back)."""

    until: int
    number: int
    outcome: int
    label: float | None


class Clocks:
    """The smallest mark over the labels' sources, and over all; nothing while a sibling has not been heard of."""

    def __init__(self, claims: dict[int, dict[str, Any]]) -> None:
        self._kinds = {number: claim["kind"] for number, claim in claims.items() if claim["stream"] == "ingest"}
        self._marks = dict.fromkeys(self._kinds, NEVER)

    def hear(self, source: int, time_us: int) -> None:
        self._marks[source] = max(self._marks[source], time_us)

    def label_clock(self) -> float:
        return min(mark for source, mark in self._marks.items() if self._kinds[source] == "labels")

    def clock(self) -> float:
        return min(self._marks.values())


class Ledger:
    """The life of one log partition's events; `rows` is what it sends to P.examples, in order."""

    def __init__(self, labels: Labels) -> None:
        self._wait_us, self._keep_us = labels.wait_us, labels.keep_us
        self._missing = math.nan if labels.missing is None else labels.missing
        self.rows: list[ExampleRow] = []
        self.counts: Counter[str] = Counter()
        self._pending: dict[Name, ExampleRow] = {}
        self._deadlines: list[tuple[int, int, Name]] = []
        self._early: dict[Name, tuple[int, float]] = {}
        self._settled: dict[Name, Known] = {}
        self._clock = NEVER
        self._numbered = 0

    def take_event(self, at: int, time_us: int, name: Name) -> None:
        if name in self._pending or self._find_settled(name) is not None:
            self.counts["event duplicate"] += 1
            return
        event = ExampleRow(EVENT, self._numbered, time_us, name, math.nan, NO_OUTCOME, at)
        self._numbered += 1
        self.rows.append(event)
        early = self._early.pop(name, None)
        if early is not None and early[0] <= time_us + self._wait_us:
            self._settle(event, early[0], early[1], SET)
            self.counts["label joined"] += 1
            return
        self.counts["label too_late"] += early is not None
        self._pending[name] = event
        heapq.heappush(self._deadlines, (time_us + self._wait_us, event.number, name))

    def take_label(self, time_us: int, name: Name, label: float | None) -> None:
        if (settled := self._find_settled(name)) is not None:
            self._take_late(settled, time_us, name, label)
        elif name in self._pending and label is not None:
            event = self._pending[name]
            if time_us > event.time + self._wait_us:
                self.counts["label too_late"] += 1
                return
            del self._pending[name]
            self._settle(event, time_us, label, SET)
            self.counts["label joined"] += 1
        elif name in self._pending:
            self.counts["label retracted"] += 1
        else:
            self._take_early(time_us, name, label)

    def pass_time(self, clocks: Clocks) -> None:
        """Let everything fall due that the clocks have passed."""
        label_clock, self._clock = clocks.label_clock(), clocks.clock()
        while self._deadlines and self._deadlines[0][0] < label_clock:
            deadline_us, number, name = heapq.heappop(self._deadlines)
            if name in self._pending and self._pending[name].number == number:
                self._settle(self._pending.pop(name), deadline_us, self._missing, MISSING)
        for name in [name for name, (time_us, _) in self._early.items() if time_us + self._wait_us < self._clock]:
            del self._early[name]
            self.counts["label unknown"] += 1

    def finish(self) -> None:
        """Count what is left."""
        self.counts["event settled"] = sum(row.outcome in {SET, MISSING} for row in self.rows)
        self.counts["event pending"] = len(self._pending)
        self.counts["label waiting"] = len(self._early)

    def _find_settled(self, name: Name) -> Known | None:
        known = self._settled.get(name)
        return known if known is not None and known.until >= self._clock else None

    def _settle(self, event: ExampleRow, time_us: int, label: float, outcome: int) -> None:
        self.rows.append(event._replace(kind=LABEL, time=time_us, label=label, outcome=outcome))
        self._settled[event.name] = Known(time_us + self._keep_us, event.number, outcome, label)

    def _take_late(self, known: Known, time_us: int, name: Name, label: float | None) -> None:
        if known.outcome == MISSING:
            self.counts["label too_late"] += 1
        elif label == known.label:
            self.counts["label duplicate"] += 1
        else:
            outcome, told = (RETRACTED, math.nan) if label is None else (AMENDED, label)
            self.counts[f"label {'retracted' if label is None else 'amended'}"] += 1
            self.rows.append(ExampleRow(LABEL, known.number, time_us, name, told, outcome, -1))
            self._settled[name] = known._replace(label=label)

    def _take_early(self, time_us: int, name: Name, label: float | None) -> None:
        before = self._early.get(name)
        if label is None:
            self.counts["label retracted"] += 1 + (self._early.pop(name, None) is not None)
        elif before is None:
            self._early[name] = (time_us, label)
        elif before[1] == label:
            self.counts["label duplicate"] += 1
        else:
            self._early[name] = (time_us, label)
            self.counts["label amended"] += 1


def follow(log: Table, claims: dict[int, dict[str, Any]], labels: Labels) -> Ledger:
    """Give the finished ledger of one log partition."""
    ledger, clocks = Ledger(labels), Clocks(claims)
    taken = set(numbered(log).tolist())
    names = ("kind", "source", "time", "id", "key", "label", "outcome")
    rows = log.to_arrow()
    columns = (rows.column(name).to_pylist() for name in names)
    for at, (kind, source, time_us, id_, key, label, outcome) in enumerate(zip(*columns, strict=True)):
        if kind == MARK:
            clocks.hear(source, time_us)
        elif at not in taken:
            continue
        elif kind == EVENT:
            ledger.take_event(at, time_us, (id_, key))
        else:
            ledger.take_label(time_us, (id_, key), None if outcome == RETRACTED else label)
        ledger.pass_time(clocks)
    ledger.finish()
    return ledger
