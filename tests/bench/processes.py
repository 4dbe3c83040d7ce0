"""Child processes of the bench: each with a log of its own, watched, and stopped also when a run fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from streams.scraping import Sample, parse
from tests.bench.kafka import BenchError

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 15.0  # a role drains and writes a snapshot within 5 s


class Process:
    """One running child."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.name, self._log = name, log
        self.metrics_port = 0  # where a role answers /metrics
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._child.pid

    def check(self) -> None:
        """Raise BenchError, with the end of its log, when the child has ended."""
        code = self._child.poll()
        if code is not None:
            raise BenchError(f"{self.name} ended with {code}; the end of {self._log}:\n{self._last_lines()}")

    def wait(self, limit_s: float) -> None:
        """Wait for a child that ends by itself.

        Raises:
            BenchError: it failed, or did not end in time.
        """
        try:
            code = self._child.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self.name} still runs after {limit_s:.0f} s; see {self._log}") from error
        if code:
            raise BenchError(f"{self.name} failed with {code}; the end of {self._log}:\n{self._last_lines()}")

    def stop(self) -> None:
        """End the child and what it started: politely, then not."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()

    def memory_mib(self) -> tuple[float, float]:
        """Give the resident memory now, and its peak since the start."""
        lines = Path(f"/proc/{self._child.pid}/status").read_text().splitlines()
        kib = {line.split(":")[0]: float(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
        return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024

    def cpu_s(self) -> float:
        """Give the processor time that the child has used since its start, of all its threads, in steps of 10 ms."""
        after_name = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime

    def metrics(self) -> list[Sample]:
        """Give all series that a role tells now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            return list(parse(answer.read().decode()))

    def _last_lines(self, lines: int = 12) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


class Group:
    """Children that are started one by one and stopped together."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Process] = []

    def start(self, name: str, command: Sequence[str]) -> Process:
        """Start a child; its output goes to `<logs>/<name>.log`."""
        process = Process(name, command, self._logs / f"{name}.log")
        self._running.append(process)
        return process

    def check(self) -> None:
        """Raise BenchError when one of them has ended."""
        for process in self._running:
            process.check()

    def cpu_s(self) -> float:
        """Give the processor time that all of them have used."""
        return sum(process.cpu_s() for process in self._running)

    def stop(self) -> None:
        """Stop all, the newest first."""
        while self._running:
            self._running.pop().stop()


@contextmanager
def group(logs: Path) -> Iterator[Group]:
    """Give a group that is stopped at the end of the block, whatever happens in it."""
    running = Group(logs)
    try:
        yield running
    finally:
        running.stop()


def python_module(name: str, *arguments: str) -> list[str]:
    """Give the command that runs a module of the bench in a process of its own."""
    return [sys.executable, "-m", f"tests.bench.{name}", *arguments]


def wait_until_s(at_s: float) -> None:
    """Sleep until a moment of the wall clock."""
    time.sleep(max(0.0, at_s - time.time()))
