"""What a run costs: processor time of its processes, all threads, and how many events a second of it buys.

The broker is no child of the group that is measured, so what it uses counts for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tests.bench.processes import Group
from tests.bench.progress import HIGH, LOW, steady_phase


class CpuMeter:
    """Notes what a group has used. `sample` also checks the group, so it serves `watch_for` as its `check`."""

    def __init__(self, group: Group, clock: Callable[[], float] = time.monotonic) -> None:
        self._group, self._clock = group, clock
        self.times_s: list[float] = []
        self.used_s: list[float] = []

    def sample(self) -> None:
        """Note the processor time now.

        Raises:
            BenchError: a process has ended.
        """
        self._group.check()
        self.used_s.append(self._group.cpu_s())
        self.times_s.append(self._clock())


def events_per_cpu_s(
    times_s: list[float], done: list[float], meter: CpuMeter, low: float = LOW, high: float = HIGH
) -> float:
    """Give the events for each second of processor time in the steady phase.

    Raises:
        ValueError: the samples show no progress, or no processor time was used meanwhile.
    """
    phase = steady_phase(times_s, done, low, high)
    start_s, stop_s = np.interp(phase, meter.times_s, meter.used_s)
    if stop_s <= start_s:
        raise ValueError(f"no processor time in {len(meter.used_s)} samples; give it more events")
    before, after = np.interp(phase, times_s, done)
    return float((after - before) / (stop_s - start_s))
