"""What every role tells Prometheus; this, metrics_server.py, metric_families.py and histograms.py know its library.

One `RoleMetrics` belongs to one process. It has a registry of its own, so that tests and several roles never share a
series. Updates are per batch: histograms take whole NumPy arrays or a few numbers, and no row is touched in Python.
Label values come from the pipeline file and Kafka's coordinates, never from events: the number of series is bounded.
docs/metrics.md explains each metric; a test keeps page and code in step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CollectorRegistry,
    Counter,
    ProcessCollector,
    disable_created_metrics,
)

from streams.metric_families import BASE, Families
from streams.model_metrics import ModelMetrics

KINDS = ("event", "label", "mark", "version", "command")  # by the codes of the `kind` column in frames
END_US = np.iinfo(np.int64).max  # the mark of a partition that has ended
UNKNOWN_US = np.iinfo(np.int64).min  # the mark of a partition not heard of yet


class RoleMetrics(ModelMetrics):
    """The metrics of one role process; `of(candidate)` gives the same process's series of one candidate.

    Example:
        >>> metrics = RoleMetrics("serve", "flights")
        >>> metrics.count_in(np.array([0, 0, 2], np.int8))
        >>> labels = {"pipeline": "flights", "role": "serve", "candidate": "", "kind": "event"}
        >>> metrics.registry.get_sample_value("millrace_rows_in_total", labels)
        2.0
    """

    def __init__(self, role: str, pipeline: str, *, clock: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it unannotated
        self.registry = CollectorRegistry()
        self.families = Families(self.registry)
        self._clock = clock
        self._base = (pipeline, role, "")
        self._counters: dict[tuple[Counter, tuple[str, ...], int], Counter] = {}  # the library's own look-up is slow
        ProcessCollector(registry=self.registry)

    def of(self, candidate: str) -> RoleMetrics:
        """The same registry, with every series labelled by this candidate."""
        view = object.__new__(RoleMetrics)
        view.__dict__.update(self.__dict__)
        view._base = (*self._base[:2], candidate)
        return view

    def release(self, version: str) -> None:
        """Say which release runs; it is not ready yet."""
        self.families.info.labels(*self._base, version).set(1)
        self.families.ready.labels(*self._base).set(0)

    def ready(self) -> None:
        """Say that the process asks for rows or listens from now on."""
        self.families.ready.labels(*self._base).set(1)

    # Requests

    def answered(self, route: str, method: str, status: int, took_s: float) -> None:
        """Count one answer of the HTTP API; `route` is its template, never the path that was asked for."""
        self.families.http_requests.labels(*self._base, route, method, str(status)).inc()
        self.families.http_seconds.labels(*self._base, route).observe(took_s)

    # Rows

    def count_in(self, kind_B: npt.NDArray[np.int8]) -> None:
        """Count the rows of a batch that were taken, by the frame's `kind` column."""
        self._count_kinds(self.families.rows_in, kind_B)

    def count_out(self, kind_B: npt.NDArray[np.int8]) -> None:
        """Count the rows of a batch that were sent."""
        self._count_kinds(self.families.rows_out, kind_B)

    def add_in(self, kind: str, rows: int) -> None:
        """Count rows taken, where the caller knows the number (`kind` is one of KINDS, or a word of its own)."""
        self.families.rows_in.labels(*self._base, kind).inc(rows)

    def add_out(self, kind: str, rows: int) -> None:
        """Count rows sent, where the caller knows the number."""
        self.families.rows_out.labels(*self._base, kind).inc(rows)

    def _count_kinds(self, family: Counter, kind_B: npt.NDArray[np.int8]) -> None:
        for kind, rows in enumerate(np.bincount(kind_B, minlength=len(KINDS)).tolist()):
            if rows:
                series = family, self._base, kind
                if series not in self._counters:
                    self._counters[series] = family.labels(*self._base, KINDS[kind])
                self._counters[series].inc(rows)

    def dead_letter(self, reason: str, records: int = 1) -> None:
        """Count records refused; `reason` is an error class, never a text that holds data."""
        self.families.dead_letters.labels(*self._base, reason).inc(records)

    def repeats(self, rows: int) -> None:
        """Count rows dropped because their number was seen before."""
        self.families.repeats.labels(*self._base).inc(rows)

    def incident(self, what: str, times: int = 1) -> None:
        """Count something that is neither a row nor an error: evicted, late, jump, ended_source, not_finite."""
        self.families.incidents.labels(*self._base, what).inc(times)

    def frames(self, rows: Sequence[int]) -> None:
        """Observe the sizes of frames sent."""
        self.families.frame_rows.labels(*self._base).observe_few(rows)

    # Time

    def predicted(self, counts: npt.NDArray[np.int64], total_s: float) -> None:
        """Observe latencies from event to prediction, counted by bucket of LATENCY_BOUNDS_S, and their sum."""
        self.families.latency.labels(*self._base).add(counts, total_s)

    def label_delays(self, delay_us_B: npt.NDArray[np.int64]) -> None:
        """Observe how long after their events labels came, in event time."""
        self.families.label_delay.labels(*self._base).observe(delay_us_B / 1e6)

    def mark(self, topic: str, partition: int, time_us: int) -> None:
        """Set how far a partition was read in event time; END_US shows as +Inf, UNKNOWN_US as -Inf."""
        seconds = math.inf if time_us == END_US else -math.inf if time_us == UNKNOWN_US else time_us / 1e6
        self.families.mark.labels(*self._base, topic, str(partition)).set(seconds)

    def lag(self, topic: str, partition: int, records: int) -> None:
        """Set how many messages of a partition are still unread."""
        self.families.lag.labels(*self._base, topic, str(partition)).set(records)

    def forget(self, topic: str, partition: int) -> None:
        """Drop the series of a partition that went to another worker, so that none shows a frozen value."""
        mine = {**dict(zip(BASE, self._base, strict=True)), "partition": str(partition)}
        of_all = self.families
        for family in (of_all.lag, of_all.mark):
            family.remove_by_labels({**mine, "topic": topic})
        state = (of_all.pending, of_all.entities, of_all.accounts, of_all.unaccounted)
        for family in (*state, of_all.snapshot_bytes, of_all.snapshot_age):
            family.remove_by_labels(mine)

    # State

    def pending(self, partition: int, events: int) -> None:
        """Set how many events of a partition wait for their label."""
        self.families.pending.labels(*self._base, str(partition)).set(events)

    def entities(self, partition: int, entities: int) -> None:
        """Set how many entities of a partition are known."""
        self.families.entities.labels(*self._base, str(partition)).set(entities)

    def account(self, account: str, partition: int, total: int, states: Mapping[str, int]) -> None:
        """Set an account: `total` rows came in and `states` says what became of each; the rest is unaccounted."""
        for state, rows in states.items():
            self.families.accounts.labels(*self._base, account, str(partition), state).set(rows)
        self.families.unaccounted.labels(*self._base, account, str(partition)).set(total - sum(states.values()))

    def archived(self, rows: int, size_bytes: int, segments: int) -> None:
        """Set what the archive holds."""
        self.families.archive_rows.labels(*self._base).set(rows)
        self.families.archive_bytes.labels(*self._base).set(size_bytes)
        self.families.archive_segments.labels(*self._base).set(segments)

    def training(self, *, is_running: bool) -> None:
        """Say whether a candidate is being trained."""
        self.families.training_running.labels(*self._base).set(is_running)

    def training_loss(self, training: float | None, validation: float | None) -> None:
        """Set the losses of the training under way, where they are known."""
        for part, loss in (("training", training), ("validation", validation)):
            if loss is not None:
                self.families.training_loss.labels(*self._base, part).set(loss)

    def trained(self, result: Literal["made", "failed"], duration_s: float) -> None:
        """Count a training that has ended; of one that made a version, set how long it took."""
        self.families.trainings.labels(*self._base, result).inc()
        if result == "made":
            self.families.training_seconds.labels(*self._base).set(duration_s)

    def snapshot_pause(self, duration_s: float) -> None:
        """Observe how long the stream stood still while a state was copied."""
        self.families.snapshot_pause.labels(*self._base).observe(duration_s)

    def snapshot_taken(self, partition: int, duration_s: float, size_bytes: int) -> None:
        """Observe a snapshot that has just been written; its age is computed at each scrape."""
        at = self._clock()
        self.families.snapshot.labels(*self._base).observe(duration_s)
        self.families.snapshot_bytes.labels(*self._base, str(partition)).set(size_bytes)
        self.families.snapshot_age.labels(*self._base, str(partition)).set_function(lambda: self._clock() - at)

    # Audit

    def audited(self, rows: int, skew: Mapping[str, int]) -> None:
        """Count served rows that were compared, and by column what was not as it should be; 0 makes a series known."""
        self.families.audited.labels(*self._base).inc(rows)
        for column, values in skew.items():
            self.families.skew.labels(*self._base, column).inc(values)

    # The online store

    def stored(self, outcome: str, rows: int) -> None:
        """Count rows for the online store: written, older, foreign, superseded or dropped."""
        self.families.store_rows.labels(*self._base, outcome).inc(rows)

    def store_written(self, duration_s: float) -> None:
        """Observe a batch that has just been written."""
        self.families.store_write.labels(*self._base).observe(duration_s)

    def store_failed(self, reason: str) -> None:
        """Count a failed write; `reason` is one word of a few."""
        self.families.store_failures.labels(*self._base, reason).inc()

    def store_open(self, *, is_open: bool) -> None:
        """Say whether the breaker keeps writes back."""
        self.families.store_open.labels(*self._base).set(is_open)

    def store_pending(self, rows: Callable[[], int]) -> None:
        """Say how many rows wait, asked at each scrape."""
        self.families.store_pending.labels(*self._base).set_function(rows)
