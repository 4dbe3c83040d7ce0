"""Checkpoints: the newest whole one of the same training is found, whatever happened to the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.checkpoints import Checkpoints
from models.course import Course
from models.learner import State

STATE: State = {"network.w": np.arange(6, dtype=np.float32).reshape(2, 3), "step.w": np.array(3.0, np.float32)}


def written(directory: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(directory, "it")
    for step in steps:
        checkpoints.write(step, STATE, Course(step=step, curve=[(0.1 + step, 1 / 3)], best_epoch=0, best_loss=1 / 3))
    return checkpoints


def files(directory: Path) -> list[Path]:
    return sorted((directory / "checkpoints").iterdir())


def test_the_newest_is_read_bit_for_bit(tmp_path: Path) -> None:
    found = written(tmp_path, 5, 12).newest()

    assert found is not None
    assert found.course == Course(step=12, curve=[(12.1, 1 / 3)], best_epoch=0, best_loss=1 / 3)
    assert found.state.keys() == STATE.keys()
    assert all(np.array_equal(found.state[name], STATE[name]) for name in STATE)


def test_two_are_kept(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)

    assert [path.name[:12] for path in files(tmp_path)] == ["000000000002", "000000000003"]


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, "it").newest() is None


@pytest.mark.parametrize("place", [3, 40, 200, -1])
def test_of_a_damaged_one_that_before_is_taken_and_one_line_says_so(place: int, tmp_path: Path) -> None:
    written(tmp_path, 5, 12)
    whole = bytearray(files(tmp_path)[1].read_bytes())
    whole[place] ^= 1
    files(tmp_path)[1].write_bytes(whole)

    checkpoints = Checkpoints(tmp_path, "it")
    found = checkpoints.newest()

    assert found is not None
    assert found.course.step == 5
    (line,) = checkpoints.refused
    assert line.startswith("checkpoint 000000000012-")
    assert "digest" in line
    assert "\n" not in line


@pytest.mark.parametrize("size", [0, 7, 100])
def test_truncated_ones_are_refused_and_what_is_written_then_is_the_newest(size: int, tmp_path: Path) -> None:
    written(tmp_path, 5, 12)
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:size])

    checkpoints = Checkpoints(tmp_path, "it")
    assert checkpoints.newest() is None
    assert len(checkpoints.refused) == 2
    checkpoints.write(1, STATE, Course(step=1))
    checkpoints.write(2, STATE, Course(step=2))

    found = checkpoints.newest()
    assert found is not None
    assert found.course.step == 2


def test_one_that_was_not_renamed_any_more_is_no_checkpoint(tmp_path: Path) -> None:
    written(tmp_path, 5)
    (tmp_path / "checkpoints" / "000000000012-ab.1234.tmp").write_bytes(b"half")

    found = Checkpoints(tmp_path, "it").newest()

    assert found is not None
    assert found.course.step == 5


def test_those_of_other_examples_are_refused(tmp_path: Path) -> None:
    written(tmp_path, 5)

    other = Checkpoints(tmp_path, "other")

    assert other.newest() is None
    assert "other examples or settings" in other.refused[0]


def test_all_are_forgotten(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 5, 12)
    (tmp_path / "checkpoints" / "half.tmp").write_bytes(b"half")

    checkpoints.forget()

    assert list(tmp_path.iterdir()) == []
