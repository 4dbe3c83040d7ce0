"""Writing the archive: kills at every step, repeats, zombies, merging and retention."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from consumers.archiving import ArchiveTask
from streams import archive_file, archive_store
from streams.archive import archive_of, folder_and_name, live, record_name, segments_of
from streams.durations import DAY_US
from streams.errors import ArchiveError, UnavailableError
from streams.metrics import RoleMetrics
from streams.pipeline import Feature
from streams.retraining import Archive
from tests.archiving import (
    batches,
    closed_rows,
    expected,
    files,
    pipeline,
    read,
    rows_in,
    tidied,
    topic,
    written,
)

pytestmark = pytest.mark.usefixtures("small_archive")

OF = pipeline()
ROWS = topic(2, 500, days=5.0)
WANTED = expected(ROWS)
WANTED = WANTED[: closed_rows(WANTED)]
POINTS = ("after_segment", "after_record", "after_merged", "after_merge")


class KilledError(Exception):
    """What a fail point raises in place of a kill."""


def dying(monkeypatch: pytest.MonkeyPatch, point: str, rng: random.Random) -> None:
    """Die once at a fail point."""
    passes = rng.randrange(1, 4)

    def pass_point(name: str) -> None:
        nonlocal passes
        passes -= name == point
        if name == point and passes == 0:
            raise KilledError

    monkeypatch.setattr(archive_store, "fail_point", pass_point)


def run_with_kills(state: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> int:
    """Archive all rows, with a snapshot now and then, and go on from it after each kill; says how many there were."""
    rng, kills, place, saved = random.Random(seed), 0, 0, None
    cuts = sorted(rng.sample(range(len(ROWS)), 40))
    made, all_batches = written(OF, state, []), list(batches(OF, ROWS, cuts))
    dying(monkeypatch, rng.choice(POINTS), rng)
    while place < len(all_batches):
        try:
            made.process(all_batches[place])
            place += 1
            while rng.random() < 0.7 and made.tick():
                pass
        except KilledError:
            kills += 1
            dying(monkeypatch, rng.choice(POINTS), rng)
            made = written(OF, state, [])
            place = 0
            if saved is not None:
                place = saved[0]
                made.restore(saved[1])
        if rng.random() < 0.15:
            saved = place, {name: array.copy() for name, array in made.state().items()}
    monkeypatch.setattr(archive_store, "fail_point", lambda name: None)
    tidied(made)
    return kills


@pytest.mark.parametrize("seed", range(6))
def test_kills_leave_the_archive_of_a_run_without_any(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows once each, in the same files byte for byte; which of them were merged depends on when that was done."""
    whole = {one.name: one for one in written(OF, tmp_path / "whole", ROWS).store.segments}
    kills = run_with_kills(tmp_path / "killed", monkeypatch, seed)
    rows, segments = read(tmp_path / "killed"), segments_of(tmp_path / "killed")

    assert kills >= 1
    assert rows == WANTED
    assert {name for one in segments for name in (one.name, *one.replaces) if name in whole} == whole.keys()
    assert all(one == whole[one.name] for one in segments if not one.replaces)
    assert any(one.replaces for one in segments)
    assert len(files(tmp_path / "killed")) == 2 * len(segments)  # nothing is left over


def run(task: ArchiveTask) -> None:
    """Take all rows, and do what is due between."""
    for batch in batches(OF, ROWS, range(0, len(ROWS), 9)):
        task.process(batch)
        tidied(task)


