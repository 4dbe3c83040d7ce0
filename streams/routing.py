"""Where rows go from stage to stage: the partition of an entity.

It comes from the upper half of the entity's hash (inputs.py), for the tables of entities go by the lower one. A row
without the entity goes by its key, as in the log (PROTOCOL 16), and so does every row to the last stage.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined
from streams.hashing import UPPER_HALF, place_column
from streams.inputs import NO_KEY
from streams.layouts import Text

Int64s = npt.NDArray[np.int64]


def place_by_key(keys: Text, partitions: int) -> Int64s:
    """Give each row's partition by its key: the same as in the log."""
    return place_column(keys.offsets, keys.data, partitions)


def place_by_entity(hashes: Int64s, keys: Text, partitions: int) -> Int64s:
    """Give each row's partition by its entity, or by its key where it has none."""
    places = place_by_key(keys, partitions)
    _place_kernel(hashes, partitions, places)
    return places


@bare
def _place_kernel(hashes: Int64s, partitions: int, places: Int64s) -> None:
    for row in range(hashes.size):
        if hashes[row] != NO_KEY:
            places[row] = _upper(hashes[row]) % partitions


@inlined
def _upper(entity: int) -> int:
    return (entity >> UPPER_HALF) & ((1 << UPPER_HALF) - 1)
