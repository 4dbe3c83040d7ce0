"""How often the evidence rule is wrong, and how long it takes to be right: many series side by side, by its own code.

`python -m tests.bench.evidence_tables` prints the tables of docs/evidence.md; the bench takes a short form of them
(figures/evidence.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.confidence import share_of_alpha
from models.evidence import (
    EPOCH_EVENTS,
    EPOCH_SPANS,
    LEAST_BLOCKS,
    LEAST_VALUES,
    MOST_CORRELATION,
    lower_bound,
)
from models.paired_losses import BLOCK_EVENTS
from models.pyramid import Pyramid
from streams.selecting import Select
from tests.bench import loss_series as series
from tests.bench.loss_series import CHAMPION_LOSS, SPAN_EVENTS, Floats

PHIS = (0.0, 0.9, 0.99, 0.999)
NOT_PROVEN, CORRELATED, PROMOTED = range(3)


class Outcome(NamedTuple):
    """When each series was promoted, in events (infinite: never), and the word at the end of each."""

    promoted_at_S: Floats
    word_S: npt.NDArray[np.int64]

    def rate(self, events: float = 1e12) -> float:
        """Give the share that was promoted by then."""
        return float((self.promoted_at_S <= events).mean())

    def median(self) -> float:
        """Give the events after which half were promoted, infinite where fewer ever were."""
        return float(np.sort(self.promoted_at_S)[(len(self.promoted_at_S) - 1) // 2])

    def share(self, word: int) -> float:
        """Give the share that ends with a word."""
        return float((self.word_S == word).mean())


def judge(
    y_TS: Floats, challengers: int = 1, span_events: int = SPAN_EVENTS, settings: Select | None = None
) -> Outcome:
    """Look at every series after each of its blocks, through all epochs."""
    settings = settings or Select()
    streams = y_TS.shape[1]
    promoted_at_S, word_S = np.full(streams, np.inf), np.full(streams, NOT_PROVEN)
    epoch_blocks = max(EPOCH_EVENTS, EPOCH_SPANS * span_events) // BLOCK_EVENTS
    least_blocks = max(LEAST_BLOCKS, span_events // BLOCK_EVENTS)
    for start in range(0, len(y_TS), epoch_blocks):
        pyramid = Pyramid((streams,))
        a = share_of_alpha(settings.alpha, start // epoch_blocks + 1, challengers)
        for t, y_S in enumerate(y_TS[start : start + epoch_blocks], 1):
            pyramid.add(y_S)
            if t < least_blocks:
                continue
            spread = pyramid.spread(LEAST_VALUES)
            assert spread is not None
            is_correlated_S = spread.correlation >= MOST_CORRELATION
            is_above_S = lower_bound(pyramid.mean(), spread, t, a, settings) > settings.margin
            word_S = np.where(is_correlated_S, CORRELATED, np.where(is_above_S, PROMOTED, NOT_PROVEN))
            at = BLOCK_EVENTS * (start + t)
            promoted_at_S = np.where(word_S == PROMOTED, np.minimum(promoted_at_S, at), promoted_at_S)
    return Outcome(promoted_at_S, word_S)


Drawing = Callable[[np.random.Generator, int, int], Floats]
"""Draws block means [T, S] for so many series and blocks."""


def equal_pairs() -> Iterator[tuple[str, Drawing]]:
    """Name what is drawn where neither model is better."""
    for phi in PHIS:
        yield f"AR {phi:g}", partial(series.noise_means, phi=phi, sd=0.2)
    yield "rare large losses", series.rare_means
    for other in ("faster", "bayes"):
        yield f"real pair, {other}", partial(series.real_means, other=other)
    for delay in (500.0, 5_000.0):
        yield f"AR 0.99, four sources, labels {delay:,.0f} events late", late_labels(delay, is_ordered=True)


def lasting_pairs() -> Iterator[tuple[str, Drawing]]:
    """Name what leans to one side for long, though neither model is better over all time."""
    for cycle in (5_000, 50_000):
        yield f"cycle of {cycle:,} events", partial(series.lasting_means, cycle=cycle)
    for regime in (5_000, 50_000):
        yield f"regimes of {regime:,} events", partial(series.lasting_means, regime=regime)


def late_labels(delay: float, *, is_ordered: bool) -> Drawing:
    """Draw equal pairs of four sources whose labels come so many events late on average."""
    return partial(series.sourced_means, phi=0.99, sd=0.2, delay=delay, is_ordered=is_ordered)


def false_rates(streams: int, events: int, seed: int = 1) -> dict[str, Outcome]:
    """Judge pairs that are equal."""
    return {
        name: judge(draw(np.random.default_rng(seed), streams, events // BLOCK_EVENTS)) for name, draw in equal_pairs()
    }


def better_by(gain: float, draw: Drawing, streams: int, events: int, seed: int = 2) -> Outcome:
    """Judge pairs whose challenger has a loss smaller by a share of the champion's."""
    return judge(draw(np.random.default_rng(seed), streams, events // BLOCK_EVENTS) + gain * CHAMPION_LOSS)


def improving_pairs() -> Iterator[tuple[str, Drawing]]:
    """Name the shapes of difference by which power is told."""
    for sd in (0.06, 0.2):
        yield f"real shape, sd {sd:g}", partial(series.real_means, other="faster", sd=sd)
    yield "real pair, bayes", partial(series.real_means, other="bayes")
    for phi, sd in ((0.9, 0.2), (0.99, 0.06), (0.99, 0.2), (0.999, 0.06)):
        yield f"AR {phi:g}, sd {sd:g}", partial(series.noise_means, phi=phi, sd=sd)
