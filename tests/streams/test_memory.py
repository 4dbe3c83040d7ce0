"""Memory of tables and of the compiler."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from streams.deadlines import empty_deadlines
from streams.memory import SMALLEST_MAPPED_BYTES, release_libraries, resized, zeros
from tests import kernels

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("size", [10, SMALLEST_MAPPED_BYTES, 5 << 20])
def test_tables_begin_with_zeros_and_can_be_written(size: int) -> None:
    """Small or mapped, with ordinary or huge pages: the same to everyone who uses them."""
    table = zeros((size // 8, 2), np.int32)

    assert table.shape == (size // 8, 2)
    assert table.dtype == np.int32
    assert not table.any()
    table[-1, -1] = 7
    assert table.sum() == 7


def test_resizing_keeps_what_fits() -> None:
    """A longer table ends in zeros, a shorter one is cut."""
    table = np.arange(6, dtype=np.int64).reshape(3, 2)

    assert resized(table, 4).tolist() == [[0, 1], [2, 3], [4, 5], [0, 0]]
    assert resized(table, 1).tolist() == [[0, 1]]


def resident_bytes(library: str) -> int:
    """Resident memory of a library's pages."""
    total, is_it = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_it = library in line
        elif line.startswith("Rss:") and is_it:
            total += int(line.split()[1]) * 1024
    return total


@needs_linux
def test_the_compilers_memory_is_given_back_and_kernels_go_on() -> None:
    """After the release LLVM's code is no longer resident, and what was compiled still runs."""
    deadlines = empty_deadlines()
    kernels.push(deadlines, 5, 0, 1)
    before = resident_bytes("libllvmlite")

    released = release_libraries()

    after = resident_bytes("libllvmlite")
    assert released > 0
    assert before - after > 20 << 20
    assert kernels.push(deadlines, 4, 1, 2) == 1


def test_nothing_is_released_where_the_system_does_not_tell(tmp_path: Path) -> None:
    """Without /proc there is nothing to do."""
    assert release_libraries(tmp_path / "smaps") == 0
