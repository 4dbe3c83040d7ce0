"""Shadowing: blocks of answers beside the same blocks of the candidates that gave them.

Of an event somebody has answered; what that candidate itself predicted at the event's row is in its block on P.scores,
if all 100 events of the block are settled there. Blocks of a source come in order from either side, so each side keeps
only what the other has not reached. A candidate's block that comes again, after a crash or as another lineage, is the
one that came first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.score_records import ScoresRecord
from models.block_arrays import BLOCK_EVENTS, Int64
from models.label_blocks import Blocks
from models.staleness import Int16s, Losses, StalenessCost
from streams.snapshots import part_of

MOST_ANSWERED = 20_000  # blocks of answers that wait for a candidate which is slower: about 15 MiB
MOST_OWN = 20_000  # blocks of candidates that wait for the answers; with more, no further ones are read

State = dict[str, npt.NDArray[np.generic]]
Place = tuple[str, int]  # a candidate and a source


class _Answered(NamedTuple):
    losses: Losses
    who: Int16s


class _Own(NamedTuple):
    losses: Losses
    last_time_us: int


class Shadowing:
    """Compares what was answered with what candidates have said themselves.

    Args:
        candidates: those of the pipeline file; answers of others are not compared.
        models: who has ever answered, by the index that events carry; it may grow.

    Attributes:
        cost: what came of it.
        uncompared: blocks of answers that never had their pair.
    """

    def __init__(self, candidates: tuple[str, ...], models: list[str]) -> None:
        self.cost = StalenessCost()
        self.uncompared = 0
        self._candidates, self.models = candidates, models
        self._open: dict[int, OrderedDict[int, Int16s]] = {}  # who has answered, by source and block
        self._left: dict[int, int] = {}  # the last block of answers, by source
        self._seen: dict[Place, int] = {}  # the last block of a candidate
        self._answered: dict[Place, OrderedDict[int, _Answered]] = {}
        self._own: dict[Place, OrderedDict[int, _Own]] = {}

    @property
    def is_full(self) -> bool:
        """Whether so much waits for answers that no more scores are to be read for now."""
        return sum(map(len, self._own.values())) >= MOST_OWN

    # From the examples

    def enter(self, source_N: npt.NDArray[np.int32], number_N: Int64, who_N: Int16s) -> None:
        """Note who has answered events."""
        block_N = number_N // BLOCK_EVENTS
        places = np.unique(np.stack([source_N.astype(np.int64), block_N]), axis=1)
        for source, block in places.T.tolist():
            is_here = (source_N == source) & (block_N == block)
            fresh = np.full(BLOCK_EVENTS, -1, np.int16)
            who = self._open.setdefault(source, OrderedDict()).setdefault(block, fresh)
            who[number_N[is_here] % BLOCK_EVENTS] = who_N[is_here]

    def leave(self, blocks: Blocks) -> None:
        """Take blocks of answers that became complete, in order."""
        for source, block, losses in zip(blocks.source.tolist(), blocks.block.tolist(), blocks.losses, strict=True):
            open_ = self._open.setdefault(source, OrderedDict())
            who = open_.get(block)
            while open_ and _first(open_) <= block:  # those before were not seen whole
                open_.popitem(last=False)
            self._left[source] = block
            names = (
                set() if who is None else {self.models[one] for one in np.unique(who[np.isfinite(losses)]) if one >= 0}
            )
            for name in self._candidates:
                own = self._pop_own(name, source, block)
                if who is not None and name in names:
                    self._pair(name, source, block, _Answered(losses.copy(), who), own)

    def _pop_own(self, name: str, source: int, block: int) -> _Own | None:
        """Give a candidate's block if it waits, and forget those before it."""
        waiting, found = self._own.get((name, source)), None
        while waiting and _first(waiting) <= block:
            number, own = waiting.popitem(last=False)
            found = own if number == block else None
        return found

    def _pair(self, name: str, source: int, block: int, answered: _Answered, own: _Own | None) -> None:
        place = name, source
        if own is not None:
            self.cost.compare(answered.losses, own.losses, answered.who, self.models.index(name))
        elif self._seen.get(place, -1) >= block:
            self.uncompared += 1
        else:
            waiting = self._answered.setdefault(place, OrderedDict())
            waiting[block] = answered
            if len(waiting) > MOST_ANSWERED:
                waiting.popitem(last=False)
                self.uncompared += 1

    def drop(self, source: int) -> None:
        """Forget a source that was replaced."""
        self._open.pop(source, None)
        self._left.pop(source, None)
        for name in self._candidates:
            self.uncompared += len(self._answered.pop((name, source), ()))
            self._own.pop((name, source), None)
            self._seen.pop((name, source), None)

    # From the scores

    def hear(self, record: ScoresRecord) -> None:
        """Take a record of P.scores, in order."""
        if record.order != "number" or record.candidate not in self._candidates:
            return
        for block in record.blocks:
            place = record.candidate, block.source
            if block.block <= self._seen.get(place, -1):
                continue
            self._seen[place] = block.block
            self._compare_waiting(place, block.block, block.values())
            if block.block > self._left.get(block.source, -1):
                own = _Own(block.values(), block.last_time_us)
                self._own.setdefault(place, OrderedDict())[block.block] = own

    def _compare_waiting(self, place: Place, block: int, losses: Losses) -> None:
        waiting = self._answered.get(place)
        while waiting and _first(waiting) <= block:
            number, answered = waiting.popitem(last=False)
            if number == block:
                self.cost.compare(answered.losses, losses, answered.who, self.models.index(place[0]))
            else:  # the candidate gives that block no more
                self.uncompared += 1

    def prune(self, before_us: int) -> None:
        """Forget candidates' blocks of events so old that their answers would have left if they were here."""
        for waiting in self._own.values():
            while waiting and waiting[_first(waiting)].last_time_us < before_us:
                waiting.popitem(last=False)

    # Snapshots

    def state(self) -> State:
        """Give what waits and what is known."""
        open_ = [(source, *one) for source, some in sorted(self._open.items()) for one in some.items()]
        answered = [(*place, *one) for place, some in sorted(self._answered.items()) for one in some.items()]
        own = [(*place, *one) for place, some in sorted(self._own.items()) for one in some.items()]
        about = {
            "left": sorted(self._left.items()),
            "seen": sorted((*place, block) for place, block in self._seen.items()),
            "open": [one[:2] for one in open_],
            "answered": [one[:3] for one in answered],
            "own": [(*one[:3], one[3].last_time_us) for one in own],
            "uncompared": self.uncompared,
        }
        state: State = {f"cost.{name}": array for name, array in self.cost.state().items()}
        state["about"] = np.frombuffer(msgspec.json.encode(about), np.uint8)
        state["open"] = np.array([who for *_, who in open_], np.int16).reshape(-1, BLOCK_EVENTS)
        state["answered.who"] = np.array([one.who for *_, one in answered], np.int16).reshape(-1, BLOCK_EVENTS)
        for name, some in (("answered", answered), ("own", own)):
            state[f"{name}.losses"] = np.array([one[3].losses for one in some], np.float32).reshape(-1, BLOCK_EVENTS)
        return state

    def restore(self, state: State) -> None:
        """Take back what `state` gave.

        Raises:
            KeyError, ValueError, ModelError: arrays are absent or do not fit together.
        """
        about = msgspec.json.decode(state["about"].tobytes())
        self.cost.restore(part_of(state, "cost."))
        self.uncompared, self._left = about["uncompared"], dict(about["left"])
        self._seen = {(name, source): block for name, source, block in about["seen"]}
        for (source, block), who in zip(about["open"], np.array(state["open"], np.int16), strict=True):
            self._open.setdefault(source, OrderedDict())[block] = who
        losses, who_N = np.array(state["answered.losses"], np.float32), np.array(state["answered.who"], np.int16)
        for (name, source, block), *one in zip(about["answered"], losses, who_N, strict=True):
            if name in self._candidates:  # the file may name it no more
                self._answered.setdefault((name, source), OrderedDict())[block] = _Answered(*one)
        losses = np.array(state["own.losses"], np.float32)
        for (name, source, block, last_us), one in zip(about["own"], losses, strict=True):
            if name in self._candidates:
                self._own.setdefault((name, source), OrderedDict())[block] = _Own(one, last_us)


def _first(waiting: Mapping[int, object]) -> int:
    return next(iter(waiting))
