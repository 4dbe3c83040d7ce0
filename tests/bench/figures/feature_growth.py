"""What an event costs the features task, by number of features, of keys, and by length of the window."""

from __future__ import annotations

import time

import msgspec
import numpy as np

from consumers.featurize import FeatureTask
from streams.pipeline import Feature, Operation, Pipeline
from streams.pipeline_file import read_pipeline
from tests.bench.feature_state import BATCH_ROWS, DAY_US, HOUR_US, MINUTE_US, batches
from tests.bench.figure import Figure, Ratio
from tests.bench.workplace import BENCH_FILE, FULL, Workplace

SECOND_US = 1_000_000
EVENT_US = 100
OF_A_WINDOW: tuple[tuple[Operation, str], ...] = (
    ("count", "*"),
    ("sum", "amount"),
    ("sum", "distance"),
    ("sum", "speed"),
)
LENGTHS_US = tuple(minutes * MINUTE_US for minutes in (1, 2, 5, 10, 20, 30, 60, 120))
FEATURES = (4, 8, 16, 32)
KEYS = {"1k": 1_000, "100k": 100_000, "1m": 1_000_000}
WINDOWS_US = {"10s": 10 * SECOND_US, "1h": HOUR_US, "1d": DAY_US, "90d": 90 * DAY_US}
KEYS_OF_OTHERS = 10_000
QUIET_SHARE = 0.1  # of the batches: in the others somebody else may have had the caches

FIGURES = (
    *(Figure(f"event_ns_{count}_features", "ns") for count in FEATURES),
    *(Figure(f"event_ns_{name}_keys", "ns") for name in KEYS),
    *(Figure(f"event_ns_{name}_window", "ns") for name in WINDOWS_US),
)
RATIOS = (
    Ratio("speed_32_features_vs_4", "event_ns_4_features", "event_ns_32_features", bound=4 / 32),
    Ratio("speed_1m_keys_vs_1k", "event_ns_1k_keys", "event_ns_1m_keys", bound=0.4),
    Ratio("speed_90d_window_vs_10s", "event_ns_10s_window", "event_ns_90d_window", bound=0.9),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Run one task after the other in this process, each over events of evenly drawn keys."""
    pipeline, is_full = read_pipeline(BENCH_FILE), workplace.size == FULL
    events = 400_000 if is_full else 100_000
    found = {
        f"event_ns_{count}_features": _event_ns(pipeline, LENGTHS_US[: count // 4], KEYS_OF_OTHERS, events)
        for count in FEATURES
    }
    for name, keys in KEYS.items():
        found[f"event_ns_{name}_keys"] = _event_ns(pipeline, LENGTHS_US[:4], keys if is_full else keys // 10, events)
    for name, length_us in WINDOWS_US.items():
        found[f"event_ns_{name}_window"] = _event_ns(pipeline, (length_us,), KEYS_OF_OTHERS, events)
    return found


def _event_ns(pipeline: Pipeline, lengths_us: tuple[int, ...], keys: int, events: int) -> float:
    """Give the processor time an event takes when every key has its state; of a quiet batch; four features a window."""
    features = tuple(
        Feature(f"{how}_{of}_{length_us}", how, of, "key", length_us)
        for length_us in lengths_us
        for how, of in OF_A_WINDOW
    )
    labels = msgspec.structs.replace(pipeline.labels, wait_us=1, keep_us=1)
    alone = msgspec.structs.replace(pipeline, features=features, labels=labels)
    task, filling = FeatureTask(alone, 0, 7), 3 * keys // (BATCH_ROWS // 2) + 1
    took_ns: list[float] = []
    for number, batch in enumerate(
        batches(alone, keys, filling * (BATCH_ROWS // 2) + events, EVENT_US, with_labels=False)
    ):
        began_ns = time.process_time_ns()
        task.process(batch)
        if number >= filling:
            took_ns.append((time.process_time_ns() - began_ns) / batch.rows.num_rows)
    return float(np.quantile(took_ns, QUIET_SHARE))
