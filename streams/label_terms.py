"""The terms of labels: how long an event waits for its own, how labels find events, what a missing one counts as."""

from __future__ import annotations

from typing import NamedTuple

from streams.pipeline import Match

NO_LIMIT = 2**62
BY_BOTH, BY_ID, BY_KEY = 0, 1, 2  # by what a label finds its event
CODES: dict[Match, int] = {"id and key": BY_BOTH, "id": BY_ID, "key": BY_KEY}


class Terms(NamedTuple):
    """How long an event waits, how long it is remembered, what a missing label counts as, how labels are matched."""

    wait_us: int
    keep_us: int
    missing: float  # NaN = dropped
    is_keyed: bool
    most: int = NO_LIMIT  # events that may wait
    has_labels: bool = True  # without, every event is settled as missing when it passes
    match: int = BY_BOTH
    within_us: int = 0  # BY_KEY: how much older than its label an event is at most