@pytest.mark.parametrize("point", POINTS)
def test_readers_find_each_row_once_after_a_kill_at_every_step(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything has cleaned up behind it. Of rows that were closed together some days may be there yet."""
    task = written(OF, tmp_path, [])
    dying(monkeypatch, point, random.Random(5))
    with pytest.raises(KilledError):
        run(task)
    rows = read(tmp_path)

    assert rows
    assert rows == [WANTED[place] for place in sorted({row["row"] for row in rows})]


def test_days_that_are_over_become_one_file_each(tmp_path: Path) -> None:
    """Same rows, fewer files, whose records name what they replace; the days that may go on stay as they are."""
    task = written(OF, tmp_path, ROWS)
    before = {segment.name for segment in task.store.segments}
    segments = tidied(task)
    days = [segment.day for segment in segments]
    merged = [segment for segment in segments if segment.replaces]

    assert read(tmp_path) == WANTED
    assert len(segments) <= len(before) / 2
    assert len(merged) >= 3
    assert all(days.count(segment.day) == 1 for segment in merged)
    assert before == {name for one in segments for name in one.replaces} | {one.name for one in segments} - {
        one.name for one in merged
    }
    assert segments == segments_of(tmp_path)
    assert len(files(tmp_path)) == 2 * len(segments)


def test_a_repeat_behind_a_merge_writes_nothing(tmp_path: Path) -> None:
    """From the first row, as after the loss of every snapshot; the merged files hold these rows."""
    tidied(written(OF, tmp_path, ROWS))
    before = files(tmp_path)
    tidied(written(OF, tmp_path, ROWS))

    assert files(tmp_path) == before


def test_old_days_are_let_go_of(tmp_path: Path) -> None:
    """By the days of events; what a kill leaves of one is found and removed."""
    of = pipeline(archive=Archive(keep_us=2 * DAY_US))
    segments = tidied(written(of, tmp_path, ROWS))
    newest = max(segment.day for segment in segments)

    assert newest == "2013-01-05"
    assert sorted({segment.day for segment in segments}) == ["2013-01-03", "2013-01-04", "2013-01-05"]
    assert len(files(tmp_path)) == 2 * len(segments)
    gone = segments[0]
    folder, name = folder_and_name(archive_of(tmp_path), gone.name)
    folder.publish(record_name("000000000000-000000000007.parquet"), b"")
    folder.remove(record_name("000000000000-000000000007.parquet"))
    old = msgspec.structs.replace(gone, day="2013-01-01", name=gone.name.replace(gone.day, "2013-01-01"))
    (archive_of(tmp_path) / "day=2013-01-01").publish(record_name(name), msgspec.json.encode(old))
    tidied(written(of, tmp_path, []))

    assert segments_of(tmp_path) == segments


def test_another_topic_is_not_mixed_with_what_is_there(tmp_path: Path) -> None:
    """Neither where its segments have the same names, nor where they are cut otherwise; what is there stays."""
    written(OF, tmp_path, ROWS)
    before = files(tmp_path)
    other = [row | {"produced": row.get("produced", 0) + 1} for row in ROWS]

    for rows in (other, ROWS[3:]):
        with pytest.raises(ArchiveError, match=r"holds other examples than the topic gives for rows \d+ to \d+: was"):
            written(OF, tmp_path, rows)
    assert before.items() <= files(tmp_path).items()


def test_another_release_of_the_writer_finds_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a file may differ then; what is there stays."""
    with monkeypatch.context() as patch:
        patch.setattr(archive_file, "FEW_VALUES", ("outcome",))
        written(OF, tmp_path, ROWS)
    before = files(tmp_path)
    written(OF, tmp_path, ROWS)

    assert files(tmp_path) == before
    assert read(tmp_path) == WANTED


def test_a_repeat_under_another_list_of_columns_leaves_what_is_there(tmp_path: Path) -> None:
    """The rows are the same; the columns they had first are kept."""
    written(OF, tmp_path, ROWS)
    before = files(tmp_path)
    of = pipeline(features=(Feature("hour", "cyclic", "hour"),))
    written(of, tmp_path, [row | {"vector": [*row["vector"], 1.0, 2.0]} if "vector" in row else row for row in ROWS])

    assert files(tmp_path) == before


def test_a_writer_that_came_later_wins_over_a_zombie(tmp_path: Path) -> None:
    """What a zombie merges or writes once more lies within what its successor has merged."""
    half = len(ROWS) // 2
    zombie = written(OF, tmp_path, ROWS[:half])
    saved = zombie.state()
    successor = written(OF, tmp_path, [])
    successor.restore(saved)
    for batch in batches(OF, ROWS[half:], ()):
        successor.process(batch)
    early = [*zombie.store.segments]
    contents = {one.name: (tmp_path / "archive" / one.name).read_bytes() for one in early}
    tidied(successor)
    for one in early:  # as if its writes were on their way
        folder, name = folder_and_name(archive_of(tmp_path), one.name)
        folder.publish(name, contents[one.name])
        folder.publish(record_name(name), msgspec.json.encode(one))
    tidied(zombie)

    assert read(tmp_path) == WANTED
    tidied(written(OF, tmp_path, []))
    assert len(files(tmp_path)) == 2 * len(segments_of(tmp_path))


def test_an_archive_goes_on_behind_examples_that_are_gone(tmp_path: Path) -> None:
    """Where a role had to begin anew at a later row, numbers go on."""
    first = written(OF, tmp_path, ROWS[:300])
    task = written(OF, tmp_path, [])
    task.renew()
    for batch in batches(OF, ROWS[300:], ()):
        task.process(batch)
    rows = read(tmp_path)

    assert [row["row"] for row in rows[: first.rows]] == list(range(first.rows))
    assert rows[first.rows]["row"] == first.rows
    assert task.rows == rows[-1]["row"] + 1 > first.rows


def test_what_the_archive_holds_is_measured(tmp_path: Path) -> None:
    """Rows, bytes and files, as they lie there."""
    metrics = RoleMetrics("train", "p")
    task = written(OF, tmp_path, ROWS)
    segments = tidied(task)
    task.measure(metrics)
    labels = {"pipeline": "p", "role": "train", "candidate": ""}
    values = [metrics.registry.get_sample_value(f"millrace_archive_{what}", labels) for what in _GAUGES]
    sizes = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))

    assert values == [rows_in(segments), sizes, len(segments)] == [len(WANTED), sizes, len(segments)]
    assert task.is_sound()


