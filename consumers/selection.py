"""Selection: who is to be champion, as a function of the records of P.scores and P.decisions. No Kafka, no files.

Each block is paired (block_pairing.py), weighed (models/evidence.py) or watched (models/guard.py), and then judged
(judging.py). A decision counts behind the block that led to it, and says which one that was. So whoever reads the
scores again, after a crash or as a second selector, meets the decision at the same block, finds it made, and weighs
what follows in the same reign: it takes no other decision, and none twice. Where decisions compete, the one that comes
first in P.decisions counts.

    take(record) -> None: all of it is weighed
                 -> a decision: write it, `hear` P.decisions until it has come, and take the same record again
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from consumers.block_pairing import Pairing, Seen
from consumers.gates import Known
from consumers.judging import Wish, broken, overtaken
from consumers.score_records import Order, ScoresRecord
from consumers.selection_state import Pair, Place, SelectionState, place_of
from models.evidence import Evidence, renewed, taken
from models.guard import Guard, enthroned, watched
from models.paired_losses import LEAST_EVENTS, PairedLosses
from streams.reign import Promoted, first_reign, followed, promotion_in, reign_named
from streams.selecting import Select

ORDERS: tuple[Order, ...] = ("number", "label")


class Selection:
    """Weighs scores and judges.

    Args:
        champion: of the pipeline file.
        candidates: all of the pipeline file, in its order.
        settings: of `[select]`.
        state: what an earlier one has saved; `again` then gives it the blocks that were waiting.
        heard: the promotions that were heard by then, from the first on: the file may name other models now.
        name: names a reign.
        clock: wall clock in microseconds, for people.
    """

    def __init__(
        self,
        champion: str,
        candidates: tuple[str, ...],
        settings: Select,
        state: SelectionState | None = None,
        heard: Iterable[Promoted] = (),
        name: Callable[[], str] = lambda: uuid.uuid4().hex,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self.candidates, self.settings = candidates, settings
        self.state = state or _begun(champion)
        known, pairs, before = self.state.known, self.state.pairs, self.state.reign
        self.state.reign = reign_named(before.id, champion, heard, candidates)
        self.state.known = {candidate: known.get(candidate, Known()) for candidate in candidates}
        self.state.pairs = {name: pairs.get(name, self._new_pair()) for name in self.challengers}
        self.pairings = {
            order: Pairing(self.champion, self.challengers, settings.max_age_us, self.state.seen[order])
            for order in ORDERS
        }
        if self.champion != before.champion:
            self._begin_reign(Guard())
        elif self.state.reign.last != before.last:
            self.state.guard = Guard()
        self._name, self._clock = name, clock
        self._place = Place(self.state.scores_to, -1)  # the last block that was weighed

    @property
    def champion(self) -> str:
        """Who reigns, where scores were weighed to."""
        return self.state.reign.champion

    @property
    def challengers(self) -> tuple[str, ...]:
        """All others."""
        return tuple(name for name in self.candidates if name != self.champion)

    def hear(self, offset: int, value: bytes) -> bool:
        """Take a record of P.decisions, in order; says whether it began another reign at once. Repeats do nothing."""
        if offset < self.state.decisions_to:
            return False
        self.state.decisions_to = offset + 1
        record = promotion_in(value)
        if record is None:
            self._note(value)
            return False
        tip = self.state.ahead[-1].id if self.state.ahead else self.state.reign.id
        if record.follows != tip:
            return False
        self.state.ahead.append(record)
        return self._go_on()

    def take(self, offset: int, record: ScoresRecord) -> Promoted | None:
        """Weigh a record of P.scores, in order; stops behind a block that leads to a decision and gives that."""
        if offset < self.state.scores_to:
            return None
        is_begun = self._place.offset == offset and self._place.block >= 0
        is_known = is_begun or self._meet(record)
        for at in range(self._place.block + 1 if is_begun else 0, len(record.blocks) if is_known else 0):
            compared, lost = self._weigh(record, offset, at)
            self._place = Place(offset, at)
            if self._go_on() or self.state.ahead or self.state.reign.is_pinned:
                continue
            wish = broken(self.state, lost, self.settings) or overtaken(self.state, compared, self.settings)
            if wish is not None:
                return self._decision(wish)
        self._place = Place(offset + 1, -1)
        self.state.scores_to = offset + 1
        return None

    def pass_over(self, offset: int) -> None:
        """Leave out a record of P.scores that cannot be read."""
        self.state.scores_to = max(self.state.scores_to, offset + 1)
        self._place = Place(self.state.scores_to, -1)

    def again(self, offset: int, record: ScoresRecord) -> None:
        """Take back what was waiting of a record before `scores_to`."""
        if record.candidate in self.candidates and record.lineage == self.state.known[record.candidate].lineage:
            for block in record.blocks:
                self.pairings[record.order].again(record.candidate, offset, block)

    def saved(self) -> SelectionState:
        """Give the state between two records; it is no copy."""
        for pairing in self.pairings.values():
            pairing.prune()
        self.state.scores_from = min(pairing.earliest(self.state.scores_to) for pairing in self.pairings.values())
        self.state.pairs = {name: _pruned(pair, self.state.seen) for name, pair in self.state.pairs.items()}
        return self.state

    def _note(self, value: bytes) -> None:
        """Take what other decisions say of a candidate's health, and of its training."""
        try:
            told = _told(value)
        except msgspec.MsgspecError:
            return
        known = self.state.known.get(told.candidate)
        if known is None:
            return
        if told.decision == "quarantined":
            known.illness = told.reason or "it raised"
        elif told.decision in {"released", "restarted"}:
            known.illness = ""
        elif told.decision == "trained" and told.seconds is not None:
            known.training_s = told.seconds

    def _meet(self, record: ScoresRecord) -> bool:
        """Take who has made a record; False: nobody of the file, or a model that there is no more."""
        known = self.state.known.get(record.candidate)
        if known is None or record.lineage < known.lineage:
            return False
        if 0 <= known.lineage < record.lineage:
            self._renew(record.candidate)
            known.illness, known.slow = "", 0
        known.lineage, known.size_bytes, known.unpublished_s = record.lineage, record.bytes, record.unpublished_s
        known.measured(record.predict_p99_us, self.settings)
        return True

    def _renew(self, candidate: str) -> None:
        """Let a candidate that is another model from here on earn evidence of its own."""
        changed = self.challengers if candidate == self.champion else (candidate,)
        for name in changed:
            evidence = renewed(self.state.pairs[name].evidence)
            self.state.pairs[name] = Pair(evidence, Guard(is_reigning=False))
        if candidate == self.state.reign.last:
            self.state.guard = Guard()
        for pairing in self.pairings.values():
            pairing.renew(candidate)

    def _weigh(self, record: ScoresRecord, offset: int, at: int) -> tuple[list[str], float]:
        """Weigh a block; gives whose evidence has changed, and the share of answers that the champion owes."""
        block, state, compared, lost = record.blocks[at], self.state, [], 0.0
        if record.order == "number":
            self._pass(record.candidate, block.last_time_us)
        for challenger, losses in self.pairings[record.order].take(record.candidate, offset, block):
            pair = state.pairs[challenger]
            if record.order == "number":
                pair.evidence = taken(pair.evidence, losses, self.settings, len(self.challengers))
                compared.append(challenger)
                continue
            pair.guard = watched(pair.guard, losses.exchanged(), self.settings)
            if challenger == state.reign.last:
                state.guard = watched(state.guard, losses, self.settings)
            lost = max(lost, _lost(losses))
        return compared, lost

    def _pass(self, candidate: str, time_us: int) -> None:
        """Take how far a candidate has come in event time, and who is behind it."""
        state = self.state
        state.time_us = max(state.time_us, time_us)
        for name, known in state.known.items():
            if name == candidate:
                known.time_us = max(known.time_us, time_us)
            if known.time_us >= state.time_us:
                known.owes_from_us = 0
            elif not known.owes_from_us:
                known.owes_from_us = state.time_us

    def _go_on(self) -> bool:
        """Let reigns begin whose place is reached."""
        has_changed = False
        while self.state.ahead:
            place = place_of(self.state.ahead[0])
            if place is not None and place > self._place:
                break
            self._crown(self.state.ahead.pop(0))
            has_changed = True
        return has_changed

    def _crown(self, record: Promoted) -> None:
        state, before = self.state, self.champion
        state.reign = followed(state.reign, record, self.candidates)
        state.promotions[record.why] = state.promotions.get(record.why, 0) + 1
        if self.champion != before:  # else it was pinned or let go, and the evidence goes on
            self._begin_reign(enthroned(state.pairs[self.champion].guard))

    def _begin_reign(self, guard: Guard) -> None:
        """Let all evidence begin anew, with the guard of the one who reigns from here on."""
        self.state.guard = guard
        self.state.pairs = {name: self._new_pair() for name in self.challengers}
        self.state.promoted_us = self.state.time_us
        for pairing in self.pairings.values():
            pairing.begin(self.champion, self.challengers)

    def _new_pair(self) -> Pair:
        return Pair(Evidence(challengers=len(self.challengers)), Guard(is_reigning=False))

    def _decision(self, wish: Wish) -> Promoted:
        """Make the record of a decision, which names the block behind which it counts."""
        place = {"scores_offset": float(self._place.offset), "scores_block": float(self._place.block)}
        return Promoted(
            id=self._name(),
            follows=self.state.reign.id,
            candidate=wish.candidate,
            lineage=self.state.known[wish.candidate].lineage,
            why=wish.why,
            after_us=self.state.time_us,
            time_us=self._clock(),
            numbers={**wish.numbers, **place},
            thresholds=wish.thresholds,
        )


