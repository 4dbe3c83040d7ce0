"""What tests of backfill and audit do with real topics: fill them by one worker of a role, damage them, run them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from consumers.process import POLL_S, RoleProcess
from consumers.roles import add_workers
from serving.brokers import ensure_topics
from serving.feed import KafkaFeed, bounds
from serving.overview import fetch_metrics
from streams import frames
from streams.frames import END, EVENT, FrameSchema
from streams.kafka import KafkaOutbox, Topics
from streams.pipeline import Pipeline
from streams.records import value
from streams.scraping import parse
from tests.memory_feed import Row
from tests.rows import batch_of
from tests.system.conftest import until

ROOT = Path(__file__).parents[2]


def work(pipeline: Pipeline, role: str, partitions: int, stage: int | None = None) -> None:
    """Run one worker of a role, or of one of its stages, until all its partitions have ended."""
    process = RoleProcess(pipeline, role, None, None, is_replay=True)
    add_workers(process, role, None, stage)
    (worker,) = process._workers
    worker.start()
    while [station.inlet.mark() for station in worker.stations] != [END] * partitions:
        worker.step(POLL_S)
    worker.stop()
    process._log.close()
    process.topics.close()


def millrace(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "serving.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


@contextmanager
def rewritten(pipeline: Pipeline, schema: FrameSchema, change: Callable[[Row], Row]) -> Iterator[None]:
    """Write a topic anew with its events changed; as it was, afterwards."""
    name, partitions = f"{pipeline.name}.{schema.topic}", range(pipeline.partitions)
    before = [(partition, payload) for partition in partitions for payload in _payloads(pipeline, name, partition)]

    def damaged(payload: bytes) -> bytes:
        rows = frames.decode(payload, schema).to_arrow().to_pylist()
        return batch_of(schema, [change(row) if row["kind"] == EVENT else row for row in rows]).message()

    def write(change: Callable[[bytes], bytes]) -> None:
        topics, outbox = Topics(pipeline.kafka), KafkaOutbox(pipeline.kafka)
        topics.delete([name])
        ensure_topics(pipeline)
        for partition, payload in before:
            header = [(frames.SCHEMA_HEADER, schema.fingerprint.encode())]
            outbox.produce(name, partition, change(payload), None, header)
        outbox.close()
        topics.close()

    write(damaged)
    yield
    write(lambda payload: payload)


def _payloads(pipeline: Pipeline, name: str, partition: int) -> Iterator[bytes]:
    """The frames of a partition."""
    start, end = bounds(pipeline.kafka, name, [partition])[partition]
    for records in KafkaFeed(pipeline.kafka, name, partition, start).read(end):
        yield from (value(records, i) or b"" for i in range(records.offsets.size))


def live_metrics(file: Path, rows: int) -> dict[tuple[str, str | None, str | None], float]:
    """Run an audit that goes on, until it has compared so many rows; series by name, column and candidate."""
    command = [sys.executable, "-m", "serving.cli", "audit", str(file), "--metrics", "127.0.0.1:0", "--every", "100ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        found = re.search(r":(\d+)/metrics", process.stderr.readline())
        assert found is not None
        port, samples = int(found[1]), Counter[tuple[str, str | None, str | None]]()

        def is_done() -> bool:
            samples.clear()
            for sample in parse(fetch_metrics(port) or ""):
                place = sample.name, sample.labels.get("column"), sample.labels.get("candidate")
                samples[place] = sample.value  # type: ignore[assignment]  # a float
            audited = sum(of for (name, *_), of in samples.items() if name == "millrace_feature_audited_total")
            return audited >= rows

        until(is_done)
        process.terminate()
    return dict(samples)
