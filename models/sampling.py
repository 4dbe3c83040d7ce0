"""A deterministic sample of events: `sample = 0.1` lets a candidate learn a tenth of them.

An event is in the sample by the hash of its id, so it is the same in every run, whatever partitions there are, and two
candidates with the same share learn the same events; a smaller sample is a part of a larger one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.hashing import hash_column
from streams.layouts import Text

_SEED = 0x5A3F1E  # its own, or the sample would lie in some partitions and not in others
_BITS = 53  # of the hash; a share is exact to 1e-16


def in_sample(ids: Text, share: float) -> npt.NDArray[np.bool_]:
    """Say for each id whether its event belongs to a sample of this share, from 0 to 1.

    >>> ids = Text(np.array([0, 1, 2, 3], np.int32), np.frombuffer(b"abc", np.uint8), np.empty(0, np.uint8))
    >>> in_sample(ids, 1.0).tolist()
    [True, True, True]
    """
    hashes = hash_column(ids.offsets, ids.data, _SEED)
    return (hashes >> np.uint64(64 - _BITS)) < np.uint64(round(share * 2.0**_BITS))
