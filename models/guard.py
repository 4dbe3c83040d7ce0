"""The guard: takes a promotion back at once when the champion is suddenly worse than the last one.

It watches d' = champion's loss - last champion's loss, clipped to twice the last champion's mean loss L0, event by
event in the order of labels: evidence by event number would wait for the latest label. Two lines (cusum.py) with
kappa = 0.1 L0 and 0.25 L0; the steeper notices large faults sooner, the flatter smaller ones.

Before it can, it learns what is usual: L0 from 5,000 events, then the long-run variance of d' from the next 20,000
(pyramid.py). A challenger has a guard from the beginning, as if it were champion and the champion the last one, which
learns again and again; from the promotion on what it has learned stays, for a fault must not raise the threshold that
it has to pass. If there was too little by then it goes on learning, and the lines run as soon as L0 is known.

Pure functions over one value per pair, as in evidence.py; a block that comes again changes nothing. Whether a champion
has slowly become worse than the last is for evidence to say, with the roles exchanged.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from models.cusum import Floats, expected_delay, line_path, threshold
from models.paired_losses import BLOCK_EVENTS, LEAST_EVENTS, PairedLosses, mean_of
from models.pyramid import Pyramid, unpacked
from streams.selecting import Select

LOSS_EVENTS = 5_000  # for L0, which no threshold depends on much
SPREAD_BLOCKS = 200  # 20,000 events for the variance of d'
LEAST_VALUES = 16  # of a level of the pyramid
CLIP = 2.0  # times L0: a fault of one event says no more than this
KAPPAS = (0.1, 0.25)  # times L0
LEAST_LOSS = 1e-3  # L0 is at least this share of the largest loss: a perfect champion is no measure

Word = Literal["learning", "ready", "quiet", "alarm"]


class Usual(msgspec.Struct, frozen=True, array_like=True):
    """What is usual: L0, the long-run variance of one event's d', and the mean of d' if the champion lost twice."""

    loss: float
    variance: float
    doubled: float


class Guard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the guard of one pair knows, under 1 KB as JSON.

    Attributes:
        is_reigning: whether the model it watches is the champion.
        settled: events that counted on both sides, since the promotion if there was one.
        loss_events: how many of them L0 is learned from.
        loss_total: the sum of the last champion's losses on these.
        blocks: in the pyramid.
        pyramid: the packed sums of the blocks' means of d'.
        spread_events: in these blocks.
        doubled_total: the sum over them of what d' would be if each of the champion's losses were doubled.
        usual: what was learned last.
        lines: where the two lines stand.
        alarm_at: the settled event that raised the alarm; it stays until a new guard begins.
        last_block: by source.
    """

    is_reigning: bool = True
    settled: int = 0
    loss_events: int = 0
    loss_total: float = 0.0
    blocks: int = 0
    pyramid: bytes = b""
    spread_events: int = 0
    doubled_total: float = 0.0
    usual: Usual | None = None
    lines: tuple[float, ...] = (0.0,) * len(KAPPAS)
    alarm_at: int | None = None
    last_block: dict[int, int] = {}


class GuardVerdict(msgspec.Struct, frozen=True):
    """What the guard says, with all numbers; those that are not known yet are None.

    Attributes:
        word: "learning" as long as it does not know what is usual, "ready" for a promotion, else "quiet" or "alarm".
        settled: events so far.
        loss: L0, the last champion's.
        clip: the most that one event adds.
        sigma: the root of the long-run variance of d', per event.
        kappas: what the lines take off d'.
        lines: where they stand.
        thresholds: where each raises the alarm.
        expected_delay_events: settled events until an alarm if each of the champion's losses were doubled, None also
            where that would raise none: a champion that was far better than the last is then no worse than that.
        alarm_at: the settled event that raised the alarm.
    """

    word: Word
    settled: int
    loss: float | None
    clip: float | None
    sigma: float | None
    kappas: tuple[float, ...] | None
    lines: tuple[float, ...]
    thresholds: tuple[float, ...] | None
    expected_delay_events: float | None
    alarm_at: int | None


def enthroned(guard: Guard) -> Guard:
    """Give the guard of a challenger that is champion from here on."""
    return msgspec.structs.replace(guard, is_reigning=True, settled=0)


def watched(guard: Guard, pair: PairedLosses, settings: Select) -> Guard:
    """Take a block in the order of labels: `pair.challenger` is the last champion. About 80 us."""
    if pair.block <= guard.last_block.get(pair.source, -1):
        return guard
    champion, last = pair.counted(settings)
    guard = msgspec.structs.replace(guard, last_block={**guard.last_block, pair.source: pair.block})
    loss = usual_loss(guard, settings)  # before this block: what it is to be judged by
    if guard.usual is None or not guard.is_reigning:
        guard = _learned(guard, champion, last, settings)
    if guard.is_reigning and loss is not None and champion.size:
        guard = _with_lines(guard, clip(champion - last, loss), loss)
    return msgspec.structs.replace(guard, settled=guard.settled + champion.size)


def usual_loss(guard: Guard, settings: Select) -> float | None:
    """Give L0, None before it is known."""
    if guard.usual is not None:
        return guard.usual.loss
    return _learned_loss(guard, settings) if guard.loss_events >= LOSS_EVENTS else None


def _learned_loss(guard: Guard, settings: Select) -> float:
    return max(guard.loss_total / guard.loss_events, LEAST_LOSS * settings.largest_loss)


def clip(differences: Floats, loss: Floats | float) -> Floats:
    """Give d' from differences, and L0."""
    clipped: Floats = np.clip(differences, -CLIP * loss, CLIP * loss)
    return clipped


