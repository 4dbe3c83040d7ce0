"""Evidence: is a challenger better than the champion? One value per pair, fed with their losses block by block.

For each block, in the order of event time, y is the mean of d = champion's loss - challenger's loss over the events
that count on both sides, and the pair's value keeps a pyramid of y (pyramid.py). The challenger is promoted when a
lower bound of the mean of d, that holds at all times at once, lies above the margin:

    mean(y) - z* sqrt(V / t) - C ln(1/a) / N  >  margin

z* is the critical value after t blocks (confidence.py), V the long-run variance, N = 100 t, C the largest loss. The
last term is for losses so rare and large that none may have been seen yet. a is the share of alpha that this challenger
has in this epoch. Evidence begins anew with every epoch, and forgets nothing inside one: with exponential forgetting
the bound is crossed by chance again and again.

All functions are pure, and what they give depends on the blocks and their order alone. A block that comes again
changes nothing, because the value holds the last block of each source. What is promised is asymptotic, and simulated
(docs/evidence.md).
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from models.block_order import Summed, released
from models.confidence import critical_value, rare_losses, share_of_alpha, students
from models.paired_losses import BLOCK_EVENTS, LEAST_EVENTS, PairedLosses, mean_of
from models.pyramid import Floats, Spread, unpacked
from streams.selecting import Select

LEAST_BLOCKS = 100  # before the bound means anything; 10,000 events
LEAST_VALUES = 50  # of a level of the pyramid, to judge by it
MOST_CORRELATION = 0.3  # of the coarsest level: from here on its means are no independent ones
EPOCH_EVENTS = 100_000  # an epoch has as many at least,
EPOCH_SPANS = 10  # and is as long at least

Word = Literal["too early", "correlated", "not proven", "promoted"]


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one pair, under 1 KB as JSON with up to four sources; each block that waits is 90 bytes more.

    Attributes:
        epoch: its number in this reign, from 1 on.
        challengers: how many there were when it began.
        blocks: taken in this epoch.
        skipped: blocks since the beginning with too few events that count on both sides.
        first_time_us: of the epoch's first event, 0 without a block.
        last_time_us: of its last.
        champion_total: the sum over blocks of the champion's mean loss; its mean is shown, not judged.
        challenger_total: the same of the challenger.
        pyramid: the packed sums of y.
        last_block: by source.
        newest_us: the latest time of each source.
        waiting: blocks that other sources have not come past yet.
    """

    epoch: int = 1
    challengers: int = 1
    blocks: int = 0
    skipped: int = 0
    first_time_us: int = 0
    last_time_us: int = 0
    champion_total: float = 0.0
    challenger_total: float = 0.0
    pyramid: bytes = b""
    last_block: dict[int, int] = {}
    newest_us: dict[int, int] = {}
    waiting: tuple[Summed, ...] = ()

    @property
    def events(self) -> int:
        """How many events the epoch's blocks have."""
        return BLOCK_EVENTS * self.blocks


class Verdict(msgspec.Struct, frozen=True):
    """What evidence says, with all numbers; those that can not be told yet are None.

    Attributes:
        word: the verdict.
        mean: of d over the epoch; above 0 the challenger is better.
        bound: what the mean of d is above, but for a chance of `a`.
        threshold: what the bound must be above, the margin.
        champion_loss: on average.
        challenger_loss: on average.
        z: the critical value for a known spread.
        z_star: z after Student's correction.
        sigma: the root of the long-run variance: y has this standard deviation, or would if blocks were independent.
        long_run_variance: V.
        level: the coarsest level of the pyramid with enough values.
        correlation: r of that level.
        blocks: t.
        events: N.
        span_us: event time seen.
        epoch: k.
        challengers: m.
        a: the share of alpha.
    """

    word: Word
    mean: float | None
    bound: float | None
    threshold: float
    champion_loss: float | None
    challenger_loss: float | None
    z: float | None
    z_star: float | None
    sigma: float | None
    long_run_variance: float | None
    level: int | None
    correlation: float | None
    blocks: int
    events: int
    span_us: int
    epoch: int
    challengers: int
    a: float


