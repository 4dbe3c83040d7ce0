"""Backfill and audit of a chain of stages as a user runs them, over real flights on real Kafka."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset as ds
import pytest

from serving.auditor import Auditor
from serving.backfill import run_backfill
from serving.brokers import ensure_topics, load_pipeline, raw_partitions
from serving.feed import bounds
from serving.hop import hops
from serving.publish import Publisher
from serving.settled_rows import Period
from streams.errors import TopicError, UnavailableError
from streams.features import columns
from streams.frames import EVENT, MARK
from streams.kafka import KafkaOutbox, Topics
from streams.pipeline import Pipeline
from tests.memory_feed import Row
from tests.serving.test_chain_backfill import expected, moment_us
from tests.system.flights_run import EXAMPLE, claims_of, make_input, numbered, table_of
from tests.system.recomputing import live_metrics, millrace, rewritten, work
from tests.system.test_chain import by_key, log_rows

FLIGHTS = 1_500
PARTITIONS = 3
FEATURES = """[features]
delay_of_origin = { mean = "dep_delay", by = "origin", window = "2h" }
late_of_origin = { rate = "label", by = "origin", window = "30d" }
flights_of_tail = { count = "*", by = "tail", window = "1d" }
excess = { difference = ["dep_delay", "delay_of_origin"] }
"""
pytestmark = pytest.mark.timeout(600)  # the first test waits for the whole run, and kernels are compiled


class Flights(NamedTuple):
    """A pipeline that has taken everything, and the rows that each topic of it holds."""

    file: Path
    pipeline: Pipeline
    rows: dict[str, int]


@pytest.fixture(scope="module")
def flights(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Flights:
    """Publish flights, with all that can go wrong, and let one worker of each stage take them to their end."""
    file = tmp_path_factory.mktemp("chained") / "flights.toml"
    file.write_text(_text(kafka), encoding="utf-8")
    pipeline = load_pipeline(file)
    ensure_topics(pipeline)
    outbox = KafkaOutbox(pipeline.kafka)
    records, _ = make_input(FLIGHTS)
    publisher = Publisher(pipeline, outbox, raw_partitions(pipeline), has_marks=True)
    publisher.publish(records)
    outbox.close()
    work(pipeline, "ingest", 2 * PARTITIONS)
    for hop in hops(pipeline):
        work(pipeline, "features", PARTITIONS, hop.spec.number)
    return Flights(file, pipeline, {hop.writes: written_rows(pipeline, hop.writes) for hop in hops(pipeline)})


def _text(kafka: str) -> str:
    """The demo's pipeline with other features, under another name."""
    text = EXAMPLE.read_text(encoding="utf-8").replace("flights.", "chained.").replace('"flights"', '"chained"')
    text = re.sub(r'^state = ".*"', 'state = "."', text, flags=re.MULTILINE)
    text = re.sub(r"^partitions = 4", f"partitions = {PARTITIONS}", text, flags=re.MULTILINE)
    text = re.sub(r'^"bootstrap.servers" = .*', f'"bootstrap.servers" = "{kafka}"', text, flags=re.MULTILINE)
    return re.sub(r"^\[features\]\n(.+\n)*", FEATURES, text, flags=re.MULTILINE)


def written_rows(of: Pipeline, topic: str) -> int:
    """How many events and labels a topic holds, each once."""
    schema = next(hop.output for hop in hops(of) if hop.writes == topic)
    tables = [table_of(of, topic, partition, schema) for partition in range(PARTITIONS)]
    return sum(int((table.take(numbered(table)).numbers("kind") != MARK).sum()) for table in tables)


def cells(row: Row, of: Pipeline) -> list[Any]:
    """What a row of the dataset says."""
    named = [row[name] for name in ("partition", "number", "id", "key", "outcome", "label")]
    times = [moment_us(row[name]) for name in ("time", "produced", "label_time")]
    return [*named, *times, *(row[column.name] for column in columns(of))]


def test_a_backfill_of_a_chain_has_the_values_of_the_reference(flights: Flights, tmp_path: Path) -> None:
    """The reference takes the log as Kafka has it, merged by time."""
    found = millrace("backfill", flights.file, "--out", tmp_path)
    table = ds.dataset(tmp_path, partitioning="hive").to_table()
    rows = table.sort_by([("partition", "ascending"), ("number", "ascending")]).to_pylist()
    of, claims = by_key(flights.pipeline), claims_of(flights.pipeline)
    schema = hops(of)[0].input
    log = [log_rows(table_of(of, "log", partition, schema), claims) for partition in range(PARTITIONS)]
    wanted = expected(of, [[(row, (label_clock, clock)) for row, label_clock, clock in rows] for rows in log])

    assert found.returncode == 0, found.stderr
    assert f"{FLIGHTS:,} rows in" in found.stdout
    assert len(rows) == len(wanted) == FLIGHTS
    for row, other in zip(rows, wanted, strict=True):
        mine, names = cells(row, of), ("partition", "number", "id", "key")
        label = None if math.isnan(other["label"]) else other["label"]
        outcome = ("set", "missing")[other["outcome"]]
        assert mine[:9] == [*(other[name] for name in names), outcome, label] + [
            other[name] for name in ("time", "produced", "label_time")
        ]
        np.testing.assert_allclose(mine[9:], other["vector"], rtol=1e-9, atol=1e-9)


