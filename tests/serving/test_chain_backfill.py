"""The backfill of a chain: every event once, with the values of the reference over the log merged by time."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset as ds
import pytest

from serving import merged_log, settled_rows
from serving.chain_backfill import ChainBackfill
from serving.hop import hops
from serving.settled_rows import Period
from streams.control import Control
from streams.features import columns
from streams.frames import EVENT
from streams.pipeline import Feature, Pipeline
from tests import chain_reference as reference
from tests.aggregate_reference import Row
from tests.chaining import by_partition
from tests.consumers.test_chain import FEATURES, MINUTE, chain, placed
from tests.faults.world import OF_SEVERAL, World, install
from tests.featurizing import SECOND, START, event, label, mark, random_rows
from tests.memory_feed import MemoryFeed, log_of, rows_of, sourced
from tests.rows import control

ALWAYS = Period()
Log = list[list[tuple[Row, tuple[int, int]]]]


class Arrived(NamedTuple):
    """A row in some partition, with the clocks after it and the key that it is merged by."""

    key: int
    row: Row
    clocks: tuple[int, int]


def backfill(
    of: Pipeline, log: Log, known: Control, out: Path, *, period: Period = ALWAYS, sizes: tuple[int, ...] = (7, 1, 40),
    wanted: list[int] | None = None,
) -> ChainBackfill:  # fmt: skip
    """Write a dataset of a log."""
    records = [log_of(of, [row for row, _ in rows], sizes) for rows in log]
    feeds = {partition: MemoryFeed(found) for partition, found in enumerate(records)}
    made = ChainBackfill(of, known, feeds, list(feeds) if wanted is None else wanted, out, period)
    seen = [0] * len(records)

    def note(partition: int, messages: int) -> None:
        seen[partition] += messages

    made.run({partition: len(found) for partition, found in enumerate(records)}, note)
    assert seen == [len(found) for found in records]
    return made


def read(out: Path) -> list[Row]:
    """All rows of a dataset as any reader finds them, by partition and number."""
    table = ds.dataset(out, partitioning="hive").to_table()
    rows: list[Row] = table.sort_by([("partition", "ascending"), ("number", "ascending")]).to_pylist()
    return rows


def merged(of: Pipeline, log: Log) -> list[Row]:
    """The reference: what the last stage gives when every stage takes its partitions merged by time.

    A row's key is the running maximum of time over the events and set labels of its partition of the log. It stays with
    all that comes of the row.
    """
    arriving: list[list[Arrived]] = []
    for rows in log:
        highest, found = -math.inf, []
        for row, clocks in rows:
            if row["kind"] == "event" or (row["kind"] == "label" and row["label"] == row["label"]):
                highest = max(highest, row["time"])
            found.append(Arrived(highest, row, clocks))  # type: ignore[arg-type]  # minus infinity before all times
        arriving.append(found)
    for stages in reference.stages(of):
        sent: dict[int, list[Arrived]] = defaultdict(list)
        for partition, (stage, arrived) in enumerate(zip(stages, arriving, strict=True)):
            for key, row, clocks in arrived:
                for made in stage.take(row, *clocks):
                    target = stage.target(made)
                    sent[partition if target == reference.EVERYWHERE else target].append(Arrived(key, made, (0, 0)))
        arriving = [sorted(sent[at], key=lambda arrived: arrived.key) for at in range(of.partitions)]
    return [{**arrived.row, "partition": at} for at, rows in enumerate(arriving) for arrived in rows]


def expected(of: Pipeline, log: Log) -> list[Row]:
    """One row an event, with what the label row that settled it says."""
    found: dict[tuple[int, int], Row] = {}
    for row in merged(of, log):
        place = row["partition"], row["number"]
        if row["kind"] == "event":
            found[place] = dict(row)
        elif row["outcome"] in (0, 1):
            found[place] |= {"label": row["label"], "outcome": row["outcome"], "label_time": row["time"]}
    return [found[place] for place in sorted(found)]


def hostile(seed: int, of: Pipeline, known: Control, count: int = 600) -> Log:
    """A log of rows out of order and repeated; labels early, late, corrected, missing, and to come."""
    rows, _ = random_rows(seed, count, ids=count // 3, keys=20, span_s=30.0)
    made, clocks = sourced(known, placed(rows, seed))
    return by_partition(of, made, clocks)


def moment_us(moment: Any) -> int | None:
    """Exact microseconds of a timestamp."""
    return None if moment is None else round(moment.timestamp() * 1e6)


@pytest.mark.parametrize("seed", range(4))
def test_every_event_has_the_values_of_the_reference(seed: int, tmp_path: Path) -> None:
    """Of three entities besides the key, over three partitions; features of labels and of other features among them."""
    of, known = chain(wait_us=20 * SECOND, keep_us=10 * SECOND, missing=[None, 0.0][seed % 2]), control()
    log = hostile(seed, of, known)
    made = backfill(of, log, known, tmp_path)
    written, wanted = read(tmp_path), expected(of, log)
    names = [column.name for column in columns(of)]

    assert made.rows == len(wanted) > 150
    for mine, other in zip(written, wanted, strict=True):
        assert [mine[name] for name in ("partition", "number", "id", "key")] == [
            other[name] for name in ("partition", "number", "id", "key")
        ]
        assert [moment_us(mine[name]) for name in ("time", "produced")] == [other["time"], other["produced"]]
        assert mine["outcome"] == {-1: None, 0: "set", 1: "missing"}[other["outcome"]]
        assert mine["label"] == (None if math.isnan(other["label"]) else other["label"])
        assert moment_us(mine["label_time"]) == other.get("label_time")
        vector = [mine[name] for name in names]
        np.testing.assert_allclose(vector, other["vector"], rtol=1e-9, atol=1e-9)
    assert {row["outcome"] for row in written} == {"set", "missing", None}, "else this stream would prove little"
    assert {row["partition"] for row in written} == {0, 1, 2}


def test_corrections_are_counted_as_the_reference_has_them(tmp_path: Path) -> None:
    """Also of events that were settled long ago: as long as the first stage passes them on."""
    of, known = chain(wait_us=100 * SECOND, keep_us=1_000 * SECOND), control()
    log = hostile(7, of, known, 900)
    made = backfill(of, log, known, tmp_path)

    assert made.corrections == sum(row["outcome"] in (2, 3) for row in merged(of, log)) > 5


def test_how_the_log_is_read_shows_in_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of any size, and steps of any: of rows at one time, too, for time here is full of ties."""
    of, known = chain(wait_us=20 * SECOND, keep_us=10 * SECOND, missing=0.0), control()
    log = hostile(2, of, known)
    found = []
    for at, (sizes, rows) in enumerate(itertools.product([(1,), (500,), (3, 11)], [1, 40, 20_000])):
        monkeypatch.setattr(merged_log, "STEP_ROWS", rows)
        backfill(of, log, known, tmp_path / str(at), sizes=sizes)
        found.append(repr(read(tmp_path / str(at))))

    assert len(found) == 9
    assert set(found) == {found[0]}