def taken(evidence: Evidence, pair: PairedLosses, settings: Select, challengers: int = 1) -> Evidence:
    """Take a block into account; one that was taken before, or an older one of its source, changes nothing.

    Blocks count by event time (block_order.py). `challengers` is how many there are now: it counts where an epoch
    begins. Some 60 us, and as much for each block whose turn it is besides.
    """
    if pair.block <= evidence.last_block.get(pair.source, -1):
        return evidence
    newest_us = max(pair.last_time_us, evidence.newest_us.get(pair.source, pair.last_time_us))
    evidence = msgspec.structs.replace(
        evidence,
        last_block={**evidence.last_block, pair.source: pair.block},
        newest_us={**evidence.newest_us, pair.source: newest_us},
    )
    champion, challenger = pair.counted(settings)
    waiting, skipped = evidence.waiting, evidence.skipped + 1
    if champion.size >= LEAST_EVENTS:
        means = mean_of(champion), mean_of(challenger)
        waiting += (Summed(pair.last_time_us, pair.source, pair.block, pair.first_time_us, *means),)
        skipped -= 1
    ready, waiting = released(waiting, evidence.newest_us, settings.max_age_us)
    evidence = msgspec.structs.replace(evidence, waiting=waiting, skipped=skipped)
    for block in ready:
        evidence = _with_block(evidence, block, settings, challengers)
    return evidence


def _with_block(evidence: Evidence, block: Summed, settings: Select, challengers: int) -> Evidence:
    if not evidence.blocks or is_over(evidence, settings):
        begun = msgspec.structs.replace(renewed(evidence), challengers=challengers, waiting=evidence.waiting)
        evidence = msgspec.structs.replace(begun, first_time_us=block.first_time_us, last_time_us=block.last_time_us)
    pyramid = unpacked(evidence.pyramid, evidence.blocks)
    pyramid.add(block.champion - block.challenger)
    return msgspec.structs.replace(
        evidence,
        blocks=pyramid.count,
        first_time_us=min(evidence.first_time_us, block.first_time_us),
        last_time_us=max(evidence.last_time_us, block.last_time_us),
        champion_total=evidence.champion_total + block.champion,
        challenger_total=evidence.challenger_total + block.challenger,
        pyramid=pyramid.packed(),
    )


def is_over(evidence: Evidence, settings: Select) -> bool:
    """Say whether the epoch has all it is to have: the next block begins another."""
    span_us = evidence.last_time_us - evidence.first_time_us
    return evidence.events >= EPOCH_EVENTS and span_us >= EPOCH_SPANS * settings.span_us


def renewed(evidence: Evidence) -> Evidence:
    """Begin anew in this reign, for an epoch that is over or a challenger that is another model now.

    The epoch counts on: however often a challenger is made anew, its shares of alpha never add up to more than its own.
    """
    return Evidence(
        epoch=evidence.epoch + (1 if evidence.blocks else 0),
        challengers=evidence.challengers,
        skipped=evidence.skipped,
        last_block=evidence.last_block,
        newest_us=evidence.newest_us,
    )


def verdict(evidence: Evidence, settings: Select) -> Verdict:
    """Say what the evidence amounts to. About 150 us."""
    pyramid, t = unpacked(evidence.pyramid, evidence.blocks), evidence.blocks
    a = share_of_alpha(settings.alpha, evidence.epoch, evidence.challengers)
    spread = pyramid.spread(LEAST_VALUES)
    bound = z = z_star = variance = level = correlation = None
    if spread is not None:
        level, correlation, variance = spread.level, float(spread.correlation), float(spread.long_run_variance)
        z, z_star = critical_values(spread, t, a)
        bound = float(lower_bound(pyramid.mean(), spread, t, a, settings))
    span_us = evidence.last_time_us - evidence.first_time_us
    return Verdict(
        word=_word(t, span_us, correlation, bound, settings),
        mean=float(pyramid.mean()) if t else None,
        bound=bound,
        threshold=settings.margin,
        champion_loss=evidence.champion_total / t if t else None,
        challenger_loss=evidence.challenger_total / t if t else None,
        z=z,
        z_star=z_star,
        sigma=None if variance is None else math.sqrt(variance),
        long_run_variance=variance,
        level=level,
        correlation=correlation,
        blocks=t,
        events=evidence.events,
        span_us=span_us,
        epoch=evidence.epoch,
        challengers=evidence.challengers,
        a=a,
    )


def critical_values(spread: Spread, t: int, a: float) -> tuple[float, float]:
    """Give z and z* after t blocks."""
    z = critical_value(t, a)
    return z, students(z, spread.values - 1)


def lower_bound(mean_S: Floats, spread: Spread, t: int, a: float, settings: Select) -> Floats:
    """Give what the mean of d is above, but for a chance of `a`; of several series side by side."""
    _, z_star = critical_values(spread, t, a)
    unseen = rare_losses(settings.largest_loss, a, BLOCK_EVENTS * t)
    bound_S: Floats = mean_S - z_star * np.sqrt(spread.long_run_variance / t) - unseen
    return bound_S


def _word(t: int, span_us: int, correlation: float | None, bound: float | None, settings: Select) -> Word:
    if t < LEAST_BLOCKS or span_us < settings.span_us or correlation is None or bound is None:
        return "too early"
    if correlation >= MOST_CORRELATION:
        return "correlated"
    return "promoted" if bound > settings.margin else "not proven"
