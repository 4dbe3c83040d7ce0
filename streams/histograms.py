"""Histograms for Prometheus that take whole arrays: a bucket count per call instead of a lock per value."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Bins:
    """Counts of observed values per bucket, for one set of label values."""

    def __init__(self, bounds: npt.NDArray[np.float64]) -> None:
        self._bounds, self._ordered = bounds, bounds.tolist()
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()  # a scrape reads counts and sum together

    def observe(self, values: npt.ArrayLike) -> None:
        """Add one number or an array of them (about 20 ns each); NaN is left out."""
        values_B = np.asarray(values, np.float64).ravel()
        if np.isnan(values_B).any():
            values_B = values_B[~np.isnan(values_B)]
        places_B = np.searchsorted(self._bounds, values_B, side="left")
        added = np.bincount(places_B, minlength=len(self._counts))
        self.add(added, float(values_B.sum()))

    def observe_few(self, values: Sequence[float]) -> None:
        """Add a few numbers, none of them NaN, in less time than an array of them takes."""
        with self._lock:
            for value in values:
                self._counts[bisect_left(self._ordered, value)] += 1
            self._sum += sum(values)

    def add(self, counts: npt.NDArray[np.int64], total: float) -> None:
        """Add values that were counted by bucket already, and their sum."""
        with self._lock:
            self._counts += counts
            self._sum += total

    def read(self) -> tuple[list[tuple[str, int]], float]:
        """Cumulative counts by upper bound, as Prometheus wants them, and the sum of all values."""
        with self._lock:
            cumulative, total = np.cumsum(self._counts).tolist(), self._sum
        names = [*(str(bound) for bound in self._ordered), "+Inf"]
        return list(zip(names, cumulative, strict=True)), total


class BinnedHistogram(Collector):
    """A Prometheus histogram that is fed with arrays.

    The library's own takes one value a call (about 1 us), which is more than a row costs in any role.

    Example:
        >>> registry = CollectorRegistry()
        >>> rows = BinnedHistogram("frame_rows", "Rows per frame.", ("topic",), (1.0, 10.0), registry)
        >>> rows.labels("log").observe([1, 3, 400])
        >>> registry.get_sample_value("frame_rows_bucket", {"topic": "log", "le": "10.0"})
        2
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._label_names = name, documentation, tuple(label_names)
        self._bounds = np.asarray(bounds, np.float64)
        self._children: dict[tuple[str, ...], Bins] = {}
        registry.register(self)

    def labels(self, *values: str) -> Bins:
        """The bins of these label values, made on first use."""
        found = self._children.get(values)
        return self._children.setdefault(values, Bins(self._bounds)) if found is None else found

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Called by the registry at each scrape."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, bins in list(self._children.items()):
            buckets, total = bins.read()
            family.add_metric(values, buckets, total)
        yield family
