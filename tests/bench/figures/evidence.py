"""The evidence rule, simulated: how often equal models are told apart, and how soon better and broken ones are.

`aa_false_rate` is the largest share of false promotions among the kinds of noise; `power_events` the median until a
challenger is promoted that is 5 % better, `rollback_events` the median until the guard notices a loss twice that of the
last champion, whatever the advantage was before; each of the slowest case. All are the same in every run, and so they
are taken once.
"""

from __future__ import annotations

from functools import cache

from tests.bench.evidence_simulations import better_by, false_rates, improving_pairs
from tests.bench.figure import Figure
from tests.bench.guard_simulations import outdone_champions
from tests.bench.workplace import FULL, Workplace

ALPHA = 0.05
EVENTS = 100_000
MOST_EXPECTED = 300  # where the guard itself tells a longer delay, none is required

FIGURES = (
    Figure("aa_false_rate", "share", bound=ALPHA, is_floor=False),
    Figure("power_events", "events", bound=15_000, is_floor=False),
    Figure("rollback_events", "events", bound=500, is_floor=False),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Simulate once for all runs; about 25 s of one core."""
    return _simulated(1_000 if workplace.size == FULL else 100)


@cache
def _simulated(streams: int) -> dict[str, float]:
    equal = false_rates(streams, EVENTS)
    better = [
        better_by(0.05, draw, streams // 5, EVENTS) for name, draw in improving_pairs() if name.startswith("real")
    ]
    guards = [found for _, found in outdone_champions(streams // 5) if found[0].expected() <= MOST_EXPECTED]
    return {
        "aa_false_rate": max(outcome.rate() for outcome in equal.values()),
        "power_events": max(outcome.median() for outcome in better),
        "rollback_events": max(alarms.median() for found in guards for alarms in found),
    }