class _Told(msgspec.Struct):
    decision: str = ""
    candidate: str = ""
    reason: str = ""
    seconds: float | None = None


_told = msgspec.json.Decoder(_Told).decode


def _begun(champion: str) -> SelectionState:
    return SelectionState(first_reign(champion), Guard(), {}, {}, {order: Seen() for order in ORDERS})


def _lost(losses: PairedLosses) -> float:
    """Give the share of a challenger's answers on whose events the champion has none that is a number."""
    is_answered = np.isfinite(losses.challenger)
    answered = int(np.count_nonzero(is_answered))
    if answered < LEAST_EVENTS:
        return 0.0
    return float(np.count_nonzero(is_answered & ~np.isfinite(losses.champion))) / answered


def _pruned(pair: Pair, seen: dict[Order, Seen]) -> Pair:
    """Let evidence and guard forget the sources that their pairing has forgotten."""
    evidence, guard = pair.evidence, pair.guard
    by_number, by_label = seen["number"].newest_us, seen["label"].newest_us
    if evidence.last_block.keys() - by_number.keys():
        evidence = msgspec.structs.replace(
            evidence,
            last_block={source: block for source, block in evidence.last_block.items() if source in by_number},
            newest_us={source: time_us for source, time_us in evidence.newest_us.items() if source in by_number},
        )
    if guard.last_block.keys() - by_label.keys():
        known = {source: block for source, block in guard.last_block.items() if source in by_label}
        guard = msgspec.structs.replace(guard, last_block=known)
    return Pair(evidence, guard)
