"""Reading the archive: which rows, in which order, damage, and what other programs read of it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from streams import archive_file
from streams.archive import archive_of, folder_and_name, read_rows, read_segment, record_name, segments_of
from streams.durations import HOUR_US
from streams.errors import ArchiveError, UnavailableError
from streams.features import columns
from streams.object_folder import open_object_folder
from streams.pipeline import Feature
from streams.state_folder import LocalFolder
from tests.archiving import (
    START_US,
    batches,
    closed_rows,
    expected,
    found,
    pipeline,
    read,
    tidied,
    topic,
    written,
)
from tests.s3_server import S3Server

pytestmark = pytest.mark.usefixtures("small_archive")

OF = pipeline()
ROWS = topic(2, 500, days=5.0)
WANTED = expected(ROWS)
WANTED = WANTED[: closed_rows(WANTED)]


def test_a_file_that_was_changed_is_refused_by_name(tmp_path: Path) -> None:
    """One bit is enough; the line has what was found and what was recorded."""
    written(OF, tmp_path, ROWS)
    segment = segments_of(tmp_path)[3]
    path = tmp_path / "archive" / segment.name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    for reads in (lambda: read_segment(tmp_path, segment), lambda: read(tmp_path)):
        with pytest.raises(ArchiveError) as caught:
            reads()

        line = str(caught.value)
        assert str(path) in line
        assert archive_file.digest_of(bytes(content))[:12] in line
        assert segment.digest[:12] in line
        assert "\n" not in line


def test_a_file_that_is_gone_is_told_and_so_is_a_record_that_is_none(tmp_path: Path) -> None:
    """Rows are never left out in silence."""
    written(OF, tmp_path, ROWS)
    segment = segments_of(tmp_path)[0]
    folder, name = folder_and_name(archive_of(tmp_path), segment.name)
    folder.remove(name)

    for reads in (lambda: read_segment(tmp_path, segment), lambda: read(tmp_path)):
        with pytest.raises(ArchiveError, match=rf"{name} is gone, though its record is there"):
            reads()
    folder.publish(record_name(name), b'{"name": 3}')
    with pytest.raises(ArchiveError, match="is no record of a segment"):
        segments_of(tmp_path)


def test_rows_of_several_lists_of_columns_are_read_as_one(tmp_path: Path) -> None:
    """By name; a feature is NaN where it was not there. Segments of two lists are not merged."""
    of = pipeline(features=(Feature("hour", "cyclic", "hour"),))
    middle = len(ROWS) // 2
    first = written(OF, tmp_path, ROWS[:middle])
    second = written(of, tmp_path, [])
    second.restore(first.state())
    rest = [row | {"vector": [*row["vector"], 1.0, 2.0]} if "vector" in row else row for row in ROWS[middle:]]
    for batch in batches(of, rest, ()):
        second.process(batch)
    tidied(second)
    table = pa.concat_tables(read_rows(tmp_path))
    chosen = pa.concat_tables(read_rows(tmp_path, columns=columns(of)[-1:]))

    assert [*table.schema.names[10:]] == [column.name for column in columns(of)]
    assert [row["row"] for row in found([table])] == list(range(len(WANTED)))
    np.testing.assert_array_equal(
        table.column("amount").to_numpy(), [np.nan if row["vector"][0] is None else row["vector"][0] for row in WANTED]
    )
    assert chosen.schema.names[10:] == ["hour_cos"]
    assert {*chosen.column("hour_cos").to_pylist()[-20:]} == {2.0}
    assert np.isnan(chosen.column("hour_cos")[0].as_py())


@pytest.mark.parametrize("is_merged", [False, True])
def test_rows_are_chosen_by_the_times_of_event_and_label(tmp_path: Path, is_merged: bool) -> None:
    """From one time on, before another, and known by a third; rows without a time are among them."""
    rows = [row for row in ROWS if not (row["kind"] == 0 and row["number"] in (40, 41))]  # two events nobody saw
    wanted = expected(rows)[: closed_rows(expected(rows))]
    task = written(OF, tmp_path, rows)
    if is_merged:
        tidied(task)
    from_us, to_us, known_us = (START_US + hours * HOUR_US for hours in (30, 70, 72))

    assert sum(row["time"] is None for row in wanted) >= 2
    for limits in (
        {"from_us": from_us},
        {"to_us": to_us},
        {"known_us": known_us},
        {"from_us": from_us, "to_us": to_us, "known_us": known_us},
    ):
        chosen = [
            row
            for row in wanted
            if (row["time"] is None or limits.get("from_us", 0) <= row["time"] < limits.get("to_us", 1 << 62))
            and row["label_time"] <= limits.get("known_us", 1 << 62)
        ]

        assert 0 < len(chosen) < len(wanted)
        assert read(tmp_path, **limits) == chosen
    assert read(tmp_path / "empty") == []


def test_merging_and_archiving_disturb_no_reader(tmp_path: Path) -> None:
    """One that has begun finds the rows there were, in order, though their files are others by now."""
    half = len(ROWS) // 2
    task = written(OF, tmp_path, ROWS[:half])
    reading = read_rows(tmp_path)
    before = [next(reading), next(reading)]
    known = task.rows
    for batch in batches(OF, ROWS[half:], ()):
        task.process(batch)
    tidied(task)

    assert found([*before, *reading]) == WANTED[:known]


def test_pandas_and_duckdb_read_the_folder_as_it_is(tmp_path: Path) -> None:
    """Each row once, with the values of the topic; the day is a column."""
    tidied(written(OF, tmp_path, ROWS))
    frame = pd.read_parquet(tmp_path / "archive").sort_values("row")
    pattern = f"{tmp_path}/archive/**/*.parquet"
    query = f"SELECT * FROM read_parquet('{pattern}', hive_partitioning = true) ORDER BY row"  # noqa: S608 - our path
    relation = duckdb.sql(query)
    assert relation is not None
    duck = relation.to_arrow_table()
    wanted = pd.DataFrame(WANTED)
    days = pd.to_datetime(wanted["time"], unit="us", utc=True).dt.date.astype(str).tolist()

    assert found([pa.Table.from_pandas(frame.drop(columns="day"), preserve_index=False)]) == WANTED
    assert frame["day"].astype(str).tolist() == days
    assert found([duck.drop_columns(["day"])]) == WANTED
    assert [str(day) for day in duck.column("day").to_pylist()] == days
    assert ds.dataset(tmp_path / "archive", partitioning="hive").count_rows() == len(WANTED)


@pytest.mark.parametrize("to_row", [0, 1, 7, len(WANTED) // 2, len(WANTED) - 1, len(WANTED) + 5])
def test_rows_behind_a_bound_are_not_read(to_row: int, tmp_path: Path) -> None:
    """Whether a segment lies before the bound, behind it or across, merged or not."""
    task = written(OF, tmp_path, ROWS)
    wanted = [row for row in WANTED if row["row"] < to_row]

    assert found(list(read_rows(tmp_path, to_row=to_row))) == wanted
    tidied(task)
    assert found(list(read_rows(tmp_path, to_row=to_row))) == wanted


def test_an_archive_in_an_object_store_is_the_same(s3: S3Server, tmp_path: Path) -> None:
    """Files, merging, damage and reading; a store that does not answer is no empty archive."""
    state = open_object_folder(s3.url())
    tidied(written(OF, state, ROWS))
    tidied(written(OF, tmp_path, ROWS))
    segments = segments_of(state)
    folder, name = folder_and_name(archive_of(state), segments[0].name)

    assert segments == segments_of(tmp_path)
    assert found(list(read_rows(state))) == WANTED
    tidied(written(OF, state, ROWS))
    assert segments_of(state) == segments
    folder.publish(name, folder.read(name)[:-1] + b"?")
    with pytest.raises(ArchiveError, match=rf"{name} is not the file that was archived"):
        read_segment(state, segments[0])
    with pytest.raises(UnavailableError):
        segments_of(open_object_folder(s3.url("no-such-bucket")))


def test_folders_are_listed_as_files_are(s3: S3Server, tmp_path: Path) -> None:
    """Names of files and of folders, apart; none where there is nothing."""
    for place in (LocalFolder(tmp_path), open_object_folder(s3.url())):
        (place / "day=2" / "x").publish("f", b"1")
        (place / "day=1").publish("f", b"1")
        place.publish("g", b"1")

        assert place.folders() == ["day=1", "day=2"]
        assert place.names()[-1:] == ["g"]
        assert (place / "day=2").folders() == ["x"]
        assert (place / "day=3").folders() == []