def event_variance(pyramid: Pyramid) -> Floats | None:
    """Give the long-run variance of one event's d', None before it is known."""
    spread = pyramid.spread(LEAST_VALUES) if pyramid.count >= SPREAD_BLOCKS else None
    return None if spread is None else BLOCK_EVENTS * spread.long_run_variance


def _learned(guard: Guard, champion: Floats, last: Floats, settings: Select) -> Guard:
    """Learn from a block: the loss first, then the spread; with enough of both that is what is usual."""
    if guard.loss_events < LOSS_EVENTS:
        total = guard.loss_total + math.fsum(last.tolist())
        return msgspec.structs.replace(guard, loss_events=guard.loss_events + last.size, loss_total=total)
    if champion.size < LEAST_EVENTS:
        return guard
    loss, pyramid = _learned_loss(guard, settings), unpacked(guard.pyramid, guard.blocks)
    pyramid.add(mean_of(clip(champion - last, loss)))
    twice = clip(np.minimum(2.0 * champion, settings.largest_loss) - last, loss)
    events, doubled = guard.spread_events + champion.size, guard.doubled_total + math.fsum(twice.tolist())
    variance = event_variance(pyramid)
    if variance is None:
        return msgspec.structs.replace(
            guard, blocks=pyramid.count, pyramid=pyramid.packed(), spread_events=events, doubled_total=doubled
        )
    usual = Usual(loss, float(variance), doubled / events)
    return Guard(guard.is_reigning, guard.settled, usual=usual, lines=guard.lines, last_block=guard.last_block)


def _with_lines(guard: Guard, clipped: Floats, loss: float) -> Guard:
    """Let the lines go on; the first event that has one above its threshold raises the alarm."""
    kappas_K = loss * np.array(KAPPAS)
    path_BK = line_path(np.array(guard.lines), clipped[:, None], kappas_K)
    guard = msgspec.structs.replace(guard, lines=tuple(path_BK[-1].tolist()))
    if guard.usual is None or guard.alarm_at is not None:
        return guard
    is_above_B = (path_BK > threshold(guard.usual.variance, kappas_K, CLIP * loss)).any(axis=1)
    if not is_above_B.any():
        return guard
    return msgspec.structs.replace(guard, alarm_at=guard.settled + int(is_above_B.argmax()) + 1)


def guard_verdict(guard: Guard, settings: Select) -> GuardVerdict:
    """Say what the guard sees."""
    loss, usual = usual_loss(guard, settings), guard.usual
    kappas = thresholds = sigma = delay = None
    word: Word = "learning"
    if loss is not None:
        kappas = tuple(share * loss for share in KAPPAS)
    if usual is not None:
        word = "alarm" if guard.alarm_at is not None else "quiet" if guard.is_reigning else "ready"
        kappas_K, sigma = usual.loss * np.array(KAPPAS), math.sqrt(usual.variance)
        thresholds_K = np.asarray(threshold(usual.variance, kappas_K, CLIP * usual.loss))
        delay = float(expected_delay(thresholds_K, kappas_K, usual.doubled))
        thresholds = tuple(thresholds_K.tolist())
    return GuardVerdict(
        word=word,
        settled=guard.settled,
        loss=loss,
        clip=None if loss is None else CLIP * loss,
        sigma=sigma,
        kappas=kappas,
        lines=guard.lines,
        thresholds=thresholds,
        expected_delay_events=delay if delay is not None and math.isfinite(delay) else None,
        alarm_at=guard.alarm_at,
    )
