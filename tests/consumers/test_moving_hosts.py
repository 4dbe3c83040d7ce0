"""A features worker that moves between hosts which share only an object store, and stores that fail meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams import features, frames
from streams.errors import SnapshotError, UnavailableError
from streams.object_folder import ObjectFolder, open_object_folder
from streams.pipeline import Feature
from tests.memory_kafka import MemoryOutbox
from tests.rows import log_rows
from tests.s3_server import S3Server
from tests.workers import START_S, Office

LOG0 = ("p.log", 0)
EVENTS = 60
OF_THE_KEY = (
    Feature("mean_1m", "mean", "amount", "key", 60_000_000),
    Feature("late", "rate", "label", "key", 60_000_000, is_label=True),
    Feature("last", "last", "amount", "key"),
    Feature("since", "elapsed", "*", "key"),
)
Rows = dict[tuple[int, int], str]  # by source and number, as a reader takes them


class Hosts(Office):
    """An office whose workers each start on a host of their own, where state is in a store."""

    def __init__(self, directory: Path, state_url: str | None = None) -> None:
        super().__init__(directory, state_url=state_url, features=OF_THE_KEY)
        self.directory = directory
        self.hosts = 0
        self.sources = [self.source(), self.source("labels")]

    def on_new_host(self) -> Any:
        """Start a features worker with partition 0."""
        if self.pipeline.state_url is not None:
            self.hosts += 1
            self.pipeline = msgspec.structs.replace(self.pipeline, state=self.directory / f"host{self.hosts}")
        return self.worker("features", [LOG0])

    def publish_log(self, start: int, stop: int) -> None:
        """Write events to the log, each with the label of the event before it, and marks."""
        schema, rows = frames.log_schema(self.pipeline), []
        for i in range(start, stop):
            time_us = int((START_S + i) * 1e6)
            head = {"time": time_us, "sequence": i}
            values = {"field.amount": float(i % 7), "field.shop": "s"}
            rows.append(
                {"kind": "event", "source": self.sources[0], "id": f"e{i}", "key": f"k{i % 3}", **head, **values}
            )
            before = {"id": f"e{i - 1}", "key": f"k{(i - 1) % 3}", "label": float(i % 2)}
            rows.append({"kind": "label", "source": self.sources[1], **before, **head})
        header = [(frames.SCHEMA_HEADER, schema.fingerprint.encode())]
        self.broker.append("p.log", 0, log_rows(rows).message(), None, header)

    def written(self, topic: str) -> Rows:
        """What readers take of an output: of each number the first row; repeats say the same."""
        columns = features.columns(self.pipeline)
        schema = frames.features_schema(columns) if topic == "p.features" else frames.examples_schema(columns)
        found: Rows = {}
        for record in self.broker.logs[topic, 0]:
            for row in frames.decode(record.value_ or b"", schema).to_arrow().to_pylist():
                if row["kind"] != frames.MARK:
                    text = repr({name: value for name, value in row.items() if name != "produced"})
                    assert found.setdefault((row["source"], row["sequence"]), text) == text
        return found


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, Rows]:
    """What one worker with a local directory puts out."""
    hosts = Hosts(tmp_path / "undisturbed")
    worker = hosts.on_new_host()
    for start in range(0, EVENTS, 10):
        hosts.publish_log(start, start + 10)
        worker.step(0)
    worker.stop()
    return {topic: hosts.written(topic) for topic in ("p.features", "p.examples")}


def test_a_worker_that_moves_goes_on_where_the_store_says(
    tmp_path: Path, s3: S3Server, undisturbed: dict[str, Rows]
) -> None:
    """Three hosts, one after the other: every value as if there had been one."""
    hosts = Hosts(tmp_path / "moved", s3.url())
    for third in range(3):
        worker = hosts.on_new_host()
        for start in range(third * 20, third * 20 + 20, 10):
            hosts.publish_log(start, start + 10)
            worker.step(0)
        worker.stop()

    assert len(undisturbed["p.features"]) == EVENTS
    assert len(undisturbed["p.examples"]) == 2 * EVENTS - 1
    assert {topic: hosts.written(topic) for topic in undisturbed} == undisturbed
    assert not (tmp_path / "moved").exists()


def test_a_host_that_is_lost_costs_repeats_and_no_row(
    tmp_path: Path, s3: S3Server, undisturbed: dict[str, Rows]
) -> None:
    """Rows after the last snapshot are computed again elsewhere, to the same values under the same numbers."""
    hosts = Hosts(tmp_path / "lost", s3.url())
    for start in range(0, EVENTS, 10):
        hosts.publish_log(start, start + 10)
    lost = hosts.on_new_host()
    lost._most_rows = 35
    lost.step(0)
    lost.snapshot()
    lost.step(0)
    assert isinstance(lost._outbox, MemoryOutbox)
    lost._outbox.flush()  # put out, but no snapshot knows of it
    repeated = len(hosts.broker.logs["p.features", 0])
    successor = hosts.on_new_host()
    while successor.step(0):
        pass
    successor.stop()
    rows = sum(_events(record.value_ or b"", hosts) for record in hosts.broker.logs["p.features", 0])

    assert repeated > 1
    assert rows > EVENTS
    assert {topic: hosts.written(topic) for topic in undisturbed} == undisturbed


def test_a_store_that_was_emptied_is_noticed_by_the_witness(tmp_path: Path, s3: S3Server) -> None:
    """As a lost directory is (PROTOCOL 22)."""
    hosts = Hosts(tmp_path, url := s3.url())
    hosts.publish_log(0, 10)
    worker = hosts.on_new_host()
    worker.step(0)
    worker.stop()
    folder = open_object_folder(url) / "snapshots" / "features" / "log-p0"
    for name in folder.names():
        folder.remove(name)

    with pytest.raises(SnapshotError, match="the snapshots are gone: the group commit names"):
        hosts.on_new_host()


def test_a_store_that_takes_no_snapshot_ends_the_worker_before_its_commit(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Rows]
) -> None:
    """As a directory that cannot be written does; the next worker goes on from the snapshot before."""
    hosts = Hosts(tmp_path / "full", s3.url())
    for start in range(0, EVENTS, 10):
        hosts.publish_log(start, start + 10)
    worker = hosts.on_new_host()
    worker.step(0)
    before = hosts.commit("features", *LOG0)

    def refuse(*_: Any) -> None:
        raise UnavailableError("cannot write s3://b/snapshots: away")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectFolder, "publish", refuse)
        with pytest.raises(UnavailableError, match="cannot write s3://b/snapshots: away"):
            worker.snapshot()
    after = hosts.commit("features", *LOG0)
    successor = hosts.on_new_host()
    while successor.step(0):
        pass
    successor.stop()

    assert after == before
    assert {topic: hosts.written(topic) for topic in undisturbed} == undisturbed


def _events(payload: bytes, hosts: Hosts) -> int:
    table = frames.decode(payload, frames.features_schema(features.columns(hosts.pipeline)))
    return int((table.numbers("kind") == frames.EVENT).sum())
