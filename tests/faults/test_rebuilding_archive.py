"""The archive, and the role that writes it, when roles begin anew in the middle of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import serving.rebuilding
from streams.archive import read_rows
from streams.errors import PipelineError, UnavailableError
from streams.frames import LABEL
from streams.retraining import Archive
from streams.state_folder import LocalFolder
from tests.archiving import SMALL_ROWS, files, make_small
from tests.faults import verify
from tests.faults.crashing import CrashError, crashing_at
from tests.faults.test_rebuilding import POINTS, Rebuilt

OF_ARCHIVE = ("source", "number", "id", "label", "label_time")


class Archived(Rebuilt):
    """A replay with an archive."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.pipeline = msgspec.structs.replace(self.pipeline, archive=Archive())
        self.inputs["train"] = [("w.examples", 0)]
        self._start("train", self.inputs["train"])

    def archived(self, folder: str = "") -> list[tuple[Any, ...]]:
        """The rows of the archive, or of one that was set aside; their numbers are those of a list."""
        state = self.pipeline.state
        if folder:
            shutil.copytree(state / folder, state / f"of-{folder}" / "archive")
            state /= f"of-{folder}"
        rows = [row for table in read_rows(LocalFolder(state)) for row in table.to_pylist()]
        assert [row["row"] for row in rows] == list(range(len(rows)))
        return [(*(row[name] for name in OF_ARCHIVE[:4]), round(row["label_time"].timestamp() * 1e6)) for row in rows]

    def settled(self) -> list[tuple[Any, ...]]:
        """The label rows of P.examples as far as they fill segments."""
        rows = self.labelled()
        return rows[: len(rows) // SMALL_ROWS * SMALL_ROWS]

    def labelled(self) -> list[tuple[Any, ...]]:
        """The label rows of P.examples."""
        table = verify.table(self, "examples", 0, verify.schemas_of(self.pipeline).examples)
        rows = [row for row in table.to_arrow().to_pylist() if row["kind"] == LABEL]
        told = [
            (row["source"], row["number"], row["id"], None if row["label"] != row["label"] else row["label"])
            for row in rows
        ]
        return [(*one, row["time"]) for one, row in zip(told, rows, strict=True)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archived:
    """Half of a run, whose roles stand still."""
    make_small(monkeypatch)
    found = Archived(tmp_path)
    found.go(0.7)
    found._drain()
    found.stop()
    assert found.archived() == found.settled() != []
    return found


@pytest.mark.parametrize("role", ["features", ""], ids=["features", "all"])
def test_an_archive_of_examples_that_are_made_anew_is_set_aside_and_written_again(role: str, world: Archived) -> None:
    """Rows are numbered by the topic from its beginning; none is there twice, and none of before is lost."""
    before, state = world.archived(), world.pipeline.state
    lines = world.rebuild(role)
    world.start_again()
    world.finish()

    assert world.archived() == world.settled()
    assert len(world.archived()) > len(before)
    assert world.archived("archive-1") == before
    train = next(member for member in world.members if member.role == "train").worker.stations[0]
    assert (train.generation, train.task.state()["decisions_read"].tolist()) == (1, [0])
    assert f"set the archive {state}/archive aside as {state}/archive-1, which nothing reads or removes" in lines
    assert "delete what group w.train has committed" in lines


@pytest.mark.parametrize("point", [*POINTS, "after_aside"])
def test_one_that_is_killed_sets_aside_what_was_there_once(
    point: str, world: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that was recorded, whatever of it was moved before."""
    before = world.archived()

    monkeypatch.setattr(serving.rebuilding, "fail_point", crashing_at(point))
    with pytest.raises(CrashError):
        world.rebuild("features")
    monkeypatch.undo()
    make_small(monkeypatch)
    world.rebuild("features")
    world.start_again()
    world.finish()

    assert world.archived() == world.settled()
    assert world.archived("archive-1") == before


def test_one_that_is_killed_between_two_files_moves_the_rest(world: Archived, monkeypatch: pytest.MonkeyPatch) -> None:
    before, move, moved = files(world.pipeline.state / "archive"), LocalFolder.move, list[str]()

    def fail(folder: LocalFolder, name: str, to: LocalFolder) -> None:
        if len(moved) == 1:
            raise CrashError(name)
        moved.append(name)
        move(folder, name, to)

    monkeypatch.setattr(LocalFolder, "move", fail)
    with pytest.raises(CrashError):
        world.rebuild("features")
    monkeypatch.undo()
    world.rebuild("features")

    assert len(before) > 1
    assert files(world.pipeline.state / "archive-1") == before
    assert files(world.pipeline.state / "archive") == {}


def test_train_alone_archives_the_topic_again(world: Archived) -> None:
    """From its first row, whatever the archive had become; nobody else begins anew."""
    (world.pipeline.state / "archive" / next(iter(files(world.pipeline.state / "archive")))).write_bytes(b"damaged")
    shutil.rmtree(world.pipeline.state / "snapshots" / "train")
    lines = world.rebuild("train")
    world.start_again()
    world.finish()

    unread = "which nothing reads or removes"
    assert world.archived() == world.settled()
    assert world.task().lineage == 0
    assert lines == [
        "delete what group w.train has committed",
        f"delete the snapshots in {world.pipeline.state}/snapshots/train",
        f"set the archive {world.pipeline.state}/archive aside as {world.pipeline.state}/archive-1, {unread}",
        "train: begin at the earliest row, as generation 1",
    ]


def test_train_alone_keeps_an_archive_whose_first_rows_are_nowhere_else(world: Archived) -> None:
    """It goes on behind the last row with what the topic still has."""
    before = world.archived()
    world.broker.low["w.examples", 0] = 3
    lines = world.rebuild("train")
    world.start_again()
    world.finish()

    after = world.archived()
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert set(after[len(before) :]) <= set(world.labelled())
    assert not (world.pipeline.state / "archive-1").exists()
    kept = "for w.examples does not begin with its first row: it goes on behind its last row"
    assert f"keep the archive {world.pipeline.state}/archive, {kept}" in lines


def test_a_second_archive_is_set_aside_beside_the_first(world: Archived) -> None:
    """Also where nothing remembers the generation of the first."""
    (world.pipeline.state / "archive-1").mkdir()
    world.rebuild("features")

    assert (world.pipeline.state / "archive-2").exists()
    assert files(world.pipeline.state / "archive-1") == {}


def test_a_train_role_at_work_is_refused_and_so_is_one_that_the_file_has_not(world: Archived) -> None:
    world.broker.joined["w.train"] = 1
    with pytest.raises(UnavailableError, match=r"group w\.train has 1 member: stop all roles first"):
        world.rebuild("features")
    with pytest.raises(UnavailableError, match=r"group w\.train has 1 member: stop all roles first"):
        world.rescale(3)
    world.pipeline = msgspec.structs.replace(world.pipeline, archive=None)
    with pytest.raises(PipelineError, match="--role train: there is no such role"):
        world.rebuilding("train")
