"""A whole pipeline on this machine: embedded servers if wanted, the topics, and a supervised process per role.

What `up` and `demo` share. Leaving the `with` block stops the roles first, so that they can write their last snapshots,
and the servers after them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

from consumers.jobs import plan_jobs
from consumers.supervisor import Supervisor
from serving.brokers import ADDRESS_FILE, REDIS_FILE, ensure_topics, load_pipeline, with_broker, with_redis
from serving.kept_server import KeptServer
from serving.overview import Overview, Watch
from streams.embedded import EmbeddedKafka, EmbeddedRedis
from streams.errors import PipelineError
from streams.state_url import masked

ROLE_COMMAND = (sys.executable, "-m", "serving.cli", "run")


class System:
    """Starts a pipeline, looks after it and stops it.

    Args:
        file: the pipeline file.
        is_embedded: start a Kafka of our own under the state directory, in place of the [kafka] table, and a Redis in
            place of `[serve] redis`, if the file has that. Where state is in an object store, that is the directory
            beside it (`[pipeline] local`).
        scale: processes per role, where it is not one.
        is_replay: the input is history with marks, as the demo's.
        say: takes one line of news.
        most_restarts: see `Supervisor`.
    """

    def __init__(
        self,
        file: Path,
        *,
        is_embedded: bool = False,
        scale: Mapping[str, int] | None = None,
        is_replay: bool = False,
        say: Callable[[str], None] = lambda _: None,
        most_restarts: int | None = None,
    ) -> None:
        self.pipeline = load_pipeline(file, needs_brokers=not is_embedded)
        self._jobs = plan_jobs(self.pipeline, scale or {})
        self._file, self._is_replay = file, is_replay
        self._say, self._most_restarts = say, most_restarts
        self._kafka = EmbeddedKafka(self.pipeline.state) if is_embedded else None
        has_redis = is_embedded and self.pipeline.serve.redis is not None
        self._redis = EmbeddedRedis(self.pipeline.state) if has_redis else None
        self._kept_redis: KeptServer | None = None
        self._run_dir = self.pipeline.state / "run"
        self._supervisor: Supervisor | None = None
        self._watch = Watch(self.pipeline)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _interrupt)  # a service manager stops us as Ctrl-C does
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._redis is not None:
            (self._run_dir / REDIS_FILE).unlink(missing_ok=True)
            self._redis.stop()
        if self._kafka is not None:
            (self._run_dir / ADDRESS_FILE).unlink(missing_ok=True)
            self._kafka.stop()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def tend(self) -> None:
        """Restart what died, but for Kafka. Call it several times a second; raises what no restart can mend."""
        if self._kept_redis is not None:
            self._kept_redis.tend()
        if self._supervisor is not None:
            self._supervisor.tend()

    def look(self) -> Overview:
        """Scrape all processes (up to 0.1 s) and sum up."""
        return self._watch.look(self._supervisor.statuses() if self._supervisor is not None else ())

    def _start(self) -> None:
        options = ["--replay"] if self._is_replay else []
        options += self._start_servers()
        ensure_topics(self.pipeline)
        self._supervisor = Supervisor(
            self._jobs,
            ROLE_COMMAND,
            self._file,
            self._run_dir,
            options=options,
            say=self._say,
            most_restarts=self._most_restarts,
        )
        self._supervisor.start()

    def _start_servers(self) -> list[str]:
        """Start what is embedded, note where it answers, and give the roles' options for it."""
        options: list[str] = []
        self._run_dir.mkdir(parents=True, exist_ok=True)
        if self._kafka is not None:
            self._say("starting Kafka …")
            if self.pipeline.state_url is not None:
                here, there = self._kafka.directory, masked(self.pipeline.state_url)
                self._say(f"Kafka's data is on this machine only, in {here}; snapshots and models are in {there}")
            self._kafka.start()
            address = self._kafka.bootstrap_servers
            (self._run_dir / ADDRESS_FILE).write_text(address)
            self.pipeline = with_broker(self.pipeline, address)
            options += ["--broker", address]
        if self._redis is not None:
            self._redis.start()
            self._kept_redis = KeptServer(self._redis, self._say)
            (self._run_dir / REDIS_FILE).write_text(self._redis.url)
            self.pipeline = with_redis(self.pipeline, self._redis.url)
            options += ["--redis", self._redis.url]
        return options


def parse_scale(texts: Sequence[str]) -> dict[str, int]:
    """Read `features=2` and the like.

    Raises:
        PipelineError: one line for each that is no role=number.
    """
    mistakes = [f"--scale {text}: role=number is needed, as features=2" for text in texts if not _is_scale(text)]
    if mistakes:
        raise PipelineError(mistakes)
    return {role: int(count) for role, _, count in (text.partition("=") for text in texts)}


def _is_scale(text: str) -> bool:
    role, _, count = text.partition("=")
    return bool(role) and count.isdecimal()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
