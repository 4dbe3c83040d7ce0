"""Latency: event produced → its prediction consumed, all roles running on this machine, at two steady rates.

Open loop: events leave by a schedule, whatever comes back, and the clock of each starts when it was due.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from tests.bench.figure import Figure
from tests.bench.first_prediction import wait_for_first_prediction
from tests.bench.kafka import BenchError
from tests.bench.processes import python_module
from tests.bench.workplace import DIRECTORY, Workplace

ROLES = ("ingest", "features", "learn", "serve")
START_IN_S = 4.0  # the publisher makes its records before the first is due
RATES = {"1k": 1_000, "20k": 20_000}

FIGURES = (
    Figure("latency_1k_p50_ms", "ms", bound=15, is_floor=False),
    Figure("latency_1k_p99_ms", "ms", bound=50, is_floor=False),
    Figure("latency_20k_p50_ms", "ms", bound=40, is_floor=False),
    Figure("latency_20k_p99_ms", "ms", bound=100, is_floor=False),
    Figure("latency_20k_sent_late_p99_ms", "ms"),
)


def measure(workplace: Workplace) -> dict[str, float]:
    """Measure both rates, each with a pipeline of its own."""
    found: dict[str, float] = {}
    for name, rate in RATES.items():
        latencies_ms, delays_ms = measure_rate(workplace, rate)
        found[f"latency_{name}_p50_ms"] = float(np.percentile(latencies_ms, 50))
        found[f"latency_{name}_p99_ms"] = float(np.percentile(latencies_ms, 99))
        found[f"latency_{name}_sent_late_p99_ms"] = float(np.percentile(delays_ms, 99))
    del found["latency_1k_sent_late_p99_ms"]
    return found


def measure_rate(workplace: Workplace, rate: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the latency of every prediction after the warm-up, and how late the publisher sent each event, in ms.

    Raises:
        BenchError: an event has no prediction.
    """
    size = workplace.size
    events = int(rate * size.latency_s)
    with workplace.run(own_input=True) as run, workplace.group(f"{run.name}-latency-{rate}") as processes:
        for role in ROLES:
            workplace.role(processes, run, role)
        topics = run.topic("events"), run.topic("labels")
        wait_for_first_prediction(workplace.broker.address, topics[0], run.topic("predictions"), processes.check)
        arrivals, delays = (DIRECTORY / "logs" / f"{run.name}-{what}.npy" for what in ("arrivals", "delays"))
        address = workplace.broker.address
        receive = python_module("receive", address, run.topic("predictions"), "--events", str(events))
        receiver = processes.start("receive", [*receive, "--to", str(arrivals)])
        start_us = int((time.time() + START_IN_S) * 1e6)
        publish = python_module("publish", address, *topics, "--events", str(events), "--rate", str(rate))
        publisher = processes.start("publish", [*publish, "--start", str(start_us), "--delays", str(delays)])
        publisher.wait(START_IN_S + size.latency_s + 60)
        receiver.wait(60)
    number, arrived_us = np.load(arrivals).T
    number, first = np.unique(number, return_index=True)  # an answer may come twice, never not at all
    if number.size != events:
        raise BenchError(f"{events - number.size:,} of {events:,} events at {rate:,}/s have no prediction")
    due_us = start_us + number * 1_000_000 // rate
    is_warm = number >= int(rate * size.warm_up_s)
    delays_us: npt.NDArray[np.int64] = np.load(delays)
    return (arrived_us[first] - due_us)[is_warm] / 1e3, delays_us[is_warm] / 1e3
