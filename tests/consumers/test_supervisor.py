"""The supervisor: which processes there are, how dead ones come back, and how all are stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from consumers.jobs import Job, plan_jobs
from consumers.supervisor import HEALTHY_AFTER_S, Running, Supervisor, free_ports, spawn_child
from streams.errors import MillraceError, PipelineError
from streams.pipeline import Feature, Model, Serve, Task
from streams.pipeline_file import read_pipeline
from streams.retraining import Archive, Retrain
from streams.selecting import Select

FLIGHTS = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
SERVED = Job("learn.served", "learn", ("--models", "served"))
PIPELINE = msgspec.structs.replace(
    FLIGHTS,
    archive=None,
    models=(Model("logistic", "linear", {}), Model("tree", "river:tree.X", {}), Model("usual", "prior", {})),
)


class FakeChild:
    pid = 4711

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.code: int | None = None
        self.signals: list[int] = []

    def exit_code(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.signals.append(signal.SIGTERM)

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.code = -signal.SIGKILL


class Stage:
    """A supervisor with fake children and a hand-driven clock."""

    def __init__(self, folder: Path, jobs: Sequence[Job] = (Job("ingest", "ingest"),), **options: int) -> None:
        self.now = 1_000.0
        self.children: list[FakeChild] = []
        self.lines: list[str] = []
        self.folder = folder
        self.last_words = b""
        self.supervisor = Supervisor(
            jobs,
            ["millrace", "run"],
            Path("flights.toml"),
            folder,
            spawn=self.spawn,
            options=["--replay"],
            say=self.lines.append,
            clock=self.tick,
            **options,
        )
        self.supervisor.start()

    def spawn(self, name: str, command: Sequence[str], log_path: Path) -> FakeChild:
        self.children.append(FakeChild(command))
        return self.children[-1]

    def tick(self) -> float:
        self.now += 0.001
        return self.now

    def die(self, code: int, after_s: float = 0.0, words: bytes = b"") -> None:
        self.now += after_s
        (self.folder / "ingest.log").write_bytes(words)
        self.children[-1].code = code
        self.supervisor.tend()

    def wait(self) -> float:
        """Wait until the next start; return how long it took, to the tenth of a second."""
        since, before = self.now, len(self.children)
        while len(self.children) == before:
            self.now += 0.01
            self.supervisor.tend()
        return round(self.now - since, 1)


def test_each_river_candidate_has_a_process_and_the_fast_ones_share() -> None:
    """Slow candidates delay nobody; names tell the instances of a scaled role apart."""
    jobs = plan_jobs(PIPELINE, {"features": 2})

    assert jobs == [
        Job("ingest", "ingest"),
        Job("features", "features"),
        Job("features-2", "features"),
        Job("serve", "serve"),
        Job("learn", "learn", ("--models", "logistic,usual")),
        Job("learn.tree", "learn", ("--models", "tree")),
        SERVED,
    ]


def test_a_pipeline_that_archives_has_a_process_that_trains_and_each_network_one_that_asks_it() -> None:
    net = Model("net", "torch:mlp", {}, retrain=Retrain())
    of = msgspec.structs.replace(FLIGHTS, models=(PIPELINE.models[0], net), archive=Archive())

    assert plan_jobs(of, {})[3:] == [
        Job("learn", "learn", ("--models", of.models[0].name)),
        Job("learn.net", "learn", ("--models", "net")),
        SERVED,
        Job("train", "train"),
    ]


def test_answers_are_scored_in_a_process_of_their_own_where_the_file_declares_serve() -> None:
    """An answer of a clustering does not tell what it could be judged by."""
    silent = msgspec.structs.replace(FLIGHTS, serve=Serve("logistic", is_declared=False))
    clusters = msgspec.structs.replace(FLIGHTS, task=Task("clustering"))

    assert [SERVED in plan_jobs(of, {}) for of in (FLIGHTS, silent, clusters)] == [True, False, False]


def test_each_stage_of_features_has_processes_of_its_own() -> None:
    """So that an event waits for none of the others; they scale together, and the table tells them apart."""
    of = msgspec.structs.replace(FLIGHTS, models=PIPELINE.models[:1], features=(Feature("n", "lag", "dest", "origin"),))

    jobs = plan_jobs(of, {"features": 2})

    assert [job for job in jobs if job.role == "features"] == [
        Job("features", "features", ("--stage", "1")),
        Job("features-2", "features", ("--stage", "1")),
        Job("features.stage2", "features", ("--stage", "2"), "features.stage2"),
        Job("features.stage2-2", "features", ("--stage", "2"), "features.stage2"),
        Job("features.stage3", "features", ("--stage", "3"), "features.stage3"),
        Job("features.stage3-2", "features", ("--stage", "3"), "features.stage3"),
    ]
    supervisor = Supervisor(jobs[3:4], [], Path(), Path())
    assert [(status.name, status.role) for status in supervisor.statuses()] == [("features.stage2", "features.stage2")]


def test_a_pipeline_that_selects_has_one_selector() -> None:
    """It cannot be scaled: one process decides."""
    of = msgspec.structs.replace(FLIGHTS, select=Select())

    assert plan_jobs(of, {})[-1] == Job("select", "select")
    assert "select" not in {job.role for job in plan_jobs(FLIGHTS, {})}


def test_wrong_scales_are_all_reported() -> None:
    """Each mistake has a line, with the nearest name."""
    with pytest.raises(PipelineError) as caught:
        plan_jobs(PIPELINE, {"feature": 2, "ingest": 0})

    assert caught.value.mistakes == [
        '--scale feature=2: "feature" cannot be scaled, ingest, features, serve can; did you mean "features"?',
        "--scale ingest=0: at least 1 process is needed",
    ]


def test_a_role_is_started_with_its_file_options_port_and_name(tmp_path: Path) -> None:
    """The command line is prefix, role, file, options, the job's own, metrics address, instance."""
    stage = Stage(tmp_path, [Job("learn.tree", "learn", ("--models", "tree"))])
    port = stage.supervisor.statuses()[0].port

    assert stage.children[0].command == [
        *("millrace", "run", "learn", "flights.toml", "--replay", "--models", "tree"),
        *("--metrics", f"127.0.0.1:{port}", "--instance", "learn.tree"),
    ]
    assert json.loads((tmp_path / "targets.json").read_text()) == [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"process": "learn.tree"}}
    ]


