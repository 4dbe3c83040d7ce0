"""A whole pipeline of real processes on real Kafka, under live traffic, with deaths where a test wants them.

`System` starts the roles, lets them die and live, brings everything to its end; then it is a `verify.Written`, and
`verify.check` compares what is on the topics with a recomputation.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from consumers.process import KafkaControlLog
from consumers.supervisor import Status, free_ports
from serving.brokers import ensure_topics
from serving.overview import Overview, Watch, fetch_metrics
from streams.children import Child
from streams.control import Control
from streams.faults import VARIABLE
from streams.kafka import Message, read_all
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.scraping import parse
from streams.served import has_served
from streams.snapshots import SnapshotStore, State
from streams.stages import stage_specs
from streams.state_folder import state_of

ROOT = Path(__file__).resolve().parents[2]
MILLRACE = (str(Path(sys.executable).with_name("millrace")),)
WITHOUT_SEQUENCES = (sys.executable, "-m", "tests.faults.without_sequences")
PAUSING = (sys.executable, "-m", "tests.faults.pausing")
ROLES = ("ingest", "features", "learn", "serve")
PARTITIONS = {"ingest": 4, "features": 2, "learn": 1, "serve": 2}  # of the input of each role
POLL_S = 0.1
SCRAPE_EVERY_S = 0.5
PATIENCE_S = 300.0  # for anything awaited; kernels may have to be compiled, on a busy machine
STOP_S = 30.0


def write_pipeline(
    directory: Path, name: str, brokers: str, more_features: str = "", state: str = "state", more_models: str = ""
) -> Path:
    """Write the pipeline file of a run."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "pipeline.toml"
    text = Path(__file__).with_name("pipeline.toml").read_text()
    text = text.replace("[features]\n", f"[features]\n{more_features}").replace('state = "state"', f'state = "{state}"')
    text = text.replace("[serve]\n", f"{more_models}[serve]\n")
    file.write_text(text.replace("NAME", name).replace("BROKERS", brokers))
    return file


def until(is_so: Callable[[], bool], what: str, wait_s: float = PATIENCE_S) -> None:
    """Wait for something, with a deadline."""
    deadline = time.monotonic() + wait_s
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {wait_s:.0f} s"
        time.sleep(POLL_S)


class Death(NamedTuple):
    """How a process is to die: at the `times`-th passing of a fail point, or some time after it took its first rows."""

    point: str | None = None
    times: int = 1
    after_s: float = 0.0


class Process:
    """One process of a role, started again and again under the same name."""

    def __init__(self, role: str, name: str, port: int, file: Path, program: Sequence[str]) -> None:
        self.role, self.name, self.port = role, name, port
        self._command = [*program, "run", role, str(file), "--metrics", f"127.0.0.1:{port}", "--instance", name]
        self.log_path = file.parent / f"{name}.log"
        self.child = self._make(None)
        self.plan: list[Death] = []
        self.deaths = 0
        self._death: Death | None = None
        self._die_at_s = self._next_look_s = 0.0

    def _make(self, point: str | None) -> Child:
        # The tests' modules are found from the root; the installed program needs no path.
        environment = {"PYTHONPATH": str(ROOT)} | ({VARIABLE: point} if point else {})
        return Child(self.name, self._command, log_path=self.log_path, environment=environment)

    def start(self, point: str | None = None) -> None:
        """Start it, with the next death of its plan ahead, or armed with a fail point of its own."""
        self._death = self.plan.pop(0) if self.plan else None
        self._die_at_s = 0.0
        if self._death is not None and self._death.point is not None:
            point = f"{self._death.point}:{self._death.times}"
        self.child = self._make(point)
        self.child.start()

    def tend(self) -> None:
        """Kill it when its time has come, start it again when it is dead; any other end is a failure."""
        if self.child.pid == 0:
            return
        if self.child.is_running():
            self._kill_in_time()
            return
        is_killed = self._death is not None and self.child.exit_code() == -signal.SIGKILL
        assert is_killed, f"{self.name} ended by itself ({self.child.exit_code()}): {self.child.tail()}"
        self.deaths += 1
        self.start()

    def _kill_in_time(self) -> None:
        now = time.monotonic()
        if self._death is None or self._death.point is not None or now < self._next_look_s:
            return
        self._next_look_s = now + SCRAPE_EVERY_S
        if not self._die_at_s:
            if self.series("millrace_rows_in_total"):
                self._die_at_s = self._next_look_s = now + self._death.after_s
        else:
            os.kill(self.child.pid, signal.SIGKILL)

    @property
    def is_done(self) -> bool:
        """Whether it has died all its deaths."""
        return self._death is None

    @property
    def is_ready(self) -> bool:
        """Whether it asks for rows and hears SIGTERM, of which a process that still starts dies."""
        return any(self.series("millrace_ready"))

    def series(self, name: str) -> list[float]:
        """The values of a metric, none while it does not answer."""
        text = fetch_metrics(self.port)
        return [] if text is None else [sample.value for sample in parse(text) if sample.name == name]


