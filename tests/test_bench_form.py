"""The bench's own arithmetic: its input is the same in every run, speeds and bounds are as docs/benchmarks.md says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.figure import Figure, Measurement, Ratio, choose, is_reached, measurements, with_ratios
from tests.bench.load import BLOCK_ROWS, LABEL_AFTER_US, START_US, Load, block, event_number
from tests.bench.progress import steady_rate
from tests.bench.report import make_report, write_json
from tests.bench.weights import scored_by
from tests.bench.workplace import feature_names
from tests.memory_kafka import Record

PROMISED = {
    *("ingest", "features", "learn", "serve", "end_to_end"),
    *("end_to_end_vs_faust", "end_to_end_vs_quix", "features_vs_kafka_streams_cpu", "ingest_vs_bare"),
    *("latency_1k_p50_ms", "latency_1k_p99_ms", "latency_20k_p50_ms", "latency_20k_p99_ms"),
    *("start_s", "features_rss_mib"),
    *("features16_100k", "features16_1k", "two_stages", "snapshot_pause_ms", "recovery_1m_keys_s"),
    *("speed_32_features_vs_4", "speed_1m_keys_vs_1k", "speed_90d_window_vs_10s"),
    *("online_store_writes", "serve_with_store_vs_without"),
    *("learn_1", "learn_4", "logistic_vs_river"),
    "mlp",
    *("archive", "train_vs_bare_loop", "frozen_mlp_vs_torch"),
    *("keys_p99_ms", "event_wait_p50_ms"),
    *("hoeffding_vs_river", "halfspace_vs_river"),
    *("linear_regression_vs_river", "softmax_vs_river", "adagrad_vs_river", "ftrl_vs_river"),
    *("naive_bayes_vs_river", "mlp_vs_torch"),
    *("aa_false_rate", "power_events", "rollback_events"),
}

GOLDEN_EVENT = (
    b'{"id":"e0000020000","key":"k077014","time":1735689602000000,"amount":200.73,"distance":2701.8,"sp'
    b'eed":24.39,"channel":"app","region":"r25"}'
)
GOLDEN_LABEL = b'{"id":"e0000020000","key":"k077014","time":1735689603000000,"late":0}'


def test_an_event_is_json_of_about_140_bytes_with_a_label_one_second_later() -> None:
    made = block(Load(), 0, 3)

    event, label = json.loads(made.events[2]), json.loads(made.labels[2])

    assert 130 <= len(made.events[2]) <= 150
    assert event_number(event["id"]) == 2
    assert event["time"] == START_US + 200
    assert (label["id"], label["key"], label["time"]) == (event["id"], event["key"], event["time"] + LABEL_AFTER_US)
    assert made.keys[2] == event["key"].encode()


def test_the_bytes_of_the_input_are_fixed() -> None:
    made = block(Load(), BLOCK_ROWS, 1)

    assert made.events == [GOLDEN_EVENT]
    assert made.labels == [GOLDEN_LABEL]


def test_a_short_block_is_the_beginning_of_the_long_one() -> None:
    assert block(Load(), 0, 10).events == block(Load(), 0, 500).events[:10]


def test_records_of_a_key_go_to_one_partition() -> None:
    made = block(Load(keys=50), 0, 2_000)

    assert len(set(zip(made.keys, made.partitions, strict=True))) == 50
    assert set(made.partitions) == {0, 1, 2, 3}


def test_a_steady_rate_leaves_out_start_up_and_the_last_batch() -> None:
    times_s = [0.0, 10.0, 10.1, 11.0, 19.0]
    done = [0.0, 0.0, 100.0, 1_000.0, 1_000.0]

    assert steady_rate(times_s, done) == pytest.approx(1_000.0)


def test_a_steady_rate_is_not_that_of_what_came_all_at_once() -> None:
    times_s = [0.1 * place for place in range(22)]
    done = [0.0] * 11 + [500.0 + 1_000.0 * (time_s - 1.0) for time_s in times_s[11:]]  # half of a second was held back
    assert steady_rate(times_s, done) == pytest.approx(1_000.0)


def test_a_rate_without_progress_is_an_error() -> None:
    with pytest.raises(ValueError, match="no steady phase"):
        steady_rate([0.0, 1.0], [0.0, 0.0])


def test_rates_are_required_in_proportion_to_the_bare_loop_and_others_as_they_are() -> None:
    rate = Figure("ingest", "events/s", bound=250_000, scales=True)
    most = Figure("start_s", "s", bound=20, is_floor=False)
    took = Figure("latency_1k_p50_ms", "ms", bound=15, is_floor=False, scales=True)

    assert is_reached(rate, 130_000, bare=220_000) is True
    assert is_reached(rate, 130_000, bare=440_000) is False
    assert is_reached(most, 21, bare=220_000) is False
    assert is_reached(rate, 490_000, bare=880_000) is False
    assert is_reached(took, 29, bare=220_000) is True
    assert is_reached(took, 31, bare=220_000) is False
    assert is_reached(took, 14, bare=880_000) is False


def test_blocks_of_other_candidates_in_the_same_topic_count_for_nothing() -> None:
    ours, theirs = (
        Record("scores", 0, 0, 0, None, json.dumps({"candidate": name, "blocks": [{}, {}]}).encode(), None)
        for name in ("faster", "river")
    )
    weigh: Callable[[Any], float] = scored_by("faster")

    assert [weigh(message) for message in (ours, theirs)] == [200.0, 0.0]


def test_ratios_are_taken_run_by_run() -> None:
    runs = {"ours": [10.0, 30.0], "theirs": [5.0, 10.0]}

    assert with_ratios(runs, [Ratio("ratio", "ours", "theirs")])["ratio"] == [2.0, 3.0]


def test_choosing_a_ratio_measures_both_sides_and_the_bare_loop() -> None:
    names = [measurement.name for measurement in choose(measurements(), {"end_to_end_vs_quix"})]

    assert names == ["bare", "end_to_end", "peers"]


def test_an_unknown_figure_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="no figure is called speed; there are aa_false_rate, adagrad, "):
        choose(measurements(), {"speed"})


def test_every_promised_figure_is_declared() -> None:
    found = measurements()
    declared = {figure.name for m in found for figure in m.figures if figure.bound is not None}
    declared |= {ratio.name for m in found for ratio in m.ratios if ratio.bound is not None}

    assert declared >= PROMISED


def test_bench_json_has_the_promised_form(tmp_path: Path) -> None:
    figures = (Figure("bare", "records/s"), Figure("ingest", "events/s", bound=1, scales=True))
    measured = [Measurement("bare", figures, (Ratio("ingest_vs_bare", "ingest", "bare"),), lambda _: {})]
    runs = with_ratios({"bare": [400.0, 420.0, 380.0], "ingest": [200.0, 300.0, 190.0]}, measured[0].ratios)

    write_json(make_report(measured, runs), tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())

    assert set(written) == {"figures", "machine", "versions"}
    columns = ("name", "value", "unit", "ratio", "against", "runs")
    assert [tuple(figure) for figure in written["figures"]] == [columns] * 3
    assert [tuple(figure.values()) for figure in written["figures"][1:]] == [
        ("ingest", 200.0, "events/s", 0.5, "bare", [200.0, 300.0, 190.0]),
        ("ingest_vs_bare", 0.5, "x", 0.5, "bare", [0.5, 0.71429, 0.5]),
    ]


def test_the_bench_pipeline_has_sixteen_features() -> None:
    assert len(feature_names()) == 16
