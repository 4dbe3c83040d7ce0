"""Kernels that are called without numba's look at their arguments."""

from __future__ import annotations

import subprocess
import sys

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
