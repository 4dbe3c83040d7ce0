"""How soon the guard notices a fault, and how often there is none: many series side by side, by its own formulas.

A series has so many blocks without a fault, in which the guard learns what is usual; then the champion's loss grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.cusum import expected_delay, line_path, threshold
from models.guard import CLIP, KAPPAS, LOSS_EVENTS, SPREAD_BLOCKS, clip, event_variance
from models.paired_losses import BLOCK_EVENTS
from models.pyramid import Pyramid
from streams.selecting import LARGEST
from tests.bench import loss_series as series
from tests.bench.loss_series import CHAMPION_LOSS, Floats

LOSS_BLOCKS = LOSS_EVENTS // BLOCK_EVENTS
LEARNING_BLOCKS = LOSS_BLOCKS + SPREAD_BLOCKS

Pairs = Iterator[tuple[Floats, Floats]]
"""Blocks [100, S] of the champion's and the last champion's losses."""

Drawing = Callable[[np.random.Generator, int, int], Pairs]
"""Draws pairs for so many series and blocks."""


class Alarms(NamedTuple):
    """What the guard did: S series.

    Attributes:
        false_S: whether there was an alarm before the fault.
        delay_S: settled events from the fault to the alarm, infinite where there was none in time.
        faulty_S: those of them that were predicted after the fault.
        expected_S: the delay it tells for a doubled loss.
        quiet_events: that were watched before the fault, in all.
    """

    false_S: Floats
    delay_S: Floats
    faulty_S: Floats
    expected_S: Floats
    quiet_events: int

    def median(self) -> float:
        """Give the median delay of series without a false alarm."""
        return float(np.sort(self.delay_S[self.false_S == 0.0])[(int((self.false_S == 0.0).sum()) - 1) // 2])

    def quantile(self, share: float) -> float:
        """Give the delay that so many do not pass."""
        return float(np.sort(self.delay_S)[int(share * (len(self.delay_S) - 1))])

    def expected(self) -> float:
        """Give the median of the delays that the guard tells."""
        return float(np.sort(self.expected_S)[len(self.expected_S) // 2])

    def false_per_million(self) -> float:
        """Give first false alarms by a million events watched."""
        return float(self.false_S.sum()) / self.quiet_events * 1e6


def guarded(pairs: Pairs, streams: int, fault_block: int, factor: float = 2.0, delay_events: float = 0.0) -> Alarms:
    """Let the guard watch series whose champion's loss is `factor` times as large from a block on.

    With a delay, labels come so many events late on average, by an exponential law: among the settled events those from
    before the fault become fewer only by and by. Delays are counted in settled events from the first one with a fault.
    """
    usual_S, pyramid, kappas_KS = np.zeros(streams), Pyramid((streams,)), np.zeros((len(KAPPAS), streams))
    thresholds_KS, lines_KS = np.full((len(KAPPAS), streams), np.inf), np.zeros((len(KAPPAS), streams))
    alarm_S, faulty_S, expected_S = np.full(streams, np.inf), np.zeros(streams), np.full(streams, np.nan)
    total_S, doubled_S, rng = np.zeros(streams), np.zeros(streams), np.random.default_rng(5)
    for block, (champion_BS, last_BS) in enumerate(pairs):
        if block < LOSS_BLOCKS:
            total_S = total_S + last_BS.sum(axis=0)
            usual_S = total_S / LOSS_EVENTS
            kappas_KS = np.multiply.outer(np.array(KAPPAS), usual_S)
            continue
        is_faulty_BS = _is_faulty(rng, champion_BS, block - fault_block, delay_events)
        worse_BS = np.minimum(factor * champion_BS, LARGEST["log_loss"])
        clipped_BS = clip(np.where(is_faulty_BS, worse_BS, champion_BS) - last_BS, usual_S)
        path_BKS = line_path(lines_KS, clipped_BS[:, None, :], kappas_KS)
        lines_KS = path_BKS[-1]
        if block < LEARNING_BLOCKS:
            pyramid.add(clipped_BS.mean(axis=0))
            doubled_S = doubled_S + clip(np.minimum(2.0 * champion_BS, LARGEST["log_loss"]) - last_BS, usual_S).sum(0)
            variance = event_variance(pyramid)
            if variance is not None:
                thresholds_KS = np.asarray(threshold(variance, kappas_KS, CLIP * usual_S))
                expected_S = expected_delay(thresholds_KS, kappas_KS, doubled_S / (SPREAD_BLOCKS * BLOCK_EVENTS))
        is_above_BS = (path_BKS > thresholds_KS).any(axis=1)
        is_before_BS = np.isinf(alarm_S) & ~np.logical_or.accumulate(is_above_BS, axis=0)
        alarm_S = np.where(
            np.isinf(alarm_S) & is_above_BS.any(axis=0), BLOCK_EVENTS * block + is_before_BS.sum(axis=0) + 1.0, alarm_S
        )
        faulty_S += (is_faulty_BS & is_before_BS).sum(axis=0)
        if block > fault_block and np.isfinite(alarm_S).all():
            break
    fault = BLOCK_EVENTS * fault_block
    quiet = streams * BLOCK_EVENTS * (fault_block - LEARNING_BLOCKS)
    return Alarms((alarm_S <= fault).astype(np.float64), alarm_S - fault, faulty_S + 1.0, expected_S, quiet)


def _is_faulty(rng: np.random.Generator, champion_BS: Floats, since: int, delay: float) -> npt.NDArray[np.bool_]:
    """Say which of a block's events were predicted since the fault; `since` is how many blocks ago it began."""
    if since < 0 or not delay:
        return np.full(champion_BS.shape, since >= 0)
    age_B = BLOCK_EVENTS * since + np.arange(len(champion_BS))
    found: npt.NDArray[np.bool_] = rng.exponential(delay, champion_BS.shape) < age_B[:, None] + 1
    return found


