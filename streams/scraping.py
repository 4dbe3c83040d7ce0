"""Reading Prometheus text, as `/metrics` of every role answers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Sample(NamedTuple):
    """One series of a scrape."""

    name: str
    labels: Mapping[str, str]
    value: float


def parse(text: str) -> Iterable[Sample]:
    """Read Prometheus text, as `up` and the demo do for their tables."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield Sample(sample.name, sample.labels, sample.value)