@pytest.mark.parametrize("labels", [{}, {"match": "id", "key": None}], ids=["id and key", "id"])
def test_a_backfill_equals_what_a_replay_has_served(
    labels: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, where events come in order: the roles themselves replayed this log, one worker a stage."""
    of = OF_SEVERAL[:-1]  # not those with bounds: entities are forgotten by marks, which came as they came
    world = World(3, tmp_path / "state", 200, is_replay=True, with_faults=False, of=of, labels=labels)
    with monkeypatch.context() as patch:
        install(patch, world)
        world.run()
    partitions = range(world.pipeline.partitions)
    feeds = {partition: MemoryFeed(world.records("w.log", partition)) for partition in partitions}
    made = ChainBackfill(world.pipeline, world.control(), feeds, list(partitions), tmp_path / "out", ALWAYS)
    made.run({partition: len(world.records("w.log", partition)) for partition in partitions}, lambda *_: None)

    assert [served for partition in partitions for served in served_by(world, partition)] == [
        (row["partition"], row["number"], row["id"], repr([row[column.name] for column in columns(world.pipeline)]))
        for row in read(tmp_path / "out")
    ]
    assert made.rows == 200


def served_by(world: World, partition: int) -> list[tuple[int, int, str, str]]:
    """What P.features holds of a partition."""
    schema = hops(world.pipeline)[-1].output
    rows = [row for record in world.records("w.features", partition) for row in rows_of(schema, record)]
    return [(partition, row["number"], row["id"], repr(row["vector"])) for row in rows if row["kind"] == EVENT]


def test_some_partitions_have_the_rows_that_they_have_among_all(tmp_path: Path) -> None:
    """Everything is computed, for rows of an entity come from every partition of the log."""
    of, known = chain(wait_us=20 * SECOND, keep_us=10 * SECOND), control()
    log = hostile(4, of, known)
    backfill(of, log, known, tmp_path / "all")
    made = backfill(of, log, known, tmp_path / "some", wanted=[1])
    wanted = [row for row in read(tmp_path / "all") if row["partition"] == 1]

    assert repr(read(tmp_path / "some")) == repr(wanted)
    assert made.rows == len(wanted) > 20


def test_a_period_leaves_out_rows_but_not_what_they_say_of_others(tmp_path: Path) -> None:
    of, known = chain((Feature("n", "count", "*", "shop", MINUTE),)), control()
    made, clocks = sourced(known, [event(str(at), at, f"k{at}", shop="s") for at in range(6)])
    period = Period(START + 2 * SECOND, START + 4 * SECOND)
    backfill(of, by_partition(of, made, clocks), known, tmp_path, period=period)

    assert sorted((row["id"], row["n"]) for row in read(tmp_path)) == [("2", 2.0), ("3", 3.0)]


def test_events_that_wait_leave_in_portions_through_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, without a label."""
    monkeypatch.setattr(settled_rows, "DRAIN_ROWS", 3)
    of, known = chain(), control()
    rows = [event(str(at), at // 2, f"k{at % 7}", shop="s", place="p") for at in range(40)]
    made, clocks = sourced(known, [*rows, label("3", 21, key="k3"), mark(22), mark(22)])
    backfill(of, by_partition(of, made, clocks), known, tmp_path)

    found = {row["id"]: (row["outcome"], row["label"]) for row in read(tmp_path)}
    assert found == {str(at): (None, None) for at in range(40)} | {"3": ("set", 1.0)}


def test_a_partition_that_nothing_came_to_stops_no_other(tmp_path: Path) -> None:
    """It ends at once, and says its columns."""
    of, known = chain(FEATURES, partitions=3), control()
    made, clocks = sourced(known, [event(str(at), at, "one", shop="s") for at in range(5)])
    log = by_partition(of, made, clocks)
    backfill(of, log, known, tmp_path)
    table = ds.dataset(tmp_path, partitioning="hive").to_table()

    assert sorted(map(len, log)) == [0, 0, 5]
    assert table.column("id").to_pylist() == list("01234")
    assert {"per_shop", "label", "partition"} <= set(table.column_names)
    assert {path.name for path in tmp_path.iterdir()} == {f"partition={at}" for at in range(3)}