def test_a_backfill_of_one_partition_has_what_the_whole_has_of_it(flights: Flights, tmp_path: Path) -> None:
    found = [
        millrace("backfill", flights.file, "--out", tmp_path / "one", "--partition", "1"),
        millrace("backfill", flights.file, "--out", tmp_path / "all"),
    ]
    one, every = (ds.dataset(tmp_path / name, partitioning="hive").to_table() for name in ("one", "all"))
    mine = [row for row in every.sort_by("number").to_pylist() if row["partition"] == 1]

    assert [run.returncode for run in found] == [0, 0]
    assert repr(one.sort_by("number").to_pylist()) == repr(mine)
    assert 100 < one.num_rows < FLIGHTS


def test_an_audit_of_a_sound_chain_finds_nothing(flights: Flights) -> None:
    """All rows of all topics behind the log are compared, skew 0, exit code 0; live, too."""
    found = millrace("audit", flights.file, "--json")
    report = json.loads(found.stdout)
    of_stage = dict.fromkeys((1, 2, 3), 0)
    for one in report["partitions"]:
        of_stage[one["stage"]] += one["compared"]
    samples = live_metrics(flights.file, sum(flights.rows.values()))

    assert found.returncode == 0, found.stderr
    assert report["skew"] == 0
    assert list(of_stage.values()) == list(flights.rows.values())
    assert of_stage[3] == FLIGHTS
    assert sum(one["unserved"] + one["out_of_reach"] for one in report["partitions"]) == 0
    audited = {place[2]: of for place, of in samples.items() if place[0] == "millrace_feature_audited_total"}
    assert audited == {"": of_stage[1], "stage2": of_stage[2], "stage3": of_stage[3]}
    skew = {place: of for place, of in samples.items() if place[0] == "millrace_feature_skew_total"}
    assert set(skew.values()) == {0.0}
    assert {("delay_of_origin", "stage3"), ("entity.2", ""), ("label", "stage2")} <= {place[1:] for place in skew}


def test_a_sample_of_a_chain_is_compared(flights: Flights) -> None:
    report = json.loads(millrace("audit", flights.file, "--json", "--sample", "0.2").stdout)

    assert report["skew"] == 0
    assert 0.1 < report["compared"] / sum(flights.rows.values()) < 0.3


@pytest.mark.parametrize(("stage", "feature"), [(3, "late_of_origin"), (2, "delay_of_origin"), (1, "flights_of_tail")])
def test_an_audit_says_in_which_stage_the_one_wrong_value_is(flights: Flights, stage: int, feature: str) -> None:
    """One value of one row of one topic: the last topic first, for what was read from one made anew is out of reach."""
    of, hop = flights.pipeline, hops(flights.pipeline)[stage - 1]
    place = [column.name for column in columns(of)].index(feature)
    table = table_of(of, hop.writes, 1, hop.output)
    events = [row for row in table.to_arrow().to_pylist() if row["kind"] == EVENT]
    wrong = next(row["id"] for row in events[100:] if row["vector"][place] == row["vector"][place])

    def damage(row: Row) -> Row:
        vector = [-1.5 if row["id"] == wrong and at == place else value for at, value in enumerate(row["vector"])]
        return row | {"vector": vector}

    with rewritten(of, hop.output, damage):
        found = millrace("audit", flights.file)

    assert found.returncode == 1, found.stderr
    assert re.search(rf"SKEW of 1 in [\d,]+ rows: stage {stage}: {feature} 1\n", found.stdout)
    assert re.search(rf"^ *{stage} +1 +\d+ +{wrong} +{feature} +-1\.5", found.stdout, flags=re.MULTILINE)


def test_topics_of_a_chain_that_were_cut_or_are_gone_are_said(
    flights: Flights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last test of this file. A backfill reads only the log; an audit each topic, and goes on only if told so."""
    of, topics = flights.pipeline, Topics(flights.pipeline.kafka)
    ends = bounds(of.kafka, "chained.log", range(PARTITIONS))
    topics.cut("chained.log", 2, ends[2].end // 2)
    run_backfill(of, tmp_path, [], Period(), is_forced=False)

    assert f"chained.log partition 2 begins at offset {ends[2].end // 2}" in capsys.readouterr().out
    with pytest.raises(UnavailableError, match=r"chained\.log partition 2 .*cut by retention.*--from-retained"):
        Auditor(of)
    with Auditor(of, is_from_retained=True) as auditor:
        auditor.round()
        first = [tally for tally in auditor.tallies if tally.stage == 1]
    assert sum(tally.one_sided for tally in auditor.tallies) == 0
    assert sum(tally.out_of_reach for tally in first) > 0
    assert sum(tally.compared for tally in first) > 1_000
    assert list(auditor.cut) == [("chained.log", 2)]

    topics.delete(["chained.stage2"])
    topics.close()
    with pytest.raises(TopicError, match=r"topic chained\.stage2 does not exist"):
        Auditor(of)
