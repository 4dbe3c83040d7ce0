"""Numbers of events: (source, number) names an event from the last stage on (PROTOCOL 19).

A source is the row's own, but for label rows of events that were numbered before the partitions were parted anew
(parting.py). What numbered them has an *alias* since, 0, 1, 2 and so on, and the number of such an event has it in the
bits that no count of events reaches. Where sources are told apart, an alias is -1 - alias, which no claim has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

NUMBER_BITS = 40  # a million million events of a source; 21 bits are left beside them in a record of the ledger
NUMBER_MASK = (1 << NUMBER_BITS) - 1
MANY = 1_000_000_000_000  # of a partition's events generation * MANY + number is the name, in the order of answers


def named(numbers: npt.NDArray[np.int64], alias: int) -> npt.NDArray[np.int64]:
    """Give numbers the alias of their source, if they have none yet."""
    return np.where(numbers > NUMBER_MASK, numbers, numbers | ((alias + 1) << NUMBER_BITS))


def resolved(
    numbers: npt.NDArray[np.int64], sources: npt.NDArray[np.int32], aliases: Mapping[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Give numbers and sources of events as they were when they were numbered, as far as their alias is known."""
    if not aliases or not (is_before := numbers > NUMBER_MASK).any():
        return numbers, sources
    numbers, sources = numbers.copy(), sources.copy()
    for alias in np.unique(numbers[is_before] >> NUMBER_BITS).tolist():
        if alias - 1 in aliases:
            mine = numbers >> NUMBER_BITS == alias
            numbers[mine] &= NUMBER_MASK
            sources[mine] = aliases[alias - 1]
    return numbers, sources


@inlined
def source_kernel(number: int, source: int) -> int:
    """Give the source of an event whose label row has this number and source."""
    return -(number >> NUMBER_BITS) if number > NUMBER_MASK else source


@inlined
def number_kernel(number: int) -> int:
    """Give an event's number within its source."""
    return number & NUMBER_MASK