def test_a_role_that_keeps_dying_waits_longer_each_time(tmp_path: Path) -> None:
    """Back-off doubles up to half a minute."""
    stage = Stage(tmp_path)
    waits = []
    for _ in range(8):
        stage.die(1)
        waits.append(stage.wait())

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert stage.supervisor.statuses()[0].restarts == 8


def test_a_healthy_time_resets_the_backoff(tmp_path: Path) -> None:
    """A role that ran well and dies is back at once."""
    stage = Stage(tmp_path)
    for _ in range(4):
        stage.die(-9)
        stage.wait()
    stage.die(-9, after_s=HEALTHY_AFTER_S)

    assert stage.wait() == 0.5
    assert "ingest was killed by SIGKILL, starts again in 0.5 s" in stage.lines[-1]


@pytest.mark.parametrize("code", [2, 4, 5, 6, 9, 10])
def test_a_hopeless_role_ends_all_with_its_line(tmp_path: Path, code: int) -> None:
    """No restart mends a wrong file, topic, snapshot, hole, model or archive."""
    stage = Stage(tmp_path)

    with pytest.raises(MillraceError, match=r"^ingest: topic x has 3 partitions$") as caught:
        stage.die(code, words=b"starting\ntopic x has 3 partitions\n\n")

    assert caught.value.exit_code == code
    assert len(stage.children) == 1


def test_deaths_in_a_row_may_be_limited(tmp_path: Path) -> None:
    """The demo does not wait for a role that cannot live."""
    stage = Stage(tmp_path, most_restarts=1)
    stage.die(3)
    stage.wait()

    with pytest.raises(MillraceError, match="died 2 times in a row: no broker") as caught:
        stage.die(3, words=b"no broker")

    assert caught.value.exit_code == 3


def test_a_taken_port_is_given_up_at_the_restart(tmp_path: Path) -> None:
    """Somebody else may have taken the port while the role was down."""
    stage = Stage(tmp_path)
    port = stage.supervisor.statuses()[0].port
    stage.die(1)
    with socket.create_server(("127.0.0.1", port)):
        stage.wait()
    fresh = stage.supervisor.statuses()[0].port

    assert fresh != port
    assert json.loads((tmp_path / "targets.json").read_text())[0]["targets"] == [f"127.0.0.1:{fresh}"]


def test_stop_asks_waits_and_kills(tmp_path: Path) -> None:
    """A child that does not end is killed after the wait, and nothing starts again."""
    stage = Stage(tmp_path)
    stage.supervisor.stop(wait_s=0.002)
    stage.supervisor.tend()

    assert stage.children[0].signals == [signal.SIGTERM, signal.SIGKILL]
    assert len(stage.children) == 1


def test_real_processes_are_restarted_and_stopped(tmp_path: Path) -> None:
    """A killed process comes back with another pid; stop ends it gracefully."""
    script = tmp_path / "role.py"
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    children: list[Running] = []

    def spawn(name: str, command: Sequence[str], log_path: Path) -> Running:
        children.append(spawn_child(name, command, log_path))
        return children[-1]

    command = [sys.executable, str(script)]
    supervisor = Supervisor([Job("ingest", "ingest")], command, Path("p.toml"), tmp_path, spawn=spawn)
    supervisor.start()
    deadline = time.monotonic() + 10
    while not (tmp_path / "ingest.log").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(children[0].pid, signal.SIGKILL)
    while (tmp_path / "ingest.log").read_text().count("up") < 2 and time.monotonic() < deadline:
        supervisor.tend()
    supervisor.stop()

    assert [child.exit_code() for child in children] == [-signal.SIGKILL, -signal.SIGTERM]


def test_free_ports_differ() -> None:
    """Ports looked for together are never the same."""
    assert len(set(free_ports(20))) == 20
