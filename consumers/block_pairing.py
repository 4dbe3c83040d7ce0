"""Pairing: a block of the champion's losses and the same block of a challenger, when both have come.

Blocks of a candidate come in the order of their numbers, source by source, so a pair is complete with the later of the
two, and pairs of a source are in order too. A block waits at most `max_age` of event time for its pair, and of a source
a candidate has no more than MOST_WAITING waiting; what is given up is counted as uncompared. Each order of blocks (by
number, by label) has a pairing of its own.

What is remembered of blocks that came (`Seen`) is saved; blocks that wait are not, but read again from P.scores:
`earliest` says from where on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from consumers.score_records import Block
from models.paired_losses import PairedLosses

MOST_WAITING = 20_000  # of a candidate and source, some 15 MiB
MOST_AGES = 2  # a source that was silent for so many `max_age` is forgotten, and blocks as old are not compared


class Seen(msgspec.Struct):
    """What is saved of a pairing.

    Attributes:
        last: the last block that came, by candidate and source.
        newest_us: event time of the newest block of anybody, by source.
        floor: blocks up to this one were before the reign, by source.
        uncompared: blocks without a pair, by challenger.
    """

    last: dict[str, dict[int, int]] = {}
    newest_us: dict[int, int] = {}
    floor: dict[int, int] = {}
    uncompared: dict[str, int] = {}


class Held(NamedTuple):
    """A block that waits, and the offset of its record."""

    offset: int
    block: Block


Waiting = OrderedDict[int, Held]  # by the block's number, in its order


class Pairing:
    """Pairs the blocks of one order.

    Args:
        champion: whose blocks are in every pair.
        challengers: all others, in the order in which their pairs come.
        max_age_us: how long a block waits, in event time.
        seen: what is known of blocks before; it is kept up to date.

    Example:
        >>> pairing = Pairing("a", ("b",), 1_000_000, Seen())
        >>> block = Block(0, 0, 1, 1, 2, bytes(400))
        >>> list(pairing.take("a", 0, block)), len(list(pairing.take("b", 1, block)))
        ([], 1)
    """

    def __init__(self, champion: str, challengers: tuple[str, ...], max_age_us: int, seen: Seen) -> None:
        self.champion, self.challengers = champion, challengers
        self.seen = seen
        self._max_age_us = max_age_us
        self._held: dict[str, dict[int, Waiting]] = {name: {} for name in (champion, *challengers)}

    def take(self, candidate: str, offset: int, block: Block) -> Iterator[tuple[str, PairedLosses]]:
        """Give the pairs that a block completes, by challenger. One that came before gives none."""
        source, number = block.source, block.block
        last = self.seen.last.setdefault(candidate, {})
        before = last.get(source, -1)
        if number <= before or self._is_ancient(block):
            return
        last[source] = number
        self.seen.newest_us[source] = max(self.seen.newest_us.get(source, 0), block.last_time_us)
        if number > self.seen.floor.get(source, -1):
            yield from self._pairs(candidate, offset, block)
            if 0 <= before < number - 1 and candidate != self.champion:
                self._give_up(candidate, sum(before < one < number for one in self._of(self.champion, source)))
        self._release(source)

    def _pairs(self, candidate: str, offset: int, block: Block) -> Iterator[tuple[str, PairedLosses]]:
        source, number = block.source, block.block
        self._of(candidate, source)[number] = Held(offset, block)
        if candidate != self.champion:
            partner = self._of(self.champion, source).get(number)
            if partner is not None:
                yield candidate, paired(partner.block, block)
            return
        for challenger in self.challengers:
            waiting = self._of(challenger, source)
            while waiting and _first(waiting) < number:  # the champion gives these no more
                waiting.popitem(last=False)
                self._give_up(challenger, 1)
            if number in waiting:
                yield challenger, paired(block, waiting[number].block)

    def begin(self, champion: str, challengers: tuple[str, ...]) -> None:
        """Begin a reign: what its champion has said so far is no evidence in it."""
        self.champion, self.challengers = champion, challengers
        self.seen.floor = dict(self.seen.last.get(champion, {}))
        for sources in self._held.values():
            for source, waiting in sources.items():
                while waiting and _first(waiting) <= self.seen.floor.get(source, -1):
                    waiting.popitem(last=False)

    def renew(self, candidate: str) -> None:
        """Forget what waits of a candidate that is another model from here on."""
        if candidate != self.champion:
            self._give_up(candidate, sum(map(len, self._held[candidate].values())))
        self._held[candidate] = {}

    def again(self, candidate: str, offset: int, block: Block) -> None:
        """Let a block wait that was waiting when the state was saved; all are to come, in order."""
        if block.block > self.seen.floor.get(block.source, -1) and block.block <= self._last(candidate, block.source):
            waiting = self._of(candidate, block.source)
            if not waiting or next(reversed(waiting)) < block.block:
                waiting[block.block] = Held(offset, block)
                self._release(block.source, is_counted=False)

    def earliest(self, behind: int) -> int:
        """Give the offset of the first record that has a block which waits; `behind` if there is none."""
        rings = [waiting for sources in self._held.values() for waiting in sources.values() if waiting]
        return min((waiting[_first(waiting)].offset for waiting in rings), default=behind)

    def waiting(self) -> int:
        """Count the blocks that wait."""
        return sum(len(waiting) for sources in self._held.values() for waiting in sources.values())

    def prune(self) -> None:
        """Forget sources that have been silent for long: others took their place."""
        oldest_us = max(self.seen.newest_us.values(), default=0) - MOST_AGES * self._max_age_us
        gone = [source for source, time_us in self.seen.newest_us.items() if time_us < oldest_us]
        for known in (self.seen.newest_us, self.seen.floor, *self.seen.last.values(), *self._held.values()):
            for source in gone:
                known.pop(source, None)  # type: ignore[attr-defined]  # dictionaries of several kinds of values

    def _is_ancient(self, block: Block) -> bool:
        newest_us = max(self.seen.newest_us.values(), default=0)
        return block.last_time_us < newest_us - MOST_AGES * self._max_age_us

    def _release(self, source: int, *, is_counted: bool = True) -> None:
        """Let go of blocks of a source that have all their pairs, or have waited too long."""
        oldest_us = self.seen.newest_us.get(source, 0) - self._max_age_us
        slowest = min((self._last(name, source) for name in self.challengers), default=-1)
        for candidate, sources in self._held.items():
            waiting = sources.get(source)
            needed = slowest if candidate == self.champion else self._last(self.champion, source)
            while waiting:
                number = _first(waiting)
                if number > needed:
                    is_over = waiting[number].block.last_time_us < oldest_us or len(waiting) > MOST_WAITING
                    if not is_over:
                        break
                    for name in self._without(candidate, source, number) if is_counted else ():
                        self._give_up(name, 1)
                waiting.popitem(last=False)

    def _without(self, candidate: str, source: int, number: int) -> Iterable[str]:
        """Name the challengers that a block is given up for: those that have come to its source, but not as far."""
        if candidate != self.champion:
            return (candidate,)
        return [name for name in self.challengers if -1 < self._last(name, source) < number]

    def _give_up(self, challenger: str, blocks: int) -> None:
        if blocks:
            self.seen.uncompared[challenger] = self.seen.uncompared.get(challenger, 0) + blocks

    def _of(self, candidate: str, source: int) -> Waiting:
        return self._held[candidate].setdefault(source, OrderedDict())

    def _last(self, candidate: str, source: int) -> int:
        return self.seen.last.get(candidate, {}).get(source, -1)


def _first(waiting: Waiting) -> int:
    return next(iter(waiting))


def paired(champion: Block, challenger: Block) -> PairedLosses:
    """Put the losses of two models on the same events side by side."""
    place = champion.source, champion.block, champion.first_time_us, champion.last_time_us
    return PairedLosses(*place, champion.values(), challenger.values())
