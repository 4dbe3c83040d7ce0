"""`python -m tests.bench.evidence_tables [NAME …]`: prints the tables of docs/evidence.md. Minutes of one core."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np

from models.paired_losses import BLOCK_EVENTS
from tests.bench.evidence_simulations import (
    CORRELATED,
    NOT_PROVEN,
    PROMOTED,
    equal_pairs,
    improving_pairs,
    judge,
    lasting_pairs,
    late_labels,
)
from tests.bench.guard_simulations import (
    Alarms,
    Drawing,
    broken_champions,
    champions,
    outdone_champions,
    real,
    taken_back,
)
from tests.bench.loss_series import CHAMPION_LOSS, noise_means

STREAMS, FEWER_STREAMS = 1_000, 200
EVENTS, POWER_EVENTS = 1_000_000, 200_000
QUIET_BLOCKS = 1_000
Row = list[str]


def main() -> int:
    """Print one table after the other, each row as soon as it is known."""
    tables = {
        "equal models": (["noise", "by 20,000", "by 100,000", "by 1,000,000 events"], equal_rows()),
        "differences that last": (["difference", "by 100,000", "by 1,000,000 events"], lasting_rows()),
        "five challengers": (["noise", "a reign with a false promotion, by 1,000,000 events"], five_rows()),
        "order": (["labels late by", "in the order of time", "as blocks complete"], order_rows()),
        "power": (["shape of the difference", *(f"better by {gain:.0%}" for gain in GAINS)], power_rows()),
        "words": (["shape", "not proven", "correlated", "promoted"], word_rows()),
        "guard": (["fault", "told", "median", "95 % within", "within 500"], guard_rows()),
        "outdone": (["pair", "told", "no advantage", "better by 20%", "better by 50%"], outdone_rows()),
        "smaller faults": (["pair", "twice", "half as much again", "a fifth more"], smaller_rows()),
        "late labels": (["labels late by", "settled events, median", "95 % within", "of them faulty"], late_rows()),
        "quiet": (["pair", "events watched", "false alarms"], quiet_rows()),
    }
    asked = sys.argv[1:] or tables
    for name in asked:
        columns, rows = tables[name]
        show(name, columns, rows)
    return 0


GAINS = (0.01, 0.02, 0.05, 0.2)


def show(name: str, columns: Row, rows: Iterable[Row]) -> None:
    """Print a table as Markdown."""
    print(f"\n{name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def equal_rows() -> Iterator[Row]:
    """Tell how many of equal models were promoted."""
    for name, draw in equal_pairs():
        found = judge(draw(np.random.default_rng(1), STREAMS, EVENTS // BLOCK_EVENTS))
        yield [name, *(_share(found.rate(events)) for events in (20_000, 100_000, EVENTS))]


def lasting_rows() -> Iterator[Row]:
    """Tell the same of differences that last."""
    for name, draw in lasting_pairs():
        found = judge(draw(np.random.default_rng(1), STREAMS, EVENTS // BLOCK_EVENTS))
        yield [name, *(_share(found.rate(events)) for events in (100_000, EVENTS))]


def five_rows() -> Iterator[Row]:
    """Tell in how many reigns one of five equal challengers was promoted."""
    for phi in (0.0, 0.9, 0.99, 0.999):
        y_TS = noise_means(np.random.default_rng(4), STREAMS, EVENTS // BLOCK_EVENTS, phi=phi, sd=0.2)
        at_RM = judge(y_TS, challengers=5).promoted_at_S.reshape(-1, 5)
        yield [f"AR {phi:g}", _share(float(np.isfinite(at_RM).any(axis=1).mean()))]


def order_rows() -> Iterator[Row]:
    """Tell what it does to count blocks in another order."""
    for delay in (500.0, 5_000.0):
        rates = []
        for is_ordered in (True, False):
            draw = late_labels(delay, is_ordered=is_ordered)
            rates.append(judge(draw(np.random.default_rng(1), STREAMS, 1_000)).rate())
        yield [f"{delay:,.0f} events", *map(_share, rates)]


def power_rows() -> Iterator[Row]:
    """Tell after how many events half of the better challengers were promoted."""
    for name, draw in improving_pairs():
        y_TS = draw(np.random.default_rng(2), FEWER_STREAMS, POWER_EVENTS // BLOCK_EVENTS)
        yield [name, *(_events(judge(y_TS + gain * CHAMPION_LOSS).median()) for gain in GAINS)]


def word_rows() -> Iterator[Row]:
    """Tell what is said after 100,000 events of challengers that are better by 5 %."""
    for name, draw in improving_pairs():
        y_TS = draw(np.random.default_rng(2), FEWER_STREAMS, 1_000)
        found = judge(y_TS + 0.05 * CHAMPION_LOSS)
        yield [name, *(_share(found.share(word)) for word in (NOT_PROVEN, CORRELATED, PROMOTED))]


def guard_rows() -> Iterator[Row]:
    """Tell when a doubled loss was noticed, and when the guard says that it would be."""
    for name, found in broken_champions(FEWER_STREAMS):
        yield [name, _events(found.expected()), *_delays(found), _share(float((found.delay_S <= 500).mean()))]


def outdone_rows() -> Iterator[Row]:
    """Tell the median delay where the champion then loses twice what the last one does."""
    for name, found in outdone_champions(FEWER_STREAMS):
        yield [name, _events(found[0].expected()), *(_events(alarms.median()) for alarms in found)]


def smaller_rows() -> Iterator[Row]:
    """Tell the median delay for larger and smaller faults."""
    for name, draw in champions():
        yield [name, *(_events(taken_back(draw, FEWER_STREAMS, 100, f).median()) for f in (2.0, 1.5, 1.2))]


def late_rows() -> Iterator[Row]:
    """Tell the delay where labels are late, so that the settled events have the fault only by and by."""
    for delay in (0.0, 1_000.0, 10_000.0):
        found = taken_back(real("faster"), FEWER_STREAMS, 100, delay_events=delay)
        yield [f"{delay:,.0f} events", *_delays(found), _events(float(np.median(found.faulty_S)))]


def quiet_rows() -> Iterator[Row]:
    """Tell how often there was an alarm without a fault."""
    for name, draw in champions():
        found = _quiet(draw)
        yield [name, f"{found.quiet_events:,}", f"{found.false_S.sum():.0f}"]


def _quiet(draw: Drawing) -> Alarms:
    return taken_back(draw, FEWER_STREAMS, QUIET_BLOCKS, 1.0, blocks=0)


def _delays(found: Alarms) -> Row:
    return [_events(found.median()), _events(found.quantile(0.95))]


def _share(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if value else "0"


def _events(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"


if __name__ == "__main__":
    sys.exit(main())