class System:
    """A running pipeline.

    Args:
        directory: for the pipeline file, the state and the logs.
        name: of the pipeline.
        brokers: bootstrap servers.
        program: what stands for `millrace`.
        more_features: lines for the [features] table; those of other entities make a chain, in one process.
        state: a directory seen from the pipeline file, or an object store's URL.
        more_models: tables of further candidates.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        brokers: str,
        program: Sequence[str] = MILLRACE,
        more_features: str = "",
        state: str = "state",
        more_models: str = "",
    ) -> None:
        self.file = write_pipeline(directory, name, brokers, more_features, state, more_models)
        self.pipeline: Pipeline = read_pipeline(self.file)
        self.raw = [(f"{name}.{topic}", p) for topic in ("events", "labels") for p in range(2)]
        ensure_topics(self.pipeline)
        ports = zip(ROLES, free_ports(len(ROLES)), strict=True)
        self.processes = [Process(role, role, port, self.file, program) for role, port in ports]
        self.had_serve_zombie = False
        self._watch = Watch(self.pipeline)
        self._records: dict[tuple[str, int], list[Message]] = {}

    def of(self, role: str) -> list[Process]:
        """The processes of a role."""
        return [process for process in self.processes if process.role == role]

    @property
    def deaths(self) -> int:
        """How often processes died."""
        return sum(process.deaths for process in self.processes)

    def plan(self, deaths: dict[str, list[Death]]) -> None:
        """Let the first process of a role die so; before `start`."""
        for role, plan in deaths.items():
            self.of(role)[0].plan = list(plan)

    def start(self, roles: Collection[str] = ROLES) -> None:
        """Start all processes of some roles."""
        for process in self.processes:
            if process.role in roles:
                process.start()

    def tend(self) -> None:
        """Kill and restart what is due; the polling loop of a test."""
        for process in self.processes:
            process.tend()

    def until(self, is_so: Callable[[], bool], what: str, wait_s: float = PATIENCE_S) -> None:
        """Tend until something is so."""

        def look() -> bool:
            self.tend()
            return is_so()

        try:
            until(look, what, wait_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.state()}") from error

    def rest(self, rest_s: float) -> None:
        """Only tend for a while."""
        over_s = time.monotonic() + rest_s
        self.until(lambda: time.monotonic() > over_s, "the end of a rest")

    def look(self) -> Overview:
        """Scrape all processes."""
        return self._watch.look([Status(p.name, p.role, p.port, p.child.pid, 0, None) for p in self.processes])

    def until_rows(self, role: str) -> None:
        """Wait until a role has taken rows."""
        self.until(lambda: any(p.series("millrace_rows_in_total") for p in self.of(role)), f"rows for {role}")

    def until_dead(self) -> None:
        """Wait until every planned death was died and its process lives again and takes rows."""
        self.until(lambda: all(process.is_done for process in self.processes), "deaths", 3 * PATIENCE_S)
        for role in ROLES:
            self.until_rows(role)

    def raise_zombie(self, role: str, point: str) -> None:
        """Start a role with a worker that pauses at a fail point until a second one has its partitions."""
        zombie, successor = Process(role, f"{role}-zombie", free_ports(1)[0], self.file, PAUSING), self.of(role)[0]
        self.processes.append(zombie)
        self.had_serve_zombie |= role == "serve"
        zombie.start(point)
        self.until(lambda: psutil.Process(zombie.child.pid).status() == psutil.STATUS_STOPPED, f"{role} pausing")
        successor.start()
        learners = len(self.pipeline.models) + has_served(self.pipeline)
        shared = {"learn": learners, "features": len(stage_specs(self.pipeline))}
        wanted = PARTITIONS[role] * shared.get(role, 1)
        self.until(lambda: len(successor.series("millrace_mark_seconds")) == wanted, "partitions moving")
        os.kill(zombie.child.pid, signal.SIGCONT)

    def finish(self) -> Overview:
        """Wait until serve and learn have taken the end, then stop all; gives the last look."""
        looks: list[Overview] = []

        def has_ended() -> bool:
            looks[:] = [self.look()]
            return looks[0].has_ended

        try:
            self.until(has_ended, "the end reaching serve and learn")
            self.until(lambda: all(process.is_ready for process in self.processes), "all having started")
        finally:
            codes = self.stop()
        assert codes == {process.name: 0 for process in self.processes}, f"{codes}: {self.logs()}"
        return looks[0]

    def stop(self) -> dict[str, int | None]:
        """Stop all processes; gives their exit codes."""
        for process in self.processes:
            process.child.terminate()
        codes = {process.name: process.child.wait(STOP_S) for process in self.processes}
        for process in self.processes:
            process.child.kill()  # what has not ended in time, or is frozen
        return codes

    def state(self) -> str:
        """Where every process stands and what it said last, for a failing test."""
        marks = {p.name: (p.child.exit_code(), p.series("millrace_mark_seconds")) for p in self.processes}
        return f"exit codes and marks {marks}; {self.logs()}"

    def logs(self) -> str:
        """What the processes said, for a failing test."""
        said = defaultdict(str, {p.name: p.child.tail() for p in self.processes if p.log_path.exists()})
        return " || ".join(f"{name}: {text}" for name, text in said.items())

    # What it leaves behind (verify.Written)

    def records(self, topic: str, partition: int) -> list[Message]:
        """All records of a partition."""
        where = (topic, partition)
        if where not in self._records:
            self._records[where] = list(read_all(self.pipeline.kafka, topic, partition))
        return self._records[where]

    def control(self) -> Control:
        """A reader of the control topic."""
        return Control(KafkaControlLog(self.pipeline))

    def learned(self, candidate: str) -> State:
        """The state in a candidate's last snapshot."""
        found = SnapshotStore(state_of(self.pipeline) / "snapshots" / f"learn.{candidate}" / "examples-p0").find()
        assert found.state is not None
        return {n.removeprefix("task."): array for n, array in found.state.items() if n.startswith("task.")}
