"""Numbers of events: (source, number) names an event from the last stage on (PROTOCOL 19).

A source is the row's own, but for label rows of events that were numbered before the partitions were parted anew
(parting.py): the number of such an event has its source in it, in the bits that no count of events reaches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import inlined

NUMBER_BITS = 34  # 17,000 million events of a source; sources have 27 bits beside them in a record of the ledger
NUMBER_MASK = (1 << NUMBER_BITS) - 1


def named(numbers: npt.NDArray[np.int64], source: int) -> npt.NDArray[np.int64]:
    """Give numbers their source, if they have none."""
    return np.where(numbers > NUMBER_MASK, numbers, numbers | ((source + 1) << NUMBER_BITS))


@inlined
def source_kernel(number: int, source: int) -> int:
    """Give the source of an event whose label row has this number and source."""
    return (number >> NUMBER_BITS) - 1 if number > NUMBER_MASK else source


@inlined
def number_kernel(number: int) -> int:
    """Give an event's number within its source."""
    return number & NUMBER_MASK
