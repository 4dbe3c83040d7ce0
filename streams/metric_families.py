"""The metric families of a process: name, text, labels and bounds of each. docs/metrics.md explains them."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from streams.histograms import BinnedHistogram

LATENCY_BOUNDS_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25,
                    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # fmt: skip
FRAME_BOUNDS_ROWS = tuple(float(2**power) for power in range(14))  # 1 … 8,192 rows, the most a frame may hold
SNAPSHOT_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
HTTP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STORE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
DELAY_BOUNDS_S = (1.0, 10.0, 60.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0, 14_400.0, 21_600.0, 43_200.0, 86_400.0,
                  259_200.0, 604_800.0, 2_592_000.0)  # fmt: skip

BASE = ("pipeline", "role", "candidate")  # labels of every series; `candidate` is empty outside learn and serve


class Families:
    """All metric families of a process, each a clearly named field."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, (*BASE, *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, (*BASE, *labels), registry=registry)

        def histogram(name: str, text: str, bounds: Sequence[float]) -> BinnedHistogram:
            return BinnedHistogram(name, text, BASE, bounds, registry)

        self.rows_in = counter("millrace_rows_in_total", "Rows taken, by kind.", "kind")
        self.rows_out = counter("millrace_rows_out_total", "Rows sent, by kind.", "kind")
        self.dead_letters = counter("millrace_dead_letters_total", "Records refused, by reason.", "reason")
        self.repeats = counter("millrace_repeats_total", "Rows dropped because their number was seen before.")
        self.incidents = counter(
            "millrace_incidents_total", "Things counted because they are neither rows nor errors.", "what"
        )
        self.lag = gauge("millrace_lag_records", "Messages of a partition not read yet.", "topic", "partition")
        self.mark = gauge("millrace_mark_seconds", "Event time read up to; +Inf at the end.", "topic", "partition")
        self.pending = gauge("millrace_pending_events", "Events that wait for their label.", "partition")
        self.entities = gauge("millrace_entities", "Entities known, where they are bounded.", "partition")
        self.accounts = gauge(
            "millrace_account_rows", "Rows of an account, by what became of them.", "account", "partition", "state"
        )
        self.unaccounted = gauge(
            "millrace_unaccounted_rows", "Rows an account cannot explain; must be 0.", "account", "partition"
        )
        self.latency = histogram("millrace_latency_seconds", "Event produced to prediction produced.", LATENCY_BOUNDS_S)
        self.frame_rows = histogram("millrace_frame_rows", "Rows per frame sent.", FRAME_BOUNDS_ROWS)
        self.label_delay = histogram(
            "millrace_label_delay_seconds", "Event time to label time of joined labels.", DELAY_BOUNDS_S
        )
        self.training_running = gauge("millrace_training_running", "1 while the candidate is being trained.")
        self.training_loss = gauge("millrace_training_loss", "Loss of the training under way.", "part")
        self.training_seconds = gauge("millrace_training_seconds", "Time the last training took.")
        self.trainings = counter("millrace_trainings_total", "Trainings that have ended, by result.", "result")
        self.http_requests = counter(
            "millrace_http_requests_total", "Requests answered by the HTTP API.", "route", "method", "status"
        )
        self.http_seconds = BinnedHistogram(
            "millrace_http_seconds", "Time one HTTP answer took.", (*BASE, "route"), HTTP_BOUNDS_S, registry
        )
        self.snapshot = histogram("millrace_snapshot_seconds", "Time one snapshot took.", SNAPSHOT_BOUNDS_S)
        self.snapshot_pause = histogram(
            "millrace_snapshot_pause_seconds", "Time the stream stood still for a snapshot.", SNAPSHOT_BOUNDS_S
        )
        self.evidence_bound = gauge("millrace_evidence_bound", "What a challenger is better by, surely.", "challenger")
        self.promotions = counter("millrace_promotions_total", "Changes of the champion, by why.", "why")
        self.uncompared = counter("millrace_uncompared_blocks_total", "Blocks that never had a pair.", "challenger")
        self.guard_fill = gauge("millrace_guard_fill_ratio", "How full the guard's fuller line is; 1 is the alarm.")
        self.guard_delay = gauge(
            "millrace_guard_expected_delay_events", "Settled events until a doubled loss is noticed."
        )
        self.archive_rows = gauge("millrace_archive_rows", "Label rows in the archive.")
        self.archive_bytes = gauge("millrace_archive_bytes", "Size of the archive's files.")
        self.archive_segments = gauge("millrace_archive_segments", "Files of the archive.")
        self.snapshot_bytes = gauge("millrace_snapshot_bytes", "Size of the newest snapshot.", "partition")
        self.snapshot_age = gauge("millrace_snapshot_age_seconds", "Time since the newest snapshot.", "partition")
        self.quality = gauge("millrace_model_quality", "How good predictions were, by figure.", "figure", "span")
        self.delay_loss = gauge("millrace_model_loss_by_delay", "Mean loss, by how long the label took.", "delay")
        self.delay_labels = gauge("millrace_model_labels_by_delay", "Labels, by how long they took.", "delay")
        self.staleness = gauge("millrace_staleness_cost", "Mean loss of answers minus their models' own.", "span")
        self.served_events = gauge("millrace_served_events", "Events, by what became of their answers.", "state")
        self.served_answers = gauge("millrace_served_answers", "Answers that counted, by who gave them.", "model")
        self.learned = gauge("millrace_model_examples", "Examples the candidate has learned.")
        self.model_bytes = gauge("millrace_model_bytes", "Size of the candidate.")
        self.model_cpu = counter("millrace_model_cpu_seconds_total", "CPU time spent in the candidate.", "what")
        self.model_row = gauge("millrace_model_row_seconds", "CPU time of one row, recent rows counting most.", "what")
        self.quarantine = gauge("millrace_model_quarantined", "1 if the candidate raised and learns no more.")
        self.drift_alarms = counter(
            "millrace_drift_alarms_total", "Alarms of drift.", "detector", "feature", "direction"
        )
        self.feature_drift = gauge("millrace_feature_drift", "How far a feature is from its reference.", "feature")
        self.version_examples = gauge("millrace_version_examples", "Examples seen by the version that serves.")
        self.version_lineage = gauge("millrace_version_lineage", "Lineage of the version that serves.")
        self.version_age = gauge("millrace_version_age_seconds", "Time since the version that serves was made.")
        self.champion = gauge("millrace_champion", "1 for the candidate that is to answer, 0 for one that was.")
        self.predictions = counter("millrace_predictions_total", "Answers, by who gave them and as what.", "standing")
        self.audited = counter("millrace_feature_audited_total", "Served rows compared with a recomputation.")
        self.skew = counter(
            "millrace_feature_skew_total", "Values and rows that are not as a recomputation gives them.", "column"
        )
        self.store_rows = counter("millrace_store_rows_total", "Rows for the online store, by outcome.", "outcome")
        self.store_failures = counter("millrace_store_failures_total", "Failed writes to the online store.", "reason")
        self.store_open = gauge("millrace_store_open", "1 while the online store is given a rest after failures.")
        self.store_pending = gauge("millrace_store_pending_rows", "Rows that wait for the online store.")
        self.store_write = histogram("millrace_store_write_seconds", "Time one batch took to write.", STORE_BOUNDS_S)
        self.ready = gauge("millrace_ready", "1 once the process asks for rows or listens, 0 while it starts.")
        self.info = gauge("millrace_info", "Always 1; names the release.", "version")
