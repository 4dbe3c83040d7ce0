"""Splitting traffic: which keys are answered by another candidate than the champion.

It goes by a hash of the key, so that a key is on one side for good, in every process and after every restart; not by
the hash of its partition, or whole partitions would be. Where there is no key, it goes by the event's id.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.hashing import hash_column
from streams.layouts import Text

SPLIT_SEED = 3  # of no other hash (streams/hashing.py)
_SPAN = 2.0**64


def in_split(keys: Text, ids: Text, share: float) -> npt.NDArray[np.bool_]:
    """Say for each row whether another candidate answers it; about 10 ns a row.

    Args:
        keys: of the rows.
        ids: of the rows.
        share: of the keys, from 0 to 1; a larger share takes more keys and lets none go.
    """
    hash_B = hash_column(keys.offsets, keys.data, SPLIT_SEED)
    is_bare_B = np.diff(keys.offsets) == 0
    if is_bare_B.any():
        hash_B = np.where(is_bare_B, hash_column(ids.offsets, ids.data, SPLIT_SEED), hash_B)
    return hash_B.astype(np.float64) < share * _SPAN
