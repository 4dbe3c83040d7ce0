"""Where rows go from stage to stage: the partition of an entity.

It comes from the upper half of the entity's hash (inputs.py), for the tables of entities go by the lower one. A row
without the entity goes by its key, as in the log (PROTOCOL 16), and so does every row to the last stage.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streams.compiled import bare, inlined, straight
from streams.frames import MARK
from streams.hashing import UPPER_HALF, place_column, place_text
from streams.inputs import NO_KEY
from streams.layouts import Text
from streams.tables import Table

NOWHERE = -1

Int64s = npt.NDArray[np.int64]


def place_by_key(keys: Text, partitions: int) -> Int64s:
    """Give each row's partition by its key: the same as in the log."""
    return place_column(keys.offsets, keys.data, partitions)


def place_rows(rows: Table, name: str, partitions: int) -> Int64s:
    """Give each row's partition of the log by one of its texts, as `place_by_key` does; marks go nowhere."""
    places, texts = np.empty(rows.num_rows, np.int64), rows.text(name)
    _place_rows_kernel(rows.numbers("kind"), texts.offsets, texts.data, partitions, places)
    return places


def place_by_entity(hashes: Int64s, keys: Text, partitions: int) -> Int64s:
    """Give each row's partition by its entity, or by its key where it has none."""
    places = np.empty(hashes.size, np.int64)
    _place_kernel(hashes, keys, partitions, places)
    return places


def part(targets: Int64s, sequences: Int64s, sequence_B: Int64s) -> list[tuple[int, Int64s]]:
    """Number rows, gapless in each partition, and give the rows of each partition that has any, in order.

    Args:
        targets: [B] the partition of each row, or NOWHERE.
        sequences: [P] the next number of each partition; counted on.
        sequence_B: takes the rows' numbers.
    """
    order, ends = np.empty(targets.size, np.int64), np.zeros(sequences.size, np.int64)
    _part_kernel(targets, sequences, sequence_B, order, ends)
    cuts = pairwise([0, *ends.tolist()])
    return [(to, order[start:end]) for to, (start, end) in enumerate(cuts) if start < end]


@straight
@bare
def _place_rows_kernel(
    kind: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.int32],
    data: npt.NDArray[np.uint8],
    partitions: int,
    places: Int64s,
) -> None:
    for row in range(kind.size):
        places[row] = NOWHERE if kind[row] == MARK else place_text(data, offsets[row], offsets[row + 1], partitions)


@bare
def _place_kernel(hashes: Int64s, keys: Text, partitions: int, places: Int64s) -> None:
    for row in range(hashes.size):
        if hashes[row] == NO_KEY:
            places[row] = place_text(keys.data, keys.offsets[row], keys.offsets[row + 1], partitions)
        else:
            places[row] = _upper(hashes[row]) % partitions


@inlined
def _upper(entity: int) -> int:
    return (entity >> UPPER_HALF) & ((1 << UPPER_HALF) - 1)


@inlined
def begin_kernel(targets: Int64s, begins: Int64s) -> None:
    """Say where the rows of each target begin in an order by targets; `begins` is zero before."""
    for target in targets:
        if target != NOWHERE:
            begins[target] += 1
    start = 0
    for target in range(begins.size):
        start, begins[target] = start + begins[target], start


@bare
def _part_kernel(targets: Int64s, sequences: Int64s, sequence_B: Int64s, order: Int64s, ends: Int64s) -> None:
    begin_kernel(targets, ends)
    for row in range(targets.size):
        target = targets[row]
        if target != NOWHERE:
            sequence_B[row] = sequences[target]
            sequences[target] += 1
            order[ends[target]] = row
            ends[target] += 1
