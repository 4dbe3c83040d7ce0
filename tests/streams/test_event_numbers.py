"""Names of events that were numbered before their partitions were parted anew."""

from __future__ import annotations

import numpy as np

from streams.event_numbers import named, resolved

SOURCES = np.array([30, 30, 31, 31], np.int32)


def test_an_alias_leads_back_to_number_and_source() -> None:
    """Rows of other events keep what they have, and so does the caller's array."""
    numbers = np.array([5, 6, 7, -1])
    numbers[[0, 2]] = named(numbers[[0]], 0)[0], named(numbers[[2]], 3)[0]

    found, sources = resolved(numbers, SOURCES, {0: 11, 3: 14})

    assert found.tolist() == [5, 6, 7, -1]
    assert sources.tolist() == [11, 30, 14, 31]
    assert SOURCES.tolist() == [30, 30, 31, 31]
    assert numbers[0] == 5 + (1 << 40)


def test_an_alias_that_nobody_knows_stays() -> None:
    """Whoever reads the row then finds nothing under it, rather than another event."""
    numbers = named(np.array([5, 6, 7, 8]), 1)

    found, sources = resolved(numbers, SOURCES, {0: 11})

    assert found.tolist() == numbers.tolist()
    assert sources.tolist() == SOURCES.tolist()
