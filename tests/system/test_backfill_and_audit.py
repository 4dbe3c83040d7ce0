"""Backfill and audit as a user runs them, over a short pipeline on real Kafka."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow.dataset as ds
import pytest

from serving.auditor import Auditor
from serving.backfill import run_backfill
from serving.brokers import ensure_topics, load_pipeline, raw_partitions
from serving.feed import bounds
from serving.publish import Publisher, RawRecord
from serving.settled_rows import Period
from streams.errors import UnavailableError
from streams.features import columns
from streams.frames import features_schema
from streams.kafka import KafkaOutbox, Topics
from streams.pipeline import Pipeline
from tests.memory_feed import Row
from tests.system.recomputing import live_metrics, millrace, rewritten, work

EVENTS = 400
START_S = 1_700_000_000
FILE = """
[pipeline]
name = "{name}"
partitions = 2
state = "state"
[kafka]
"bootstrap.servers" = "{broker}"
[events]
topic = "{name}.orders"
id = "order"
key = "customer"
time = "at"
time_unit = "s"
[events.fields]
amount = "number"
country = "category"
[labels]
topic = "{name}.refunds"
id = "order"
key = "customer"
time = "at"
time_unit = "s"
value = "refunded"
wait = "5m"
[task]
kind = "binary"
[features]
orders_1m = {{ count = "*", by = "customer", window = "1m" }}
spent_1m = {{ sum = "amount", by = "customer", window = "1m" }}
since = {{ elapsed = "*", by = "customer" }}
[models.base]
kind = "prior"
[serve]
champion = "base"
"""
pytestmark = pytest.mark.timeout(240)  # kernels are compiled the first time


class Orders(NamedTuple):
    """A pipeline that has taken everything, and what was published."""

    file: Path
    pipeline: Pipeline
    records: list[dict[str, Any]]
    labelled: set[str]


@pytest.fixture(scope="module")
def orders(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Orders:
    """Publish history, and let one worker of ingest and one of features take it to its end."""
    directory = tmp_path_factory.mktemp("orders")
    file = directory / "orders.toml"
    file.write_text(FILE.format(name="orders", broker=kafka), encoding="utf-8")
    pipeline = load_pipeline(file)
    ensure_topics(pipeline)
    records, labels = make_records()
    outbox = KafkaOutbox(pipeline.kafka)
    raw = [raw_record(record, is_label="refunded" in record) for record in (*records, *labels)]
    publisher = Publisher(pipeline, outbox, raw_partitions(pipeline), has_marks=True)
    publisher.publish(sorted(raw, key=lambda record: (record.time_us, record.is_label)))
    outbox.close()
    work(pipeline, "ingest", 4)
    work(pipeline, "features", 2)
    return Orders(file, pipeline, records, {label["order"] for label in labels})


def make_records() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A few customers' orders a second apart, three quarters of them with a label within five minutes."""
    dice = random.Random(5)
    records: list[dict[str, Any]] = [
        {"order": f"o{n}", "customer": f"c{dice.randrange(9)}", "at": START_S + n, "amount": dice.randrange(1, 99)}
        | {"country": dice.choice(["DE", "AT", None])}
        for n in range(EVENTS)
    ]
    labels = [
        {"order": one["order"], "customer": one["customer"], "at": one["at"] + dice.randrange(250), "refunded": True}
        for one in records
        if dice.random() < 0.75
    ]
    return records, labels


def raw_record(record: dict[str, Any], *, is_label: bool) -> RawRecord:
    return RawRecord(record["at"] * 1_000_000, is_label, record["customer"].encode(), msgspec.json.encode(record))


