"""Metrics: array histograms, marks, accounts, candidates, the HTTP port, and that the page lists every metric."""

from __future__ import annotations

import doctest
import math
import re
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest

from streams import metrics, scraping
from streams.errors import UnavailableError
from streams.histograms import BinnedHistogram
from streams.metric_families import LATENCY_BOUNDS_S
from streams.metrics import RoleMetrics
from streams.metrics_server import serve_metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BASE = {"pipeline": "flights", "role": "learn", "candidate": ""}


def value(role: RoleMetrics, name: str, **labels: str) -> float | None:
    """One series of the role, by its labels beside the base ones."""
    return role.registry.get_sample_value(name, {**BASE, **labels})


def test_binned_histogram_equals_the_librarys_own() -> None:
    """An array histogram exposes the same text as prometheus_client's, fed value by value."""
    values = np.random.default_rng(7).lognormal(0.0, 2.0, 1_000)
    values[:3] = (1.0, 10.0, 1e9)  # on a bound, on the last bound, above all
    mine, library = CollectorRegistry(), CollectorRegistry()
    BinnedHistogram("h", "text", ("topic",), (0.5, 1.0, 10.0), mine).labels("log").observe(values)
    reference = Histogram("h", "text", ("topic",), buckets=(0.5, 1.0, 10.0), registry=library).labels("log")
    for one in values:
        reference.observe(one)

    buckets = [line for line in generate_latest(library).decode().splitlines() if "_bucket" in line or "_count" in line]

    assert [
        line for line in generate_latest(mine).decode().splitlines() if "_bucket" in line or "_count" in line
    ] == buckets
    assert mine.get_sample_value("h_sum", {"topic": "log"}) == pytest.approx(values.sum())


def test_histogram_leaves_nan_out_and_takes_single_numbers() -> None:
    """NaN is no observation, and one number is as good as an array."""
    registry = CollectorRegistry()
    bins = BinnedHistogram("h", "text", (), (1.0,), registry).labels()
    bins.observe([math.nan, 0.5])
    bins.observe(2)

    assert registry.get_sample_value("h_count") == 2.0
    assert registry.get_sample_value("h_sum") == 2.5


def test_a_few_numbers_count_as_an_array_of_them_does() -> None:
    """On a bound, between two and above all."""
    registry, values = CollectorRegistry(), [0.5, 1, 3, 10.0, 11]
    family = BinnedHistogram("h", "text", ("how",), (0.5, 1.0, 10.0), registry)
    family.labels("array").observe(values)
    family.labels("few").observe_few(values)

    array, few = (family.labels(how).read() for how in ("array", "few"))
    assert few == array


def test_rows_are_counted_by_kind() -> None:
    """The kind column of a batch becomes counts per kind."""
    role = RoleMetrics("learn", "flights")
    role.count_in(np.array([0, 0, 1, 2], np.int8))
    role.add_in("event", 5)

    assert value(role, "millrace_rows_in_total", kind="event") == 7
    assert value(role, "millrace_rows_in_total", kind="label") == 1
    assert value(role, "millrace_rows_in_total", kind="version") is None


def test_candidates_share_a_registry_and_not_their_series() -> None:
    """Two candidates of one process are told apart by the `candidate` label."""
    role = RoleMetrics("learn", "flights")
    role.of("tree").scored("start", {"log_loss": 0.4})
    role.of("prior").scored("start", {"log_loss": 0.6, "auc": 0.5})

    assert value(role, "millrace_model_quality", figure="log_loss", candidate="tree", span="start") == 0.4
    assert value(role, "millrace_model_quality", figure="auc", candidate="prior", span="start") == 0.5
    assert value(role, "millrace_model_quality", figure="log_loss", span="start") is None


@pytest.mark.parametrize(
    ("time_us", "seconds"), [(1_500_000, 1.5), (np.iinfo(np.int64).max, math.inf), (np.iinfo(np.int64).min, -math.inf)]
)
def test_marks_show_event_time_in_seconds(time_us: int, seconds: float) -> None:
    """The end shows as +Inf and a partition not heard of as -Inf."""
    role = RoleMetrics("learn", "flights")
    role.mark("flights.log", 3, time_us)

    assert value(role, "millrace_mark_seconds", topic="flights.log", partition="3") == seconds


