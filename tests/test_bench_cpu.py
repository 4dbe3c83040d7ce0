"""Processor time in the bench: that of the processes of a run, in the part of the work that counts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.cpu import CpuMeter, events_per_cpu_s
from tests.bench.processes import Group, group

BUSY = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ntime.sleep(60)"
IDLE = "print('done', flush=True)\nimport time; time.sleep(60)"


class Used(Group):
    """Stands for processes that have used a given time."""

    def __init__(self, used_s: list[float]) -> None:
        super().__init__(Path())
        self._used_s = iter(used_s)

    def cpu_s(self) -> float:
        return next(self._used_s)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Group]:
    with group(tmp_path) as running:
        yield running


def metered(times_s: list[float], used_s: list[float]) -> CpuMeter:
    clock: Iterator[float] = iter(times_s)
    meter = CpuMeter(Used(used_s), clock=lambda: next(clock))
    for _ in times_s:
        meter.sample()
    return meter


def test_a_cost_leaves_out_what_was_used_outside_the_steady_phase() -> None:
    meter = metered([0.0, 10.0, 11.0, 20.0], [0.0, 30.0, 31.8, 50.0])  # 1.8 s for the 1,000 events of one second

    assert events_per_cpu_s([0.0, 10.0, 11.0], [0.0, 0.0, 1_000.0], meter) == pytest.approx(1_000 / 1.8)


def test_a_later_beginning_of_the_steady_phase_leaves_out_a_costly_first_half() -> None:
    meter = metered([0.0, 5.0, 10.0], [0.0, 8.0, 9.0])

    assert events_per_cpu_s([0.0, 10.0], [0.0, 1_000.0], meter, low=0.5, high=1.0) == pytest.approx(500.0)


def test_work_without_processor_time_is_an_error() -> None:
    meter = metered([0.0, 1.0], [3.0, 3.0])

    with pytest.raises(ValueError, match="no processor time in 2 samples"):
        events_per_cpu_s([0.0, 1.0], [0.0, 100.0], meter)


def test_processor_time_is_that_of_all_processes_of_a_group(processes: Group, tmp_path: Path) -> None:
    processes.start("busy", [sys.executable, "-c", BUSY])
    processes.start("busy too", [sys.executable, "-c", BUSY])
    processes.start("idle", [sys.executable, "-c", IDLE])

    while not all((tmp_path / f"{name}.log").read_text() for name in ("busy", "busy too", "idle")):
        processes.check()
        time.sleep(0.01)

    assert 0.95 <= processes.cpu_s() < 2.0  # twice 0.5, in whole ticks, and what Python takes to start
