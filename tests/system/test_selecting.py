"""The selector over real Kafka, as its own process: promotes, takes back, is killed and decides the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from consumers.score_records import ScoresRecord
from consumers.standings import read_standings
from consumers.supervisor import free_ports
from serving.brokers import ensure_topics, load_pipeline
from serving.drained import refuse_members
from serving.reign_command import (
    OvertakenError,
    decide,
    pinning,
    present_reign,
    promoting,
    rolling_back,
    unpinning,
)
from serving.rescale_doors import kafka_doors
from streams.errors import PipelineError, UnavailableError
from streams.kafka import KafkaOutbox, read_all
from streams.pipeline import Pipeline
from streams.reign import Promoted, Reign, first_reign, followed
from streams.state_folder import state_of
from tests.selecting import CANDIDATES, Log, Selector, scores, told
from tests.system.conftest import until

pytestmark = pytest.mark.timeout(900)
START_S = 240.0  # a dead one keeps its place for 15 s; then Faust starts, on a busy machine in much more than 10 s
BETTER = {"base": 0.5, "good": 0.45, "slow": 0.52}
WORSE = {**BETTER, "good": 0.6}

PIPELINE = """
[pipeline]
name = "{name}"
state = "state"
[kafka]
"bootstrap.servers" = "{kafka}"
[events]
topic = "{name}-events"
[events.fields]
price = "number"
[labels]
topic = "{name}-labels"
id = "visit"
value = "bought"
wait = "1h"
[models]
base = {{ kind = "prior" }}
good = {{ kind = "linear" }}
slow = {{ kind = "linear", lr = 0.5 }}
[select]
span = "1s"
max_age = "1h"
web = "127.0.0.1:{port}"
[serve]
champion = "base"
"""


class Running:
    """A selector's process, and its pipeline."""

    def __init__(self, directory: Path, name: str, kafka: str) -> None:
        self.file = directory / f"{name}.toml"
        self.web = free_ports(1)[0]
        self.file.write_text(PIPELINE.format(name=name, kafka=kafka, port=self.web))
        self.pipeline: Pipeline = load_pipeline(self.file)
        ensure_topics(self.pipeline)
        self.log = directory / f"{name}.log"
        self._outbox = KafkaOutbox(self.pipeline.kafka, linger_ms=0)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, as the supervisor does."""
        command = [sys.executable, "-m", "serving.cli", "run", "select", str(self.file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
        return self.process

    def kill(self) -> None:
        """End it as a machine that loses power does."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def write(self, records: list[ScoresRecord]) -> None:
        """Publish scores."""
        for record in records:
            self._outbox.produce(f"{self.pipeline.name}.scores", 0, msgspec.json.encode(record))
        self._outbox.flush()

    def decisions(self) -> list[bytes]:
        """Read P.decisions."""
        topic = f"{self.pipeline.name}.decisions"
        return [message.value() or b"" for message in read_all(self.pipeline.kafka, topic, 0)]

    def log_of(self) -> Log:
        """Give the decisions as the fold sees them."""
        log = Log()
        log.values = self.decisions()
        return log

    def until_decided(self, count: int) -> None:
        """Wait for so many decisions; a selector that ended says why."""

        def is_there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return len(self.decisions()) >= count

        until(is_there, START_S)

    def until_seen(self, time_us: int) -> None:
        """Wait until all scores up to a time were weighed, as the standings tell."""

        def is_there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            found = read_standings(state_of(self.pipeline))
            return found is not None and found.time_us >= time_us

        until(is_there, START_S)

    def close(self) -> None:
        """Ask it to end."""
        self.process.terminate()
        self.process.wait(30)
        self._outbox.close()


@pytest.fixture
def running(tmp_path: Path, prefix: str, kafka: str) -> Iterator[Running]:
    """A selector over the session's Kafka."""
    found = Running(tmp_path, prefix, kafka)
    try:
        yield found
    finally:
        found.close()


def shown(running: Running) -> object:
    """Give what the selector's page says; it is there on loopback only."""
    listening = {
        one.laddr.ip for one in psutil.Process(running.process.pid).net_connections() if one.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}
    with urllib.request.urlopen(f"http://127.0.0.1:{running.web}/standings/", timeout=10) as answer:
        return json.loads(answer.read())