def test_an_account_shows_what_it_cannot_explain() -> None:
    """Unaccounted rows are what came in less what became of it."""
    role = RoleMetrics("learn", "flights")
    role.account("events", 0, 10, {"settled": 6, "pending": 3, "duplicate": 0})

    assert value(role, "millrace_account_rows", account="events", partition="0", state="settled") == 6
    assert value(role, "millrace_unaccounted_rows", account="events", partition="0") == 1


def test_a_partition_that_left_takes_its_series_along() -> None:
    """Forgetting one partition leaves the others and other candidates alone."""
    role = RoleMetrics("learn", "flights")
    for partition in (0, 1):
        role.lag("log", partition, 9)
        role.pending(partition, 4)
    role.of("tree").lag("log", 0, 2)
    role.forget("log", 0)

    assert value(role, "millrace_lag_records", topic="log", partition="0") is None
    assert value(role, "millrace_pending_events", partition="0") is None
    assert value(role, "millrace_lag_records", topic="log", partition="1") == 9
    assert value(role, "millrace_lag_records", candidate="tree", topic="log", partition="0") == 2


def test_ages_grow_between_updates() -> None:
    """Snapshot and version ages are computed at the scrape, from the clock given."""
    now = 100.0
    role = RoleMetrics("learn", "flights", clock=lambda: now)
    role.snapshot_taken(0, 0.02, 4_096)
    role.serving(lineage=1, examples=500, made_us=90_000_000)
    now = 107.0

    assert value(role, "millrace_snapshot_age_seconds", partition="0") == 7.0
    assert value(role, "millrace_version_age_seconds") == 17.0
    assert value(role, "millrace_version_examples") == 500


def test_latencies_are_added_by_bucket() -> None:
    """As the kernel that renders answers counts them."""
    role = RoleMetrics("learn", "flights")
    counts = np.bincount([0, 2], minlength=len(LATENCY_BOUNDS_S) + 1)
    role.predicted(counts, 0.003)
    role.predicted(counts, 0.004)

    assert value(role, "millrace_latency_seconds_count") == 4
    assert value(role, "millrace_latency_seconds_bucket", le="0.001") == 2
    assert value(role, "millrace_latency_seconds_bucket", le="0.002") == 2
    assert value(role, "millrace_latency_seconds_sum") == pytest.approx(0.007)


def test_metrics_are_served_and_read_back() -> None:
    """What one process serves, `parse` reads: names, labels and values."""
    role = RoleMetrics("learn", "flights")
    role.mark("examples", 0, metrics.END_US)
    port = serve_metrics(role.registry)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        samples = list(scraping.parse(answer.read().decode()))

    mark = [sample for sample in samples if sample.name == "millrace_mark_seconds"]
    assert [(sample.labels["topic"], sample.value) for sample in mark] == [("examples", math.inf)]
    assert any(sample.name == "process_resident_memory_bytes" and sample.value > 1e6 for sample in samples)


def test_a_taken_port_is_one_clear_error() -> None:
    """A port in use names the address and the option that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port}.*--metrics"):
            serve_metrics(CollectorRegistry(), port=port)


def test_the_page_and_the_code_agree() -> None:
    """docs/metrics.md names every metric with its kind and its labels, and nothing else."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    written = {(name, kind, *re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}
    role = RoleMetrics("learn", "flights")
    exists = set()
    for family in vars(role.families).values():
        labels = family._label_names if isinstance(family, BinnedHistogram) else family._labelnames
        for described in family.collect():
            name = described.name + "_total" * (described.type == "counter")
            exists.add((name, described.type, *(label for label in labels if label not in BASE)))

    assert written == exists


def test_the_page_names_every_incident() -> None:
    """Of those that code names where it counts them: an alert can only be written on what people know of."""
    parts = ("consumers", "models", "serving", "streams")
    sources = [path.read_text(encoding="utf-8") for part in parts for path in (PAGE.parents[1] / part).glob("*.py")]
    counted = {name for source in sources for name in re.findall(r'\.incident\(\s*"([a-z_]+)"', source)}
    [line] = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "millrace_incidents_total" in line]

    assert {"answer_failed", "jump", "scores_unread"} <= counted
    assert counted - set(re.findall(r"`([a-z_]+)`", line)) == set()


def test_the_page_names_the_process_metrics() -> None:
    """What the client library adds is on the page too."""
    names = {
        family.name + "_total" * (family.type == "counter") for family in ProcessCollector(registry=None).collect()
    }

    assert names <= set(re.findall(r"process_\w+", PAGE.read_text()))


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in the docstrings are the numbers the code gives."""
    assert doctest.testmod(metrics).failed == 0
