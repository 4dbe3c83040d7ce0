"""What processes answered to one look at their metrics, with sums over labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from streams.scraping import Sample


class Scrape:
    """The samples of one or more processes, with sums over labels."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def select(self, name: str, **labels: str) -> Iterable[Sample]:
        """Find the samples of a metric that have these labels."""
        wanted = labels.items()
        return (one for one in self.samples if one.name == name and wanted <= one.labels.items())

    def values(self, name: str, **labels: str) -> list[float]:
        """Give their values."""
        return [one.value for one in self.select(name, **labels)]

    def sum(self, name: str, **labels: str) -> float:
        """Add them up, as far as they are finite."""
        return sum(value for value in self.values(name, **labels) if math.isfinite(value))

    def one(self, name: str, **labels: str) -> float:
        """Give the first, NaN if there is none."""
        return next(iter(self.values(name, **labels)), math.nan)

    def by(self, name: str, label: str) -> dict[str, int]:
        """Add them up by a label."""
        totals: Counter[str] = Counter()
        for one in self.select(name):
            totals[one.labels[label]] += int(one.value)
        return dict(totals)


NOTHING = Scrape([])