def in_hundredths(records: list[ScoresRecord]) -> list[ScoresRecord]:
    """Let each block take a hundredth of a second of event time, so that a span of a second is a hundred."""
    return [
        msgspec.structs.replace(
            record,
            blocks=tuple(
                msgspec.structs.replace(
                    block, first_time_us=block.block * 10_000 + 1, last_time_us=(block.block + 1) * 10_000
                )
                for block in record.blocks
            ),
        )
        for record in records
    ]


def test_a_selector_that_is_killed_promotes_and_takes_back_as_one_that_is_not(running: Running) -> None:
    """A candidate becomes better, then worse; killed with -9 in between, before and after each decision."""
    levels = [BETTER] * 102 + [WORSE] * 120
    records = in_hundredths(scores(levels, orders=("number",)))
    settings = running.pipeline.select
    assert settings is not None
    alone = Selector(Log(), settings)
    alone.read(records, 0, len(records))
    expected = told(alone.log)
    assert [(who, why) for who, why, _ in expected] == [("good", "evidence"), ("base", "taken back")]
    promoted, back = (at for _, _, at in expected)

    running.write(records[:200])
    running.until_seen(660_000)
    running.kill()
    running.write(records[200 : promoted + 1])
    running.start()
    running.until_decided(1)
    running.kill()
    running.start()
    running.write(records[promoted + 1 : back - 20])
    running.until_seen(records[back - 21].blocks[0].last_time_us)
    running.kill()
    running.write(records[back - 20 :])
    running.start()
    running.until_decided(2)
    running.until_seen(records[-1].blocks[0].last_time_us)

    log = running.log_of()
    for made, wanted in zip(log.promotions(), alone.log.promotions(), strict=True):
        assert (made.candidate, made.lineage, made.why, made.after_us) == (
            wanted.candidate,
            wanted.lineage,
            wanted.why,
            wanted.after_us,
        )
        assert made.numbers == wanted.numbers
        assert made.thresholds == wanted.thresholds
    assert log.reign().champion == "base"
    found = read_standings(state_of(running.pipeline))
    assert found is not None
    assert found.reign.champion == "base"
    assert shown(running) == json.loads(msgspec.json.encode(found))
    assert [one.candidate for one in found.challengers] == ["good", "slow"]


def test_what_a_person_decides_is_followed(running: Running) -> None:
    """A record from elsewhere changes the reign, a pin keeps the selector quiet; it has to stop before a rebuild."""
    outbox = KafkaOutbox(running.pipeline.kafka, linger_ms=0)
    pin = Promoted("pin", "", "slow", 0, "manual", is_pinned=True)
    outbox.produce(f"{running.pipeline.name}.decisions", 0, msgspec.json.encode(pin))
    outbox.flush()
    running.write(in_hundredths(scores([BETTER] * 150)))
    running.until_seen(1_500_000)
    outbox.close()
    with pytest.raises(UnavailableError, match=rf"group {running.pipeline.name}\.select has 1 member: stop all roles"):
        refuse_members(running.pipeline, kafka_doors(running.pipeline))

    assert len(running.decisions()) == 1
    found = read_standings(state_of(running.pipeline))
    assert found is not None
    assert found.reign == followed(first_reign("base"), pin, CANDIDATES)
    assert {one.candidate: one.word for one in found.challengers} == {"base": "proven", "good": "proven"}


def test_people_decide_by_compare_and_swap(running: Running) -> None:
    """Promote, pin, unpin and roll back; who comes second changes nothing and hears of it."""
    pipeline = running.pipeline
    with pytest.raises(PipelineError, match="champion since the beginning"):
        decide(pipeline, rolling_back, "")
    with pytest.raises(PipelineError, match='did you mean "good"'):
        promoting(pipeline, "goood")
    first = decide(pipeline, promoting(pipeline, "good"), "try it")

    assert (first.champion, first.last, first.is_pinned) == ("good", "base", False)
    assert decide(pipeline, pinning(pipeline, None), "").is_pinned
    assert not decide(pipeline, unpinning(), "").is_pinned
    back = decide(pipeline, rolling_back, "")
    assert (back.champion, back.last) == ("base", "good")

    def rival(reign: Reign) -> tuple[str, bool]:
        decide(pipeline, promoting(pipeline, "slow"), "")
        return "good", False

    with pytest.raises(OvertakenError, match="slow is champion now"):
        decide(pipeline, rival, "")
    assert present_reign(pipeline).champion == "slow"
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "explain", str(running.file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("good is champion in place of base: a person said so (try it)")
    assert "void" in lines[5]
