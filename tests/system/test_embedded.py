"""Embedded Kafka and Redis, and the child processes behind them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.system import System
from streams import embedded, embedded_programs, embedded_server
from streams.children import Child
from streams.embedded import EmbeddedKafka, EmbeddedRedis
from streams.errors import UnavailableError
from streams.kafka import KafkaOutbox, Topics, read_all
from streams.topic_specs import TopicSpec
from tests.system.conftest import until

ROOT = Path(__file__).parents[2]
START_LIMIT_CPU_S = 15.0
"""Normal are 3 to 6 s. CPU time, since how long a start takes depends on what else the machine does."""

OWNER = """
import sys, threading, time
from pathlib import Path
from streams.embedded import EmbeddedKafka
kafka = EmbeddedKafka(Path(sys.argv[1]))
starter = threading.Thread(target=kafka.start)  # the thread ends, the server must not
starter.start()
starter.join()
print(kafka.pid, flush=True)
time.sleep(600)
"""


def test_kafka_keeps_data_and_port_over_a_restart(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path)
    kafka.start()
    before = written(kafka)
    kafka.stop()
    assert not kafka.is_running()

    with kafka:
        assert (kafka.port, Topics(kafka.settings).uuid("rows")) == before
        assert [message.value() for message in read_all(kafka.settings, "rows", 0)] == [b"kept"]
        times = psutil.Process(kafka.pid).cpu_times()
        assert times.user + times.system < START_LIMIT_CPU_S


def test_kafka_keeps_data_over_a_crash(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path)
    kafka.start()
    before = written(kafka)
    kafka.kill()

    with kafka:
        assert (kafka.port, Topics(kafka.settings).uuid("rows")) == before
        assert [message.value() for message in read_all(kafka.settings, "rows", 0)] == [b"kept"]


def written(kafka: EmbeddedKafka) -> tuple[int, str | None]:
    """Write one record, and return the port and the topic's UUID."""
    topics = Topics(kafka.settings)
    topics.ensure([TopicSpec("rows", 1, -1, is_compacted=False, is_user_topic=False)])
    outbox = KafkaOutbox(kafka.settings)
    outbox.produce("rows", 0, b"kept")
    outbox.flush()
    return kafka.port, topics.uuid("rows")


def test_kafka_does_not_outlive_a_killed_owner(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    broker = psutil.Process(int(owner.stdout.readline()))
    assert "java" in broker.name()
    family = psutil.Process(owner.pid).children(recursive=True)
    time.sleep(0.2)
    assert broker.is_running()

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    until(lambda: not any(process.is_running() for process in family), wait_s=10)


def test_a_child_does_not_outlive_its_killed_guard(tmp_path: Path) -> None:
    child = Child("sleeper", ["sleep", "600"], log_path=tmp_path / "log")
    child.start()
    process = psutil.Process(child.pid)

    os.kill(process.ppid(), signal.SIGKILL)

    until(lambda: not process.is_running(), wait_s=10)


def test_a_child_that_does_not_listen_is_killed_with_its_own_children(tmp_path: Path) -> None:
    child = Child("stubborn", ["sh", "-c", "trap '' TERM; sleep 600 & echo up; sleep 600"], log_path=tmp_path / "log")
    child.start()
    child.wait_ready(lambda: (tmp_path / "log").read_text() == "up\n", timeout_s=10)
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
    assert len(family) == 3

    assert child.stop(grace_s=0.2) == -signal.SIGKILL

    until(lambda: not any(process.is_running() for process in family), wait_s=10)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", -9), ("exit 0", 0)])
def test_an_exit_code_comes_through(tmp_path: Path, script: str, code: int) -> None:
    child = Child("one", ["sh", "-c", script], log_path=tmp_path / "log")
    child.start()

    assert child.wait(10) == code
    assert not child.is_running()


def test_a_child_that_dies_early_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("Teapot", ["sh", "-c", "echo first; echo short and stout >&2; exit 3"], log_path=tmp_path / "log")
    child.start()

    with pytest.raises(UnavailableError) as caught:
        child.wait_ready(lambda: False, timeout_s=10)

    told = f"Teapot ended before it was ready (exit code 3); its log {tmp_path / 'log'} ends: first | short and stout"
    assert str(caught.value) == told


def test_a_child_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    child = Child("sloth", ["sleep", "600"], log_path=tmp_path / "log")
    child.start()

    with pytest.raises(UnavailableError, match="sloth was not ready within 0 s and was stopped"):
        child.wait_ready(lambda: False, timeout_s=0.1)

    assert not child.is_running()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    child = Child("ghost", ["no-such-program"], log_path=tmp_path / "log")
    child.start()

    with pytest.raises(UnavailableError, match="cannot run no-such-program"):
        child.wait_ready(lambda: False, timeout_s=10)


def test_too_little_memory_is_said_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "NEEDED_MIB", 1 << 30)

    with pytest.raises(UnavailableError, match="needs 1073741824 MiB of memory and"):
        EmbeddedKafka(tmp_path).start()

    assert not (tmp_path / "kafka").exists()


def test_a_failed_download_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_programs, "KAFKA_JARS", "org.example.nowhere:nothing:0.0.0")

    with pytest.raises(UnavailableError, match="Kafka's jars could not be downloaded"):
        EmbeddedKafka(tmp_path).start()


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(UnavailableError, match=f"port {port} for embedded Redis is taken"):
            EmbeddedRedis(tmp_path, port=port).start()


def test_a_jvm_that_dies_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "JVM_FLAGS", ("-Xmx1m",))

    with pytest.raises(UnavailableError, match=r"its log ends: .*Too small maximum heap"):
        EmbeddedKafka(tmp_path).start()


def test_a_directory_serves_one_server_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_server, "LOCK_TIMEOUT_S", 0.1)
    with EmbeddedRedis(tmp_path), pytest.raises(UnavailableError, match="embedded Redis already runs on"):
        EmbeddedRedis(tmp_path).start()


def test_redis_answers_a_ping_and_keeps_its_port(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as redis:
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(16) == b"+PONG\r\n"
        port = redis.port
    assert json.loads((tmp_path / "redis" / "ports.json").read_text()) == {"redis": port}

    with EmbeddedRedis(tmp_path) as redis:
        assert redis.port == port


def test_a_redis_that_was_killed_is_back_on_its_port(tmp_path: Path) -> None:
    """As a system tends it: empty, and where the roles look for it."""
    said: list[str] = []
    file = tmp_path / "pipeline.toml"
    text = (ROOT / "examples" / "flights.toml").read_text(encoding="utf-8")
    file.write_text(re.sub(r'^state = ".*"', 'state = "."', text, flags=re.MULTILINE), encoding="utf-8")
    system = System(file, is_embedded=True, say=said.append)
    system._kafka = None  # not needed here
    try:
        options = system._start_servers()
        redis = system._redis
        assert redis is not None
        before = redis.pid
        assert told(redis.port, b"SET kept 1\r\n") == b"+OK\r\n"
        os.kill(before, signal.SIGKILL)

        def is_back() -> bool:
            system.tend()
            return redis.pid != before and redis.is_running()

        until(is_back, wait_s=20)
        assert told(redis.port, b"GET kept\r\n") == b"$-1\r\n"
        assert options == ["--redis", redis.url]
        assert said == ["embedded Redis was killed by SIGKILL; starts again in 0.5 s"]
    finally:
        system.__exit__()
    assert not redis.is_running()


def told(port: int, command: bytes) -> bytes:
    """What Redis answers to a command."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(command)
        return connection.recv(64)
