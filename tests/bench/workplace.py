"""Where a bench runs: a broker, the input on it, a pipeline file per run, and the programs to measure."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.kafka import BenchError, Broker
from tests.bench.load import KEYS, PARTITIONS, Load
from tests.bench.processes import ROOT, Group, Process, group, python_module

BENCH_FILE = Path(__file__).with_name("bench.toml")
DIRECTORY = ROOT / ".bench"
MILLRACE = Path(sys.executable).with_name("millrace")
EVENTS_TOPIC, LABELS_TOPIC = "bench.events", "bench.labels"
READY_S = 60.0  # a role compiles its kernels once, when the cache is cold


class Size(NamedTuple):
    """How much is measured; `--quick` is for seeing that everything works, not for numbers to show."""

    events: int
    peer_s: float
    latency_s: float
    warm_up_s: float
    warm_broker_s: float
    keys: int = KEYS


FULL = Size(events=2_000_000, peer_s=30.0, latency_s=15.0, warm_up_s=3.0, warm_broker_s=60.0)
QUICK = Size(events=300_000, peer_s=8.0, latency_s=6.0, warm_up_s=2.0, warm_broker_s=3.0)


class Run(NamedTuple):
    """One pipeline of one run: inner topics, groups and state of its own over the common raw input."""

    name: str
    file: Path
    state: Path

    def topic(self, kind: str) -> str:
        """The pipeline's topic of a kind."""
        return f"{self.name}.{kind}"


class Workplace:
    """What a measurement gets: `with workplace.run() as run, workplace.group(run.name) as processes: …`."""

    def __init__(self, broker: Broker, size: Size) -> None:
        self.broker, self.size = broker, size
        self.is_warm = False  # see steady_stream.py
        self._runs = 0
        self._is_published = False

    @property
    def load(self) -> Load:
        """What `publish` publishes."""
        return Load(keys=self.size.keys)

    def publish(self) -> tuple[str, str]:
        """Publish the raw input, once for all runs; give its topics (events, labels)."""
        if not self._is_published:
            self.broker.delete_all("bench.")
            self.broker.create(EVENTS_TOPIC, LABELS_TOPIC, partitions=PARTITIONS)
            command = python_module("publish", self.broker.address, EVENTS_TOPIC, LABELS_TOPIC)
            command += ["--events", str(self.size.events), "--keys", str(self.size.keys)]
            with self.group("publish") as processes:
                processes.start("publish", command).wait(600)
            self._is_published = True
        return EVENTS_TOPIC, LABELS_TOPIC

    @contextmanager
    def run(self, file: Path = BENCH_FILE, *, own_input: bool = False) -> Iterator[Run]:
        """Give a fresh pipeline; its topics and state are removed afterwards. `own_input` gives it empty raw topics."""
        self._runs += 1
        name = f"bench{self._runs}"
        run = write_run(file, name, self.broker.address, own_input=own_input)
        if own_input:
            self.broker.create(run.topic("events"), run.topic("labels"), partitions=PARTITIONS)
        try:
            yield run
        finally:
            self.broker.delete_all(f"{name}.")
            shutil.rmtree(run.state.parent, ignore_errors=True)

    @contextmanager
    def group(self, name: str) -> Iterator[Group]:
        """Give a group of processes that is stopped at the end; their logs are under .bench/logs/<name>."""
        with group(DIRECTORY / "logs" / name) as processes:
            yield processes

    def role(self, processes: Group, run: Run, role: str, models: Sequence[str] = ()) -> Process:
        """Start one role and wait until its metrics answer; learn with the candidates named, or else with all."""
        port = free_port()
        command = [str(MILLRACE), "run", role, str(run.file), "--metrics", f"127.0.0.1:{port}"]
        if role == "learn":
            command += ["--models", ",".join(models or candidates())]
        process = processes.start(role, command)
        process.metrics_port = port
        wait_for_metrics(port, process)
        return process


def write_run(source: Path, name: str, broker: str, *, own_input: bool) -> Run:
    """Write the pipeline file of one run under .bench/runs, with an empty state directory beside it.

    Raises:
        BenchError: the source no longer has a line that is to be changed.
    """
    directory = DIRECTORY / "runs" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    changes = {
        'name = "bench"': f'name = "{name}"',
        'state = "state/bench"': f'state = "{directory / "state"}"',
        '"127.0.0.1:9092"': f'"{broker}"',
    }
    if own_input:
        changes |= {f'"{EVENTS_TOPIC}"': f'"{name}.events"', f'"{LABELS_TOPIC}"': f'"{name}.labels"'}
    file = directory / "pipeline.toml"
    shutil.copyfile(source, file)
    for old, new in changes.items():
        change(file, old, new)
    return Run(name, file, directory / "state")


def change(file: Path, old: str, new: str) -> None:
    """Put a text in the place of another in a pipeline file.

    Raises:
        BenchError: the file does not have that exactly once.
    """
    text = file.read_text()
    if text.count(old) != 1:
        raise BenchError(f"{file} must have {old} exactly once")
    file.write_text(text.replace(old, new))


def candidates() -> list[str]:
    """The candidate models of the bench pipeline."""
    return list(tomllib.loads(BENCH_FILE.read_text())["models"])


def feature_names() -> list[str]:
    """The features of the bench pipeline."""
    declared = tomllib.loads(BENCH_FILE.read_text())["features"]
    return [name for name, value in declared.items() if isinstance(value, dict)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_metrics(port: int, process: Process) -> None:
    """Wait until a role answers /metrics.

    Raises:
        BenchError: it has ended, or does not answer in time.
    """
    limit_s = time.monotonic() + READY_S
    while time.monotonic() < limit_s:
        process.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise BenchError(f"{process.name} does not answer on port {port} after {READY_S:.0f} s")


def environment(name: str, *requirements: str) -> Path:
    """Give the Python of a peer's own environment under .bench/, made on first use; it shares nothing with ours."""
    directory = DIRECTORY / name
    stamp = directory / "requirements.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != list(requirements):
        print(f"making an environment for {name}: {' '.join(requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        install = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *requirements], check=True)
        stamp.write_text(json.dumps(list(requirements)))
    return directory / "bin/python"
