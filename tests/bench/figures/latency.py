"""Latency: event produced → its prediction consumed, all roles running on this machine, at two steady rates."""

from __future__ import annotations

import numpy as np

from tests.bench.figure import Figure
from tests.bench.steady_stream import run_stream, warm_broker
from tests.bench.workplace import Workplace

RATES = {"1k": 1_000, "20k": 20_000}

FIGURES = (
    Figure("latency_1k_p50_ms", "ms", bound=15, is_floor=False, scales=True),
    Figure("latency_1k_p99_ms", "ms", bound=50, is_floor=False, scales=True),
    Figure("latency_20k_p50_ms", "ms", bound=40, is_floor=False, scales=True),
    Figure("latency_20k_p99_ms", "ms", bound=100, is_floor=False, scales=True),
    Figure("latency_20k_sent_late_p99_ms", "ms"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Measure both rates, each with a pipeline of its own, on a broker that is warm."""
    warm_broker(workplace)
    found: dict[str, float] = {}
    for name, rate in RATES.items():
        with workplace.run(own_input=True) as run:
            stream = run_stream(workplace, run, rate)
        found[f"latency_{name}_p50_ms"] = float(np.percentile(stream.latency_ms, 50))
        found[f"latency_{name}_p99_ms"] = float(np.percentile(stream.latency_ms, 99))
        found[f"latency_{name}_sent_late_p99_ms"] = float(np.percentile(stream.sent_late_ms, 99))
    del found["latency_1k_sent_late_p99_ms"]
    return found
