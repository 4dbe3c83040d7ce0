"""Scores of made-up candidates, as learn writes them, and selectors that are driven without Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

import msgspec
import numpy as np

from consumers.score_records import Block, Order, ScoresRecord
from consumers.selection import Selection
from consumers.selection_state import SelectionState, restored, stored
from streams.reign import Promoted, Reign, first_reign, followed, promotion_in
from streams.selecting import Select

CANDIDATES = ("base", "good", "slow")
SETTINGS = Select(span_us=5_000, max_age_us=60_000_000)  # an event a microsecond
EVENTS = 100


class Losses:
    """Losses of candidates on the same events: common noise, and each one's own level, which may change by block."""

    def __init__(self, seed: int = 0, spread: float = 0.05) -> None:
        self._rng, self._spread = np.random.default_rng(seed), spread

    def blocks(self, levels: Sequence[dict[str, float]]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Give for each block the losses of each candidate, [100]."""
        for at, level in enumerate(levels):
            common = self._rng.uniform(-0.2, 0.2, EVENTS)
            yield (
                at,
                {
                    name: np.clip(one + common + self._rng.normal(0.0, self._spread, EVENTS), 0.001, None)
                    for name, one in level.items()
                },
            )


def record(candidate: str, number: int, losses: np.ndarray, order: Order = "number", lineage: int = 0) -> ScoresRecord:
    """Give a record of one block of source 0."""
    first_us = 1_000_000 + EVENTS * number
    values = losses.astype("<f4")
    block = Block(0, number, int(np.isfinite(values).sum()), first_us, first_us + EVENTS - 1, values.tobytes())
    return ScoresRecord(candidate, lineage, 0, order, 5.0, 1_000, (block,))


def scores(
    levels: Sequence[dict[str, float]], seed: int = 0, orders: tuple[Order, ...] = ("number", "label")
) -> list[ScoresRecord]:
    """Give P.scores: of each block the label order first, for labels of most events come before the last one."""
    return [
        record(name, at, losses, order)
        for at, found in Losses(seed).blocks(levels)
        for order in reversed(orders)
        for name, losses in found.items()
    ]


class Log:
    """P.decisions in memory."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def write(self, decision: msgspec.Struct) -> None:
        """Append a record."""
        self.values.append(msgspec.json.encode(decision))

    def promotions(self) -> list[Promoted]:
        """Give the decisions about champions, void ones too."""
        return [msgspec.json.decode(value, type=Promoted) for value in self.values if b'"promoted"' in value]

    def reign(self, champion: str = "base", candidates: Sequence[str] = CANDIDATES) -> Reign:
        """Give the fold."""
        reign = first_reign(champion)
        for one in self.promotions():
            reign = followed(reign, one, candidates)
        return reign


class Selector:
    """A selector without Faust: it can be killed, and goes on from what was saved last."""

    def __init__(
        self,
        log: Log,
        settings: Select = SETTINGS,
        candidates: tuple[str, ...] = CANDIDATES,
        name: str = "s",
        champion: str = "base",
    ) -> None:
        self.log, self._settings, self._candidates = log, settings, candidates
        self._champion = champion
        self._ids = (f"{name}{number}" for number in count(1))
        self._saved: dict[str, Any] | None = None
        self.selection = self._made()

    def _made(self) -> Selection:
        state = None if self._saved is None else restored(msgspec.json.decode(msgspec.json.encode(self._saved)))
        heard = [] if state is None else [record for record in map(promotion_in, self._heard(state)) if record]
        name = partial(next, self._ids)
        return Selection(self._champion, self._candidates, self._settings, state, heard, name, lambda: 0)

    def _heard(self, state: SelectionState) -> list[bytes]:
        return self.log.values[: state.decisions_to]

    def hear(self) -> None:
        """Read the decisions to their end."""
        for offset, value in enumerate(self.log.values):
            self.selection.hear(offset, value)

    def read(self, records: Sequence[ScoresRecord], start: int, stop: int) -> None:
        """Weigh records, deciding as it goes."""
        for offset in range(start, stop):
            self.hear()
            while (decision := self.selection.take(offset, records[offset])) is not None:
                self.log.write(decision)
                self.hear()

    def save(self) -> None:
        """Save the state, as a table would."""
        self._saved = stored(self.selection.saved())

    def under(self, candidates: tuple[str, ...], champion: str) -> Selector:
        """Give one that goes on from what was saved last, under a pipeline file that names others."""
        heir = Selector(self.log, self._settings, candidates, "h", champion)
        heir._saved = self._saved
        heir.selection = heir._made()
        return heir

    def killed(self, records: Sequence[ScoresRecord]) -> int:
        """Begin again from what was saved; gives the first record to read."""
        self.selection = self._made()
        state = self.selection.state
        for offset in range(state.scores_from, state.scores_to):
            self.selection.again(offset, records[offset])
        return state.scores_to


def told(log: Log) -> list[tuple[str, str, int]]:
    """Say what was decided, without names and clocks: who, why, behind which record."""
    return [(one.candidate, one.why, int(one.numbers.get("scores_offset") or -1)) for one in log.promotions()]