_GAUGES = ("rows", "bytes", "segments")


def test_a_day_that_is_damaged_is_left_as_it_is_and_archiving_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told and counted once; reading it fails none the less, and the other days are merged."""
    whole = tidied(written(OF, tmp_path / "whole", ROWS))
    metrics, task = RoleMetrics("train", "p"), written(OF, tmp_path / "damaged", ROWS)
    merged = next(one for one in whole if one.name not in {other.name for other in task.store.segments})
    broken = next(one for one in task.store.segments if merged.covers(one))
    path = tmp_path / "damaged" / "archive" / broken.name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    segments = tidied(task)
    task.measure(metrics)
    task.measure(metrics)
    labels = {"pipeline": "p", "role": "train", "candidate": "", "what": "archive_damaged"}
    incidents = metrics.registry.get_sample_value("millrace_incidents_total", labels)

    assert [one for one in segments if one.day != broken.day] == [one for one in whole if one.day != broken.day]
    assert incidents == len(caplog.records) == 1
    assert broken.name in caplog.text
    with pytest.raises(ArchiveError, match=broken.name):
        read(tmp_path / "damaged")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """Nothing is half there afterwards."""
    (tmp_path / "archive").touch()

    with pytest.raises(UnavailableError, match=r"cannot write .*/archive/day=2012-12-3.*; make room"):
        written(OF, tmp_path, ROWS)


def test_live_segments_are_those_that_lie_in_no_other(tmp_path: Path) -> None:
    """Of the same day; ranges of different days overlap."""
    task = written(OF, tmp_path, ROWS)
    before = [*task.store.segments]
    after = tidied(task)

    assert live([*before, *after]) == after
    assert live(before) == before


def test_a_file_without_a_record_is_not_there_and_is_written_again(tmp_path: Path) -> None:
    """As after a kill between the two."""
    written(OF, tmp_path, ROWS)
    segment = segments_of(tmp_path)[2]
    folder, name = folder_and_name(archive_of(tmp_path), segment.name)
    folder.remove(record_name(name))
    (Path(tmp_path) / "archive" / segment.name).write_bytes(b"half")

    assert len(read(tmp_path)) == len(WANTED) - segment.rows
    written(OF, tmp_path, ROWS)
    assert read(tmp_path) == WANTED


def test_an_archive_is_opened_by_the_first_step_only(tmp_path: Path) -> None:
    """So that a role is set up without asking a network."""
    (tmp_path / "archive" / "day=2013-01-01").mkdir(parents=True)
    (tmp_path / "archive" / "day=2013-01-01" / "_000000000000-000000000001.json").touch()
    task = written(OF, tmp_path, [])

    with pytest.raises(ArchiveError, match="is no record of a segment"):
        task.tick()
