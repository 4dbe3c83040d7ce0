"""Key rows: answers with their keys and feature vectors on the way to the online store, many in a few arrays.

Only the newest row of a key is of use there. Finding it is exact: keys are compared, not only their hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.compiled import bare
from streams.hashing import ENTITY_SEED, hash_text
from streams.memory import address_of
from streams.records import Packed
from streams.rendering import SLACK, write_bytes

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class KeyRows(NamedTuple):
    """B rows, in the order they were answered.

    A row without a key has an empty one and is not kept. `names` are generation * MANY + number (see answers.py). A key
    always lies in one partition, so that of two of its rows the one with the larger name is the newer.
    """

    keys: Packed
    answers: Packed
    names: Int64s
    times: Int64s  # of the events, us
    vectors_BF: npt.NDArray[np.float64]

    @property
    def size(self) -> int:
        """How many there are."""
        return self.names.size

    @property
    def size_bytes(self) -> int:
        """What they take in memory, about; a part counts for itself."""
        texts = sum(int(packed.offsets[-1] - packed.offsets[0]) for packed in (self.keys, self.answers))
        return texts + self.vectors_BF.nbytes + 32 * self.size

    def part(self, start: int, stop: int) -> KeyRows:
        """Give the rows from `start` to before `stop`, without a copy of what is in them."""
        ends = slice(start, stop + 1)
        return KeyRows(
            self.keys._replace(offsets=self.keys.offsets[ends]),
            self.answers._replace(offsets=self.answers.offsets[ends]),
            self.names[start:stop],
            self.times[start:stop],
            self.vectors_BF[start:stop],
        )


def newest(parts: Sequence[KeyRows]) -> KeyRows:
    """Copy the newest row of each key, in the order of the rows; about 0.3 us a row.

    Args:
        parts: at least one, the oldest first. Of rows with one name the later counts: it was answered once more.
    """
    rows = _joined(parts)
    table = np.full(1 << max(4, (2 * rows.size).bit_length()), -1, np.int64)
    newest_kernel(rows.keys.data, rows.keys.offsets, rows.names, table)
    index = np.sort(table[table >= 0])
    return KeyRows(
        _gathered(rows.keys, index),
        _gathered(rows.answers, index),
        rows.names[index],
        rows.times[index],
        rows.vectors_BF[index],
    )


def _joined(parts: Sequence[KeyRows]) -> KeyRows:
    return KeyRows(
        _joined_packed([part.keys for part in parts]),
        _joined_packed([part.answers for part in parts]),
        np.concatenate([part.names for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.vectors_BF for part in parts]),
    )


def _joined_packed(parts: Sequence[Packed]) -> Packed:
    """Join byte strings; those of a part may lie anywhere in its data."""
    sizes = np.diff(np.concatenate([part.offsets for part in parts]))
    ends = np.cumsum([part.offsets.size for part in parts])  # a difference across two parts is no size
    offsets = np.zeros(sizes.size - len(parts) + 2, np.int64)
    np.cumsum(np.delete(sizes, ends[:-1] - 1), out=offsets[1:])
    return Packed(np.concatenate([part.data[part.offsets[0] : part.offsets[-1]] for part in parts]), offsets)


def _gathered(packed: Packed, index: Int64s) -> Packed:
    offsets = np.zeros(index.size + 1, np.int64)
    np.cumsum(np.diff(packed.offsets)[index], out=offsets[1:])
    data = np.empty(int(offsets[-1]) + SLACK, np.uint8)
    gather_kernel(address_of(packed.data), packed.offsets, index, address_of(data))
    return Packed(data[: int(offsets[-1])], offsets)


@bare
def newest_kernel(data: Bytes, offsets: Int64s, names: Int64s, table: Int64s) -> None:
    """Put the newest row of each key into an open-addressed table of a power of two places, filled with -1."""
    mask = table.size - 1
    for i in range(names.size):
        start, size = offsets[i], offsets[i + 1] - offsets[i]
        if size == 0:
            continue
        place = np.int64(hash_text(data, start, start + size, np.uint64(ENTITY_SEED))) & mask
        while table[place] >= 0:
            other = offsets[table[place]]
            is_same = offsets[table[place] + 1] - other == size
            for byte in range(size):
                is_same = is_same and data[other + byte] == data[start + byte]
            if is_same:
                break
            place = (place + 1) & mask
        if table[place] < 0 or names[i] >= names[table[place]]:
            table[place] = i


@bare
def gather_kernel(data_at: int, offsets: Int64s, index: Int64s, at: int) -> None:
    """Copy byte strings behind one another."""
    for row in index:
        at = write_bytes(at, data_at + offsets[row], offsets[row + 1] - offsets[row])
