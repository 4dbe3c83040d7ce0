"""The supervisor: one process per role, restarted when it dies, stopped together.

What keeps a pipeline up on one machine. It knows nothing of Kafka and of rows: a role is a command line, an exit code
and a log file. Exactness does not depend on it, for a role may die at any moment; it only makes sure that somebody goes
on.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from consumers.jobs import Job
from streams.children import Child
from streams.errors import MillraceError, UnavailableError

FIRST_BACKOFF_S = 0.5  # a role that died by accident is back at once
LONGEST_BACKOFF_S = 30.0  # one that cannot start does not burn the machine
HEALTHY_AFTER_S = 30.0  # having lived so long, the next death counts as the first again
STOP_WAIT_S = 10.0  # draining and a last snapshot take under 5 s; then the process is killed
POLL_S = 0.05

HOPELESS = frozenset({2, 4, 5, 6, 9, 10})  # exit codes of streams.errors that no restart can mend


class Running(Protocol):
    """A started process; `streams.children.Child` in production."""

    pid: int

    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal), None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it by force."""


Spawn = Callable[[str, Sequence[str], Path], Running]


def spawn_child(name: str, command: Sequence[str], log_path: Path) -> Running:
    """Start a process that dies with us; its output is appended to the log."""
    child = Child(name, command, log_path=log_path)
    child.start()
    return child


class Status(msgspec.Struct, frozen=True):
    """How a job is doing, for the table; stages of features are roles of their own there."""

    name: str
    role: str
    port: int
    pid: int | None
    restarts: int
    retry_in_s: float | None


class Supervisor:
    """Keeps the jobs of a pipeline running.

    Args:
        jobs: what to run, from `plan_jobs`.
        command: starts one role, up to and including the pipeline file's options: the job's role is appended first.
        file: the pipeline file.
        options: more arguments for every role (`--replay`, `--bootstrap …`).
        run_dir: where logs and `targets.json` go (`<state>/run`).
        spawn: starts one process.
        say: takes one line about a death or a restart.
        clock: monotonic seconds.
        most_restarts: deaths in a row of one job after which all stop; None means never.

    Example:
        >>> jobs = [Job("ingest", "ingest")]
        >>> Supervisor(jobs, ["millrace", "run"], Path("p.toml"), Path("state/run")).start()  # doctest: +SKIP
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        command: Sequence[str],
        file: Path,
        run_dir: Path,
        *,
        spawn: Spawn = spawn_child,
        options: Sequence[str] = (),
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        most_restarts: int | None = None,
    ) -> None:
        self._prefix, self._suffix = [*command], [str(file), *options]
        self._run_dir, self._spawn, self._say, self._clock = run_dir, spawn, say, clock
        self._most_restarts = most_restarts
        self._posts = [_Post(job, port) for job, port in zip(jobs, free_ports(len(jobs)), strict=True)]

    def start(self) -> None:
        """Start every job and write `targets.json`."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._write_targets()
        for post in self._posts:
            self._log_path(post.job).write_bytes(b"")
            self._start(post)

    def tend(self) -> None:
        """Look after the jobs once: call it a few times a second.

        Raises:
            MillraceError: a job failed in a way no restart can mend; it has the job's line and exit code. The other
                jobs still run: call `stop`.
        """
        for post in self._posts:
            if post.child is None:
                if self._clock() >= post.retry_at:
                    post.restarts += 1
                    self._renew_port(post)
                    self._start(post)
            elif (code := post.child.exit_code()) is not None:
                self._bury(post, code)

    def stop(self, wait_s: float = STOP_WAIT_S) -> None:
        """Ask all jobs to drain and end, wait, and kill what is left. Safe to call twice."""
        living = [post.child for post in self._posts if post.child is not None]
        for child in living:
            child.terminate()
        deadline = self._clock() + wait_s
        while self._clock() < deadline and any(child.exit_code() is None for child in living):
            time.sleep(POLL_S)
        for child in living:
            if child.exit_code() is None:
                child.kill()
        for post in self._posts:
            post.child = None
            post.retry_at = float("inf")

    def statuses(self) -> list[Status]:
        """How every job is doing now."""
        now = self._clock()
        return [
            Status(post.job.name, role, post.port, post.child.pid, post.restarts, None)
            if post.child is not None
            else Status(post.job.name, role, post.port, None, post.restarts, max(0.0, post.retry_at - now))
            for post, role in ((post, post.job.part or post.job.role) for post in self._posts)
        ]

    def _start(self, post: _Post) -> None:
        address = f"127.0.0.1:{post.port}"
        command = [*self._prefix, post.job.role, *self._suffix, *post.job.arguments]
        command += ["--metrics", address, "--instance", post.job.name]
        post.child = self._spawn(post.job.name, command, self._log_path(post.job))
        post.started_at = self._clock()

    def _bury(self, post: _Post, code: int) -> None:
        post.child = None
        line = last_line(self._log_path(post.job)) or f"no message, see {self._log_path(post.job)}"
        if code in HOPELESS:
            raise _failure(f"{post.job.name}: {line}", code)
        if self._clock() - post.started_at >= HEALTHY_AFTER_S:
            post.deaths = 0
        post.deaths += 1
        if self._most_restarts is not None and post.deaths > self._most_restarts:
            raise _failure(f"{post.job.name} died {post.deaths} times in a row: {line}", code if code > 0 else 1)
        backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (post.deaths - 1))
        post.retry_at = self._clock() + backoff_s
        self._say(f"{post.job.name} {ending(code)}, starts again in {backoff_s:g} s: {line}")

    def _renew_port(self, post: _Post) -> None:
        if not _is_free(post.port):
            (post.port,) = free_ports(1)
            self._write_targets()

    def _write_targets(self) -> None:
        targets = [
            {"targets": [f"127.0.0.1:{post.port}"], "labels": {"process": post.job.name}} for post in self._posts
        ]
        path = self._run_dir / "targets.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(targets)))
        fresh.replace(path)  # Prometheus must never read half a file

    def _log_path(self, job: Job) -> Path:
        return self._run_dir / f"{job.name}.log"


class _Post:
    """A job and its present process."""

    def __init__(self, job: Job, port: int) -> None:
        self.job, self.port = job, port
        self.child: Running | None = None
        self.started_at = 0.0
        self.retry_at = 0.0
        self.deaths = 0  # in a row
        self.restarts = 0


def free_ports(count: int) -> list[int]:
    """Find ports on loopback that nobody listens on; all are held while looking, so they differ.

    Raises:
        UnavailableError: there is none left.
    """
    held: list[socket.socket] = []
    try:
        held.extend(socket.create_server(("127.0.0.1", 0)) for _ in range(count))
        return [one.getsockname()[1] for one in held]
    except OSError as error:
        raise UnavailableError(
            f"no free port on 127.0.0.1 for metrics: {error.strerror}; end other programs"
        ) from error
    finally:
        for one in held:
            one.close()


def last_line(log: Path) -> str:
    """The last line of a log that is not empty: a failing role's only word."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _failure(message: str, code: int) -> MillraceError:
    failure = MillraceError(message)
    failure.exit_code = code
    return failure


def ending(code: int) -> str:
    """Say how a process ended, by its exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