def test_a_backfill_has_every_event_with_its_features_and_label(orders: Orders, tmp_path: Path) -> None:
    """Values by the definition: a bucket is 5 s; an order covers earlier ones in its own and the eleven before it."""
    found = millrace("backfill", orders.file, "--out", tmp_path)
    rows = {row["id"]: row for row in ds.dataset(tmp_path, partitioning="hive").to_table().to_pylist()}

    assert found.returncode == 0, found.stderr
    assert f"{EVENTS} rows in" in found.stdout
    assert len(rows) == EVENTS
    for order in orders.records:
        row = rows[order["order"]]
        before = [one for one in orders.records if one["customer"] == order["customer"] and one["at"] < order["at"]]
        covered = [one["amount"] for one in before if one["at"] // 5 >= order["at"] // 5 - 11]
        since = order["at"] - before[-1]["at"] if before else np.nan
        assert row["time"].timestamp() == order["at"]
        assert (row["amount"], row["orders_1m"], row["spent_1m"]) == (order["amount"], len(covered), sum(covered))
        np.testing.assert_equal(row["since"], since)
        is_labelled = order["order"] in orders.labelled
        assert (row["outcome"], row["label"]) == (("set", 1.0) if is_labelled else ("missing", None))


def test_a_backfill_of_a_part_has_only_that(orders: Orders, tmp_path: Path) -> None:
    """One partition, and a period of time."""
    limits = ("--from", "2023-11-14T22:15:00Z", "--to", "2023-11-14T22:16:00")  # 100 and 160 s after the start
    found = millrace("backfill", orders.file, "--out", tmp_path, "--partition", "1", *limits)
    table = ds.dataset(tmp_path, partitioning="hive").to_table()
    seconds = [moment.timestamp() - START_S for moment in table.column("time").to_pylist()]

    assert found.returncode == 0, found.stderr
    assert set(table.column("partition").to_pylist()) == {1}
    assert 0 < len(seconds) < 60
    assert all(100 <= second < 160 for second in seconds)


def test_an_audit_of_a_sound_pipeline_finds_nothing(orders: Orders) -> None:
    """All rows compared, skew 0, exit code 0."""
    found = millrace("audit", orders.file, "--json")
    report = json.loads(found.stdout)

    assert found.returncode == 0, found.stderr
    assert (report["compared"], report["skew"]) == (EVENTS, 0)
    assert sum(one["unserved"] + one["out_of_reach"] for one in report["partitions"]) == 0


def test_an_audit_finds_the_one_value_that_is_wrong(orders: Orders) -> None:
    """In a table, with both values; exit code 1. Its metrics say the same, live."""

    def damage(row: Row) -> Row:
        vector = [-1.5 if row["id"] == "o77" and place == 3 else value for place, value in enumerate(row["vector"])]
        return row | {"vector": vector}

    with rewritten(orders.pipeline, features_schema(columns(orders.pipeline)), damage):
        found = millrace("audit", orders.file)
        samples = live_metrics(orders.file, EVENTS)

    assert found.returncode == 1
    assert f"SKEW of 1 in {EVENTS} rows: spent_1m 1" in found.stdout
    assert re.search(r"o77 +spent_1m +-1\.5", found.stdout)
    assert samples["millrace_feature_audited_total", None, ""] == EVENTS
    assert samples["millrace_feature_skew_total", "spent_1m", ""] == 1
    assert sum(value for (name, *_), value in samples.items() if name == "millrace_feature_skew_total") == 1


def test_a_log_that_was_cut_is_said(orders: Orders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last test of this file: it cuts the log. A backfill goes on, an audit only if told so."""
    name = f"{orders.pipeline.name}.log"
    middle = bounds(orders.pipeline.kafka, name, [0])[0].end // 2
    topics = Topics(orders.pipeline.kafka)
    topics.cut(name, 0, middle)
    topics.close()
    run_backfill(orders.pipeline, tmp_path, [], Period(), is_forced=False)

    assert f"orders.log partition 0 begins at offset {middle}" in capsys.readouterr().out
    with pytest.raises(UnavailableError, match=r"cut by retention.*--from-retained"):
        Auditor(orders.pipeline)
    with Auditor(orders.pipeline, is_from_retained=True) as auditor:
        auditor.round()
        cut, whole = auditor.tallies
    assert cut.out_of_reach > 0
    assert (cut.one_sided, whole.skew, whole.out_of_reach) == (0, 0, 0)
    assert cut.out_of_reach + cut.compared + whole.compared == EVENTS
