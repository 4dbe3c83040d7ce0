"""Kernels that are called without numba's look at their arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streams import message_kernels
from streams.compiled import bare
from tests.checked_kernels import checked


@bare
def total(values: npt.NDArray[np.int64], factor: int) -> int:
    """Sum and multiply."""
    found = 0
    for value in values:
        found += value
    return found * factor


@bare
def ends(values: npt.NDArray[np.int64], table: npt.NDArray[np.int64], at: int) -> int:
    """Read what lies at a computed place of an array and of a table, and at the end that is written out."""
    found: int = values[at] + table[at, at + 1] + 1_000 * values[-1]
    return found


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


PLACES = """
import numpy as np
from tests.streams.test_compiled import ends
values, table = np.arange(8), np.arange(6).reshape(2, 3)
print(ends(values, table, 1))
for at in (-1, -2, 2):
    try:
        ends(values, table, at)
    except IndexError as error:
        print(error)
"""


def test_a_computed_place_never_counts_from_the_end(tmp_path: Path) -> None:
    """What would be read before an array is an error where numba looks at places, not another item."""
    looking = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PLACES], capture_output=True, text=True, check=True, env=looking)
    assert done.stdout == "7006\n" + 3 * "index is out of bounds\n"
