"""Tables in files: the same to everyone who uses them, longer without a copy, gone with the process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from streams.errors import UnavailableError
from streams.memory import resized
from streams.scratch import Scratch, let_go


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Everything from 4 KiB on lies in a file."""
    return Scratch(tmp_path / "scratch", smallest_bytes=4_096)


def test_a_large_table_lies_in_a_file_without_a_name(scratch: Scratch, tmp_path: Path) -> None:
    """The directory is made for it and looks empty: nothing is left behind by a kill."""
    table = scratch.zeros((512, 2), np.float64)

    assert table.shape == (512, 2)
    assert not table.any()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert open_files(tmp_path) == 1


def test_a_small_table_makes_no_file(scratch: Scratch, tmp_path: Path) -> None:
    """Nor a directory, wherever that would be."""
    table = scratch.zeros((511, 1), np.float64)

    assert not table.any()
    assert list(tmp_path.iterdir()) == []


def test_a_table_grows_in_its_file_and_ends_in_zeros(scratch: Scratch, tmp_path: Path) -> None:
    """What was written before is there, through the old table too: nothing was copied."""
    table = scratch.zeros((512, 2), np.int64)
    table[:] = np.arange(1_024).reshape(512, 2)

    longer = scratch.resized(table, 2_000)

    assert longer.shape == (2_000, 2)
    assert longer[:512].tolist() == np.arange(1_024).reshape(512, 2).tolist()
    assert not longer[512:].any()
    longer[0, 0] = 7
    assert table[0, 0] == 7
    del table
    assert longer[511, 1] == 1_023
    assert open_files(tmp_path) == 1


def test_a_table_that_becomes_large_moves_into_a_file(scratch: Scratch, tmp_path: Path) -> None:
    """Only what is in use is taken along."""
    table = np.arange(100.0)

    larger = scratch.resized(table, 1_000, used=60)

    assert larger[:60].tolist() == list(range(60))
    assert not larger[60:].any()
    assert open_files(tmp_path) == 1
    assert resized(table, 120, used=60).tolist() == [*range(60), *[0.0] * 60]


def test_a_copy_is_of_its_own(scratch: Scratch) -> None:
    """Of a whole table or of its first rows, in a file or not."""
    table = scratch.zeros((1_000, 2), np.int64)
    table[:] = 3
    whole, few = scratch.copied(table), scratch.copied(table[:10])

    table[:] = 5

    assert whole.shape == (1_000, 2)
    assert (whole == 3).all()
    assert few.tolist() == [[3, 3]] * 10


def test_what_is_let_go_comes_back(scratch: Scratch) -> None:
    """From the page cache, or the disk; a table in memory is left alone."""
    table, small = scratch.zeros((4_096,), np.int64), np.arange(5)
    table[:] = np.arange(4_096)

    let_go(table)
    let_go(small)

    assert table.tolist() == list(range(4_096))
    assert small.tolist() == [0, 1, 2, 3, 4]


def test_files_are_closed_with_their_last_table(scratch: Scratch, tmp_path: Path) -> None:
    """The disk gets its room back."""
    table = scratch.zeros((4_096,), np.int64)
    table = scratch.resized(table, 9_000)
    assert open_files(tmp_path) == 1

    del table

    assert open_files(tmp_path) == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """In one line, as for snapshots."""
    (tmp_path / "scratch").write_text("in the way")

    with pytest.raises(UnavailableError, match=r"cannot keep tables in .*/scratch"):
        Scratch(tmp_path / "scratch", 1).zeros((10,), np.int64)


def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is asked for before the first store, which could only kill the process."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(UnavailableError, match=r"no room for a table of 8,000,000 bytes: No space left"):
        Scratch(tmp_path, 1).zeros((1_000_000,), np.int64)


def open_files(directory: Path) -> int:
    """Count this process's distinct files in a directory, the nameless ones among them."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()).startswith(str(directory)):
                found.add(link.stat().st_ino)
        except OSError:  # the descriptor of the listing itself
            continue
    return len(found)
