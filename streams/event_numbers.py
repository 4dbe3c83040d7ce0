"""Numbers of events: (source, number) names an event from the last stage on (PROTOCOL 19).

A source is the row's own, but for label rows of events that were numbered before the partitions were parted anew
(parting.py). What numbered them has an *alias* since, 0, 1, 2 and so on, and the number of such an event has it in the
bits that no count of events reaches. Where sources are told apart, an alias is -1 - alias, which no claim has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

NUMBER_BITS = 40  # a million million events of a source; 21 bits are left beside them in a record of the ledger
NUMBER_MASK = (1 << NUMBER_BITS) - 1


def named(numbers: npt.NDArray[np.int64], alias: int) -> npt.NDArray[np.int64]:
    """Give numbers the alias of their source, if they have none yet."""
    return np.where(numbers > NUMBER_MASK, numbers, numbers | ((alias + 1) << NUMBER_BITS))


@inlined
def source_kernel(number: int, source: int) -> int:
    """Give the source of an event whose label row has this number and source."""
    return -(number >> NUMBER_BITS) if number > NUMBER_MASK else source


@inlined
def number_kernel(number: int) -> int:
    """Give an event's number within its source."""
    return number & NUMBER_MASK
