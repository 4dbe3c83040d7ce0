"""Kernels: called without numba's look at their arguments, compiled without its provision for places from the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streams import message_kernels
from streams.compiled import bare, inlined, njit
from tests.checked_kernels import checked

Int64s = npt.NDArray[np.int64]


@bare
def total(values: Int64s, factor: int) -> int:
    """Sum and multiply."""
    found = 0
    for value in values:
        found += value
    return found * factor


@bare
def read(values: Int64s, at: int) -> int:
    return int(values[at])


@bare
def read_row(table: Int64s, at: int) -> int:
    return int(table[at, 0])


@bare
def read_column(table: Int64s, at: int) -> int:
    return int(table[0, at])


@bare
def write(values: Int64s, at: int) -> None:
    values[at] = 1


@bare
def write_column(table: Int64s, at: int) -> None:
    table[0, at] = 1


@njit
def read_and_allocate(values: Int64s, at: int) -> Int64s:
    return np.full(1, values[at])


@inlined
def part(values: Int64s, at: int) -> int:
    return int(values[at])


@bare
def read_inside(values: Int64s, at: int) -> int:
    return part(values, at)


@bare
def read_ends(values: Int64s, table: Int64s, at: int) -> int:
    return int(values[-1] + table[at, -1])


def test_tests_look_at_the_types_of_calls() -> None:
    called = checked(total)
    values = np.arange(8)
    assert [called(values, 2), called(values, 3)] == [56, 84]
    sealed = values.view()
    sealed.flags.writeable = False
    for other in (sealed, values[::2], values.astype(np.int32), values.astype(np.float64), values.reshape(2, 4)):
        with pytest.raises(AssertionError, match="total gets"):
            called(other, 1)


def test_the_kernels_of_the_inner_loop_are_looked_at() -> None:
    assert message_kernels.head_kernel.__qualname__.startswith("checked.")


def test_without_the_look_the_values_are_the_same() -> None:
    program = """
import numpy as np
from streams.compiled import straight
from tests.streams.test_compiled import total
called = straight(total)
print([called(np.arange(size), 2) for size in (8, 3, 0)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[56, 6, 0]\n"


LOOK_UPS = {
    "read": "values",
    "read_row": "table",
    "read_column": "table",
    "write": "values",
    "write_column": "table",
    "read_and_allocate": "values",
    "read_inside": "values",
}
LOOKING = """
import numpy as np
from tests.streams import test_compiled as kernels
values, table = np.arange(8), np.arange(6).reshape(2, 3)
for name, array in kernels.LOOK_UPS.items():
    kernel = getattr(kernels, name)
    kernel(locals()[array], 1)
    try:
        kernel(locals()[array], -1)
    except IndexError:
        print(name)
"""


def test_a_computed_place_never_counts_from_the_end(tmp_path: Path) -> None:
    """What would be read before an array is an error where numba looks at places, not another item."""
    looking = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LOOKING], capture_output=True, text=True, check=True, env=looking)
    assert done.stdout.split() == list(LOOK_UPS)


def test_a_place_that_is_written_out_counts_from_the_end() -> None:
    assert read_ends(np.arange(8), np.arange(6).reshape(2, 3), 1) == 7 + 5


def test_bounds_are_looked_at_although_kernels_are_kept(tmp_path: Path) -> None:
    """A kernel that was kept without the look is not taken for one with it, nor the other way round."""
    program = """
import numpy as np
from tests.streams.test_compiled import read
try:
    print(read(np.arange(8), 8) * 0)
except IndexError:
    print("IndexError")
"""
    said = []
    for look in ("0", "1", "0"):
        settings = os.environ | {"NUMBA_BOUNDSCHECK": look, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=settings)
        said.append(done.stdout.strip())
    assert said == ["0", "IndexError", "0"]
