"""The backfill of a partition: every event once, with the values of the reference and the label that settled it."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from serving import dataset
from serving.backfill import Backfill
from serving.settled_rows import Period
from streams.bound import Bound
from streams.pipeline import Feature, Pipeline
from tests.feature_reference import Reference
from tests.featurizing import SECOND, START, event, label, mark, random_rows, reference_run, small_pipeline
from tests.memory_feed import MemoryFeed, Row, log_of, sourced
from tests.rows import control

FEATURES = (
    Feature("count_12s", "count", "*", "key", 12 * SECOND),
    Feature("sum_12s", "sum", "amount", "key", 12 * SECOND),
    Feature("mean_1m", "mean", "amount", "key", 60 * SECOND),
    Feature("since", "elapsed", "*", "key"),
    Feature("hour", "cyclic", "hour"),
)
ALWAYS = Period()
OUTCOMES = {-1: None, 0: "set", 1: "missing"}


def backfill(
    of: Pipeline, rows: list[Row], out: Path, period: Period = ALWAYS, sizes: tuple[int, ...] = (7, 1, 40)
) -> tuple[Backfill, Reference]:
    """Write a dataset of these rows, and take them through the reference."""
    known = control()
    made, clocks = sourced(known, rows)
    found = Backfill(of, 0, known, out, period)
    log = log_of(of, made, sizes)
    seen: list[int] = []
    found.run(MemoryFeed(log), len(log), seen.append)
    assert sum(seen) == len(log)
    return found, reference_run(of, made, clocks)


def read(out: Path) -> list[Row]:
    """All rows of a dataset as any reader finds them, by number."""
    rows: list[Row] = ds.dataset(out, partitioning="hive").to_table().sort_by("number").to_pylist()
    return rows


def expected(reference: Reference) -> list[Row]:
    """One row an event: the event row of P.examples, with what the label row that settled it says."""
    found = {row["number"]: dict(row) for _, row in reference.out if row["kind"] == "event"}
    for _, row in reference.out:
        if row["kind"] == "label" and row["outcome"] in (0, 1):
            found[row["number"]] |= {name: row[name] for name in ("label", "outcome")} | {"label_time": row["time"]}
    return [found[number] for number in sorted(found)]


def moment_us(moment: datetime) -> int:
    """Exact microseconds of a timestamp that carries its zone."""
    assert moment.utcoffset() == timedelta()
    return round(moment.timestamp() * 1e6)


@pytest.mark.parametrize(
    ("missing", "bounds"), [(None, ()), (0.0, ()), (0.0, (Bound("key", ttl_us=10 * SECOND, most=4),))]
)
def test_every_event_has_the_values_of_the_reference(
    missing: float | None, bounds: tuple[Bound, ...], tmp_path: Path
) -> None:
    """Over a hostile stream: rows out of order and repeated; labels early, late, corrected, missing, and to come."""
    of = small_pipeline(FEATURES, raw=True, wait_us=20 * SECOND, missing=missing)
    of = msgspec.structs.replace(of, bounds=bounds)
    rows, _ = random_rows(3, 700, ids=250, keys=3, span_s=30.0)
    found, reference = backfill(of, rows, tmp_path)
    wanted, written = expected(reference), read(tmp_path)

    assert [row["number"] for row in written] == list(range(len(wanted)))
    assert len(wanted) == found.rows > 150
    for mine, other in zip(written, wanted, strict=True):
        assert (mine["id"], mine["key"], moment_us(mine["time"])) == (other["id"], other["key"], other["time"])
        assert moment_us(mine["produced"]) == other["produced"]
        assert mine["outcome"] == OUTCOMES[other["outcome"]]
        assert mine["label"] == (None if math.isnan(other["label"]) else other["label"])
        assert (mine["label_time"] and moment_us(mine["label_time"])) == other.get("label_time")
        vector = [mine[name] for name in ("amount", "shop", "is_new", "count_12s", "sum_12s", "mean_1m", "since")]
        np.testing.assert_allclose([*vector, mine["hour_sin"], mine["hour_cos"]], other["vector"], rtol=1e-9, atol=1e-9)
    became = {row["outcome"] for row in written}
    assert became == {"set", "missing", None}, "else this stream would prove little"
    assert {why for why in ("expired", "evicted") if reference.tally.get(why)} == (
        {"expired", "evicted"} if bounds else set()
    )


def test_corrections_after_settling_are_counted_and_not_shown(tmp_path: Path) -> None:
    """The dataset has what models learned from."""
    of = small_pipeline(FEATURES)
    rows = [
        event("a", 1),
        label("a", 2, 1.0),
        label("a", 3, 0.0),
        event("b", 4),
        label("b", 5, 1.0),
        label("b", 6, None),
    ]
    found, _ = backfill(of, rows, tmp_path)

    assert found.corrections == 2
    assert [(row["label"], row["outcome"]) for row in read(tmp_path)] == [(1.0, "set")] * 2


def test_the_clocks_wait_for_events_and_labels_alike(tmp_path: Path) -> None:
    """As in the stream: an early label is not forgotten before a source of events was heard of."""
    of = small_pipeline(FEATURES)
    backfill(of, [label("a", 1), mark(100), event("a", 2)], tmp_path, sizes=(1,))

    assert [(row["label"], row["outcome"]) for row in read(tmp_path)] == [(1.0, "set")]


def test_rows_that_ingest_repeated_are_written_once(tmp_path: Path) -> None:
    """After a crash of ingest the log has rows twice; numbers tell."""
    of, known = small_pipeline(FEATURES), control()
    made, _ = sourced(known, [event("a", 1), event("b", 2), event("c", 3)])
    log = log_of(of, [*made[:2], *made], (1,))
    Backfill(of, 0, known, tmp_path, Period()).run(MemoryFeed(log), len(log), lambda _: None)

    assert [row["id"] for row in read(tmp_path)] == ["a", "b", "c"]


def test_the_log_is_read_to_the_end_it_had_and_no_further(tmp_path: Path) -> None:
    """What comes while a backfill runs belongs to the next one."""
    of, known = small_pipeline(FEATURES), control()
    made, _ = sourced(known, [event("a", 1), event("b", 2), event("c", 3)])
    Backfill(of, 0, known, tmp_path, Period()).run(MemoryFeed(log_of(of, made, (1,))), 2, lambda _: None)

    assert [row["id"] for row in read(tmp_path)] == ["a", "b"]


def test_a_period_leaves_out_rows_but_not_what_they_say_of_others(tmp_path: Path) -> None:
    """From is inclusive, to is not; windows still cover events before."""
    of = small_pipeline(FEATURES)
    rows = [event(str(at), at) for at in range(6)]
    backfill(of, rows, tmp_path, Period(START + 2 * SECOND, START + 4 * SECOND))

    assert [(row["id"], row["count_12s"]) for row in read(tmp_path)] == [("2", 2.0), ("3", 3.0)]


def test_events_that_wait_leave_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the end is cut, each event leaves once; only those of one time leave together whatever their number."""
    monkeypatch.setattr("serving.settled_rows.DRAIN_ROWS", 3)
    portions: list[int] = []
    add = dataset.PartitionFiles.add

    def noted(self: dataset.PartitionFiles, rows: pa.RecordBatch) -> None:
        portions.append(rows.num_rows)
        add(self, rows)

    monkeypatch.setattr(dataset.PartitionFiles, "add", noted)
    of = small_pipeline(FEATURES)
    backfill(of, [event(str(n), n // 4) for n in range(23)], tmp_path)

    assert [(row["id"], row["outcome"], row["label"]) for row in read(tmp_path)] == [
        (str(n), None, None) for n in range(23)
    ]
    assert (max(portions), sum(portions)) == (4, 23)


def test_rows_lie_in_groups_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of at least so many rows, sorted by number; a file holds a few groups, compressed by zstd."""
    monkeypatch.setattr(dataset, "GROUP_ROWS", 5)
    monkeypatch.setattr(dataset, "FILE_GROUPS", 2)
    of = small_pipeline(FEATURES)
    rows = [row for n in range(40) for row in (event(str(n), n), label(str(n - 3), n), mark(n), mark(n))]
    backfill(of, rows, tmp_path, sizes=(2,))
    files = sorted((tmp_path / "partition=0").iterdir())

    assert [file.name for file in files] == [f"part-{n:05}.parquet" for n in range(len(files))]
    assert len(files) > 2
    for file in files:
        found = pq.ParquetFile(file)
        groups = [found.read_row_group(n).column("number").to_pylist() for n in range(found.num_row_groups)]
        assert all(group == sorted(group) for group in groups)
        assert found.num_row_groups <= 2
        assert found.metadata.row_group(0).column(0).compression == "ZSTD"
    assert [row["number"] for row in read(tmp_path)] == list(range(40))


def test_a_partition_without_rows_still_says_its_columns(tmp_path: Path) -> None:
    """A reader of the whole dataset finds the same columns everywhere."""
    of = small_pipeline(FEATURES)
    backfill(of, [mark(1)], tmp_path)
    table = ds.dataset(tmp_path, partitioning="hive").to_table()

    assert table.num_rows == 0
    assert {"id", "label", "count_12s", "hour_sin", "partition"} <= set(table.column_names)


def test_a_feature_named_like_a_column_of_ours_is_told_apart(tmp_path: Path) -> None:
    """No reader copes with two columns of one name."""
    of = small_pipeline((Feature("number", "count", "*", "key", 12 * SECOND),))
    backfill(of, [event("a", 1), event("b", 2)], tmp_path)

    assert [(row["number"], row["feature.number"]) for row in read(tmp_path)] == [(0, 0.0), (1, 1.0)]
