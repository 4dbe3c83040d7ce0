"""What count and mean of a 60 s window must be, computed in plain Python for the events of a sample of keys.

Two windows that a user would take for the same: one that begins anew every minute and has the event in it, and one that
slides in twelve steps and has the events before it (docs/features.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from tests.bench.kafka import BenchError
from tests.bench.load import Load, blocks

WINDOW_US = 60_000_000
STEPS = 12
SAMPLE = b"07"  # keys that end so: one in a hundred
TOLERANCE = 1e-9  # sums are added up in another order


class Event(msgspec.Struct, frozen=True):
    """What a window needs of an event."""

    id: str
    key: str
    time: int
    amount: float


class Answer(NamedTuple):
    """A window as an event finds it; the mean of no events is NaN."""

    events: int
    mean: float


def is_sampled(key: bytes | None) -> bool:
    """Say whether the events of a key are looked at."""
    return key is not None and key.endswith(SAMPLE)


def sampled_events(load: Load, events: int) -> list[Event]:
    """Give the events of the sample among the first `events` of a load, in order."""
    decode = msgspec.json.Decoder(Event).decode
    return [
        decode(value)
        for made in blocks(load, events)
        for key, value in zip(made.keys, made.events, strict=True)
        if is_sampled(key)
    ]


def tumbling(events: Iterable[Event]) -> dict[str, Answer]:
    """Give for each event the window of its minute, with all that came before it and itself."""
    totals: dict[tuple[str, int], tuple[int, float]] = {}
    answers = {}
    for event in events:
        window = event.key, event.time // WINDOW_US
        count, total = totals.get(window, (0, 0.0))
        totals[window] = count + 1, total + event.amount
        answers[event.id] = Answer(count + 1, (total + event.amount) / (count + 1))
    return answers


def sliding(events: Iterable[Event]) -> dict[str, Answer]:
    """Give for each event, in order of time, those before it in its own step and the eleven before that."""
    past: dict[str, deque[tuple[int, float]]] = {}
    answers = {}
    for event in events:
        step, amounts = event.time // (WINDOW_US // STEPS), past.setdefault(event.key, deque())
        while amounts and amounts[0][0] <= step - STEPS:
            amounts.popleft()
        count = len(amounts)
        answers[event.id] = Answer(count, math.fsum(amount for _, amount in amounts) / count if count else math.nan)
        amounts.append((step, event.amount))
    return answers


def compare(name: str, found: Iterable[tuple[str, Answer]], expected: Mapping[str, Answer], *, is_whole: bool) -> int:
    """Compare what a program answered about the sample; give how many answers there were. `is_whole`: to all events.

    Raises:
        BenchError: an answer is wrong, is for no event of the sample, comes twice, or is missing.
    """
    seen: set[str] = set()
    for identity, answer in found:
        right = expected.get(identity)
        if right is None or identity in seen:
            raise BenchError(f"{name} answers {identity} {'twice' if right else 'which is no event of the sample'}")
        if not _is_same(answer, right):
            raise BenchError(f"{name} answers {identity} with {answer}, and it should be {right}")
        seen.add(identity)
    if not seen or (is_whole and len(seen) < len(expected)):
        raise BenchError(f"{name} answers {len(seen):,} events of a sample of {len(expected):,}")
    return len(seen)


def _is_same(answer: Answer, right: Answer) -> bool:
    if answer.events != right.events:
        return False
    if math.isnan(right.mean):
        return math.isnan(answer.mean)
    return math.isclose(answer.mean, right.mean, rel_tol=TOLERANCE)
