"""The outlook: how many more events a challenger needs, if things stay as they are.

Mean and spread of the epoch so far are taken as known, and the same bound is asked how many blocks it takes. It is an
estimate for people; nothing is decided by it.
"""

from __future__ import annotations

from models.confidence import share_of_alpha
from models.evidence import (
    EPOCH_EVENTS,
    EPOCH_SPANS,
    LEAST_BLOCKS,
    LEAST_VALUES,
    MOST_CORRELATION,
    Evidence,
    lower_bound,
)
from models.paired_losses import BLOCK_EVENTS
from models.pyramid import unpacked
from streams.selecting import Select


def events_to_go(evidence: Evidence, settings: Select) -> int | None:
    """Give how many more events of this epoch it takes to promotion; None: as it looks now, it is not in this epoch.

    Without enough blocks for a bound it is what is left to the least that any promotion needs.
    """
    pyramid, t = unpacked(evidence.pyramid, evidence.blocks), evidence.blocks
    seen_us = evidence.last_time_us - evidence.first_time_us
    block_us = seen_us / t if t else 0.0
    for_span = int(-(-settings.span_us // block_us)) if block_us > 0 else 0
    least = max(LEAST_BLOCKS, for_span, t)
    spread = pyramid.spread(LEAST_VALUES)
    if spread is None:
        return BLOCK_EVENTS * (least - t)
    if spread.correlation >= MOST_CORRELATION:
        return None
    a = share_of_alpha(settings.alpha, evidence.epoch, evidence.challengers)
    mean = pyramid.mean()

    def is_enough(blocks: int) -> bool:
        return bool(lower_bound(mean, spread, blocks, a, settings) > settings.margin)

    most = max(EPOCH_EVENTS // BLOCK_EVENTS, EPOCH_SPANS * for_span, least)
    if not is_enough(most):
        return None
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return BLOCK_EVENTS * (low - t)