def real(other: str, advantage: float = 0.0) -> Drawing:
    """Draw stretches of a real pair; the champion has lost so much less than the last one, as a share of its loss."""
    champion_N, last_N = series.real_pair(other)
    champion_N = champion_N * ((1.0 - advantage) * last_N.mean() / champion_N.mean())

    def draw(rng: np.random.Generator, streams: int, blocks: int) -> Pairs:
        drawn = series.real_draws(rng, streams, blocks, np.arange(last_N.size, dtype=np.float64))
        for place_BS in drawn:
            place = place_BS.astype(np.int64)
            yield champion_N[place], last_N[place]

    return draw


def remembering(phi: float, sd: float, advantage: float = 0.0) -> Drawing:
    """Draw autoregressive differences beside a constant loss."""

    def draw(rng: np.random.Generator, streams: int, blocks: int) -> Pairs:
        for noise_BS in series.noise(rng, streams, blocks, phi=phi, sd=sd):
            last_BS = np.full_like(noise_BS, CHAMPION_LOSS)
            yield (1.0 - advantage) * last_BS + noise_BS, last_BS

    return draw


def taken_back(
    draw: Drawing,
    streams: int,
    quiet_blocks: int,
    factor: float = 2.0,
    delay_events: float = 0.0,
    blocks: int = 400,
    seed: int = 3,
) -> Alarms:
    """Let a fault come after so many quiet blocks, and watch for some blocks more."""
    fault = LEARNING_BLOCKS + quiet_blocks
    pairs = draw(np.random.default_rng(seed), streams, fault + blocks)
    return guarded(pairs, streams, fault, factor, delay_events)


def champions(advantage: float = 0.0) -> Iterator[tuple[str, Drawing]]:
    """Name the pairs on which the guard is tried."""
    for other in ("faster", "bayes"):
        yield f"real pair, {other}", real(other, advantage)
    for phi in (0.0, 0.9, 0.99):
        yield f"AR {phi:g}, sd 0.2", remembering(phi, 0.2, advantage)


ADVANTAGES = (0.0, 0.2, 0.5)


def broken_champions(streams: int, quiet_blocks: int = 100) -> Iterator[tuple[str, Alarms]]:
    """Double the losses of champions that were as good as the last one, or better by a fifth or by half."""
    for advantage in ADVANTAGES:
        for name, draw in champions(advantage):
            yield f"{name}, better by {advantage:.0%}", taken_back(draw, streams, quiet_blocks)


def outdone_champions(streams: int, quiet_blocks: int = 100) -> Iterator[tuple[str, list[Alarms]]]:
    """Let the same champions lose twice what the last one does, by past advantage."""
    drawings = [list(champions(advantage)) for advantage in ADVANTAGES]
    factors = [2.0 / (1.0 - advantage) for advantage in ADVANTAGES]
    for kinds in zip(*drawings, strict=True):
        yield (
            kinds[0][0],
            [taken_back(draw, streams, quiet_blocks, factor) for (_, draw), factor in zip(kinds, factors, strict=True)],
        )
