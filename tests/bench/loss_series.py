"""Series of losses whose differences are known: noise that remembers, rare large losses, and those of real pairs.

Everything is drawn with a seed. T blocks of 100 events, B events, S series side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from models.array_learner import ArrayLearner
from models.block_order import Summed, released
from models.linear import LinearLearner
from models.naive_bayes import NaiveBayesLearner
from models.paired_losses import BLOCK_EVENTS
from models.scoring import bounded_log_loss
from streams.frames import Column
from streams.pipeline import Model

Floats = npt.NDArray[np.float64]

SPAN_EVENTS = 10_000  # an event a microsecond
CHAMPION_LOSS = 0.45
LEANING = 0.02  # of differences that last, to either side
RARE_SHARE, RARE_LOSS = 0.001, 6.9
REAL_EVENTS, REAL_FEATURES, LEARNED_FIRST = 120_000, 10, 20_000
STRETCH_EVENTS = 2_000  # of a real pair, that are drawn as a whole: longer than what the pair remembers


def noise(rng: np.random.Generator, streams: int, blocks: int, *, phi: float, sd: float) -> Iterator[Floats]:
    """Give blocks [100, S] of first-order autoregressive noise, of standard deviation `sd` from the first event on."""
    fresh_sd = sd * np.sqrt(1.0 - phi * phi)
    last_S = sd * rng.standard_normal(streams)
    for _ in range(blocks):
        noise_BS = fresh_sd * rng.standard_normal((BLOCK_EVENTS, streams))
        if phi:
            for at, fresh_S in enumerate(noise_BS):
                noise_BS[at] = last_S = fresh_S + phi * last_S
        yield noise_BS


def noise_means(rng: np.random.Generator, streams: int, blocks: int, *, phi: float, sd: float) -> Floats:
    """Give the block means [T, S] of such noise."""
    return np.array([noise_BS.mean(axis=0) for noise_BS in noise(rng, streams, blocks, phi=phi, sd=sd)])


def sourced_means(
    rng: np.random.Generator, streams: int, blocks: int, *, phi: float, sd: float, delay: float, is_ordered: bool
) -> Floats:
    """Give block means of four sources that take events in turn, in the order in which evidence takes them.

    A label comes after `delay` events on average, by an exponential law, and the last of a block completes it, after
    the source's earlier blocks. If not `is_ordered`, blocks count as they complete, which evidence does not do.
    """
    sources, turns = 4, blocks // 4
    width = sources * BLOCK_EVENTS
    means_TS, complete = np.empty((turns * sources, streams)), np.zeros((turns, sources))
    parts = noise(rng, streams, blocks, phi=phi, sd=sd)
    for turn in range(turns):
        events_BS = np.concatenate([next(parts) for _ in range(sources)])
        arrival_B = turn * width + np.arange(width) + rng.exponential(delay, width)
        for source in range(sources):
            means_TS[turn * sources + source] = events_BS[source::sources].mean(axis=0)
            complete[turn, source] = arrival_B[source::sources].max()
    order_T = np.argsort(np.maximum.accumulate(complete, axis=0).ravel(), kind="stable")
    return means_TS[_in_order(order_T, sources, width) if is_ordered else order_T]


def _in_order(order_T: npt.NDArray[np.int64], sources: int, width: int) -> list[int]:
    """Give the order in which blocks count that complete in another; those that still wait at the end do not."""
    waiting: tuple[Summed, ...] = ()
    newest_us: dict[int, int] = {}
    found = []
    for turn, source in (divmod(place, sources) for place in order_T.tolist()):
        first_us = turn * width + source
        last_us = newest_us[source] = first_us + width - sources
        waiting += (Summed(last_us, source, turn, first_us, 0.0, 0.0),)
        ready, waiting = released(waiting, newest_us, patience_us=10 * SPAN_EVENTS)
        found += [block.block * sources + block.source for block in ready]
    return found


def rare_means(rng: np.random.Generator, streams: int, blocks: int) -> Floats:
    """Give block means of differences of 0 on average, where only the challenger has rare large losses.

    Until the first of them it looks better than it is.
    """
    large_TS = rng.binomial(BLOCK_EVENTS, RARE_SHARE, (blocks, streams)) * (RARE_LOSS / BLOCK_EVENTS)
    usual_TS = rng.normal(RARE_SHARE * RARE_LOSS, 0.06 / np.sqrt(BLOCK_EVENTS), (blocks, streams))
    found: Floats = usual_TS - large_TS
    return found


def lasting_means(
    rng: np.random.Generator, streams: int, blocks: int, *, cycle: float = 0, regime: float = 0
) -> Floats:
    """Give block means of differences that are 0 over all time, and lean to one side for long.

    Either in a cycle of so many events, begun anywhere, or in regimes that are so long on average.
    """
    at_T1 = BLOCK_EVENTS * np.arange(blocks)[:, None]
    if cycle:
        leaning_TS = np.sin(2.0 * np.pi * (at_T1 / cycle + rng.random(streams)))
    else:
        changes_TS = (rng.random((blocks, streams)) < BLOCK_EVENTS / regime).cumsum(axis=0)
        leaning_TS = np.where((changes_TS + rng.integers(0, 2, streams)) % 2, 1.0, -1.0)
    found: Floats = LEANING * leaning_TS + rng.normal(0.0, 0.2 / np.sqrt(BLOCK_EVENTS), (blocks, streams))
    return found


@cache
def real_pair(other: str) -> tuple[Floats, Floats]:
    """Give the losses of a linear model and of another one, each event predicted and then learned, on rows that drift.

    The plane between yes and no turns, as in River's Hyperplane; one label in ten is wrong.
    """
    rng = np.random.default_rng(11)
    X_BF = rng.normal(size=(REAL_EVENTS, REAL_FEATURES))
    turned = np.cumsum(rng.normal(0.0, 0.003, (REAL_EVENTS, REAL_FEATURES)), axis=0) + rng.normal(size=REAL_FEATURES)
    is_yes_B = ((X_BF * turned).sum(axis=1) > 0.0) ^ (rng.random(REAL_EVENTS) < 0.1)
    columns = tuple(Column(f"x{i}", False) for i in range(REAL_FEATURES))
    usual = LinearLearner(Model("usual", "linear", {"lr": 0.02}), columns)
    others: dict[str, ArrayLearner] = {
        "faster": LinearLearner(Model("faster", "linear", {"lr": 0.05}), columns),
        "bayes": NaiveBayesLearner(Model("bayes", "naive_bayes", {}), columns),
    }
    return _losses(usual, X_BF, is_yes_B), _losses(others[other], X_BF, is_yes_B)


def _losses(learner: ArrayLearner, X_BF: Floats, is_yes_B: npt.NDArray[np.bool_]) -> Floats:
    event = np.repeat(np.arange(len(X_BF)), 2)
    action = np.tile(np.array([1, 2], np.int8), len(X_BF))
    said_B = learner.step(X_BF[event], is_yes_B.astype(np.float64)[event], action).reshape(len(event), -1)[::2, 0]
    return bounded_log_loss(np.where(is_yes_B, said_B, 1.0 - said_B))[LEARNED_FIRST:]


def real_draws(rng: np.random.Generator, streams: int, blocks: int, values_N: Floats) -> Iterator[Floats]:
    """Give blocks [100, S] of stretches drawn from a real series, again and again from any place, as in a bootstrap."""
    within = np.arange(STRETCH_EVENTS)[:, None]
    per_stretch = STRETCH_EVENTS // BLOCK_EVENTS
    for start in range(0, blocks, per_stretch):
        place_BS = (rng.integers(0, values_N.size, streams) + within) % values_N.size
        drawn_BS = values_N[place_BS]
        for block in range(min(per_stretch, blocks - start)):
            yield drawn_BS[block * BLOCK_EVENTS : (block + 1) * BLOCK_EVENTS]


def real_means(rng: np.random.Generator, streams: int, blocks: int, *, other: str, sd: float | None = None) -> Floats:
    """Give block means of a real pair's differences, with 0 as their mean and, where asked for, another deviation."""
    champion_N, challenger_N = real_pair(other)
    differences_N = champion_N - challenger_N
    differences_N = differences_N - differences_N.mean()
    if sd is not None:
        differences_N = differences_N * (sd / differences_N.std())
    return np.array([block_BS.mean(axis=0) for block_BS in real_draws(rng, streams, blocks, differences_N)])
