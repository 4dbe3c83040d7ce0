"""`millrace export FILE`: archived examples as a file, compared with the topic's rows, event by event."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from serving.archive_export import Wish, export_examples
from serving.cli import app
from streams.errors import UnavailableError
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from tests.archiving import Row, batches, closed_rows, expected, found, make_small, tidied, topic, written

FILE = """
[pipeline]
name = "p"
state = "state"
[events]
topic = "events"
id = "id"
key = "key"
[events.fields]
amount = "number"
shop = "category"
is_new = "boolean"
miles = "number"
[labels]
topic = "labels"
id = "id"
key = "key"
value = "y"
wait = "12h"
keep = "6h"
[models.prior]
kind = "prior"
[serve]
champion = "prior"
[archive]
"""
ROWS = topic(4, 500, days=5.0)
WANTED = expected(ROWS)
WANTED = WANTED[: closed_rows(WANTED)]
FROM, TO = "2013-01-02T06:00:00Z", "2013-01-04"
FROM_US, TO_US = (round(datetime(2013, 1, day, hour, tzinfo=UTC).timestamp() * 1e6) for day, hour in ((2, 6), (4, 0)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.fixture(name="of")
def _of(tmp_path: Path) -> Pipeline:
    """A pipeline whose file is there, with an archive of some days."""
    (tmp_path / "p.toml").write_text(FILE, encoding="utf-8")
    of = read_pipeline(tmp_path / "p.toml")
    of = msgspec.structs.replace(of, state=tmp_path / "state")
    tidied(written(of, of.state, ROWS))
    return of


def newest(rows: list[Row]) -> list[Row]:
    """One row an event: the one that settled it, with what the newest says of the label."""
    made: dict[tuple[int, int], Row] = {}
    for row in rows:
        name = row["source"], row["number"]
        if row["outcome"] in ("set", "missing"):
            made[name] = dict(row)
        else:
            made[name] |= {what: row[what] for what in ("label", "outcome", "label_time")}
    return list(made.values())


def millrace(*arguments: str | Path) -> str:
    """The output of a command that goes well."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def refusal(*arguments: str | Path) -> str:
    """The one line of a command that does not."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code
    return str(done.exception)


def test_one_row_an_event_with_the_label_that_was_told_last(of: Pipeline, tmp_path: Path) -> None:
    """Amended and retracted labels are those of the row that settled the event, whose features it keeps."""
    out = tmp_path / "out" / "examples.parquet"
    wanted = newest(WANTED)
    output = millrace("export", tmp_path / "p.toml", "--out", out)

    assert {row["outcome"] for row in wanted} == {"set", "missing", "retracted", "amended"}
    assert found([pq.read_table(out)]) == wanted
    assert output == f"{out}: {len(wanted)} rows; newer ones are archived when their day is over, or 65,536 are there\n"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_all_gives_every_label_row(of: Pipeline, tmp_path: Path) -> None:
    """As they lie in the archive."""
    millrace("export", tmp_path / "p.toml", "--out", tmp_path / "all.parquet", "--all")

    assert found([pq.read_table(tmp_path / "all.parquet")]) == WANTED


@pytest.mark.parametrize("everything", [[], ["--all"]])
def test_a_period_is_of_events(everything: list[str], of: Pipeline, tmp_path: Path) -> None:
    """From one time on and before another; a time without an offset is UTC."""
    out = tmp_path / "some.parquet"
    millrace("export", tmp_path / "p.toml", "--out", out, "--from", FROM, "--to", TO, *everything)
    wanted = [row for row in (WANTED if everything else newest(WANTED)) if FROM_US <= row["time"] < TO_US]

    assert 100 < len(wanted) < len(WANTED)
    assert found([pq.read_table(out)]) == wanted


def test_a_period_without_events_has_a_file_without_rows(of: Pipeline, tmp_path: Path) -> None:
    """So that its columns are known."""
    for form in ("parquet", "csv"):
        millrace("export", tmp_path / "p.toml", "--out", tmp_path / f"none.{form}", "--to", "2012-01-01")

    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    assert len((tmp_path / "none.csv").read_text().splitlines()) == 1


def test_csv_has_the_same_rows(of: Pipeline, tmp_path: Path) -> None:
    """By the name of the file, or by --format."""
    millrace("export", tmp_path / "p.toml", "--out", tmp_path / "e.csv")
    millrace("export", tmp_path / "p.toml", "--out", tmp_path / "e.txt", "--format", "csv")
    wanted = newest(WANTED)
    with (tmp_path / "e.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    assert (tmp_path / "e.txt").read_bytes() == (tmp_path / "e.csv").read_bytes()
    assert [(row["id"], int(row["number"]), row["outcome"], row["label"]) for row in rows] == [
        (row["id"], row["number"], row["outcome"], "" if row["label"] is None else f"{row['label']:g}")
        for row in wanted
    ]
    amounts = [None if row["amount"] == "nan" else float(row["amount"]) for row in rows]
    assert amounts == [row["vector"][0] for row in wanted]


def test_an_event_that_was_archived_twice_is_one_row(of: Pipeline, tmp_path: Path) -> None:
    """Where a role had to begin anew, rows may come again under other numbers."""
    task = written(of, of.state, [])
    task.renew()
    for batch in batches(of, ROWS, ()):
        task.process(batch)
    export_examples(of, tmp_path / "e.parquet", "parquet", Wish())
    everything = export_examples(of, tmp_path / "all.parquet", "parquet", Wish(is_all=True))
    rows, wanted = found([pq.read_table(tmp_path / "e.parquet")]), newest(WANTED)
    first = {(row["source"], row["number"]): row["vector"] for row in rows}

    assert everything > len(WANTED) * 1.5
    assert len(rows) == len(first)
    assert {name: first[name] for name in ((row["source"], row["number"]) for row in wanted)} == {
        (row["source"], row["number"]): row["vector"] for row in wanted
    }


def test_nothing_is_written_over_and_mistakes_are_one_line(of: Pipeline, tmp_path: Path) -> None:
    """Each says what to do."""
    file, out = tmp_path / "p.toml", tmp_path / "there.parquet"
    out.touch()

    assert refusal("export", file, "--out", out) == f"{out} is there already; choose another --out"
    assert "--format: 'cvs' is no format; allowed: parquet or csv; did you mean \"csv\"?" in refusal(
        "export", file, "--out", tmp_path / "x", "--format", "cvs"
    )
    assert "--from monday: is no time" in refusal("export", file, "--out", tmp_path / "x", "--from", "monday")
    assert "--from is for examples, not for a version" in refusal(
        "export", file, "prior", "--out", tmp_path / "x", "--from", FROM
    )
    assert "--all is for examples" in refusal("export", file, "prior", "--out", tmp_path / "x", "--all")
    with pytest.raises(UnavailableError, match=r"cannot write .*; choose another --out"):
        export_examples(of, out / "x.parquet", "parquet", Wish())
    assert not (tmp_path / "x").exists()


def test_an_archive_without_examples_says_who_archives_them(of: Pipeline, tmp_path: Path) -> None:
    """An empty file would look like an answer."""
    of = msgspec.structs.replace(of, state=tmp_path / "other")

    with pytest.raises(UnavailableError, match=r"^the archive has no examples yet: .*`millrace up`"):
        export_examples(of, tmp_path / "e.parquet", "parquet", Wish())


def test_a_damaged_archive_leaves_no_file(of: Pipeline, tmp_path: Path) -> None:
    """Neither under its name nor under another."""
    path = next((of.state / "archive").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    assert "is not the file that was archived" in refusal("export", tmp_path / "p.toml", "--out", tmp_path / "e.csv")
    assert not list(tmp_path.glob("*e.csv*"))


def test_labels_of_classes_are_exported_by_name(tmp_path: Path) -> None:
    """The schema has all of them."""
    (tmp_path / "p.toml").write_text(
        FILE.replace("[models.prior]", '[task]\nkind = "multiclass"\nclasses = ["no", "yes"]\n[models.prior]')
    )
    of = msgspec.structs.replace(read_pipeline(tmp_path / "p.toml"), state=tmp_path / "state")
    written(of, of.state, ROWS)
    export_examples(of, tmp_path / "e.parquet", "parquet", Wish())
    table = pq.read_table(tmp_path / "e.parquet")

    assert table.column("label").to_pylist() == [
        None if row["label"] is None else ("no", "yes")[int(row["label"])] for row in newest(WANTED)
    ]
    assert table.schema.field("label").type == pa.string()
