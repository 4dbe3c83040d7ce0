"""Finding served rows by what they say of their event, for a log that was cut.

Numbers count from the first row of the log; once retention has cut it they cannot be counted again. An event is then
found by id, key, time and the timestamp of its raw record, as one 64-bit hash: 16 bytes for each served row.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from serving.replica import Naming
from streams.frames import EVENT
from streams.hashing import ENTITY_SEED, hash_column
from streams.tables import Table

_MIX = (np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))
_HALF = np.uint64(32)

Int64s = npt.NDArray[np.int64]


class Names:
    """The numbers of written events by source and name. Of two events of one name in a source the first counts.

    Args:
        served: what is written in a partition.
        counted_by: the column that numbers them.
    """

    def __init__(self, served: Iterable[Table], counted_by: str) -> None:
        parts: dict[int, list[tuple[npt.NDArray[np.uint64], Int64s]]] = {}
        for rows in served:
            name_B, number_B = names(rows), rows.numbers(counted_by)
            is_event, source_B = rows.numbers("kind") == EVENT, rows.numbers("source")
            for source in np.unique(source_B[is_event]).tolist():
                mine = is_event & (source_B == source)
                parts.setdefault(source, []).append((name_B[mine], number_B[mine]))
        self._known = {source: _sorted(found) for source, found in parts.items()}

    def of(self, source: int) -> Naming:
        """Give the naming of one source: the numbers of its rows, -1 for a row that was not served."""
        name_N, number_N = self._known[source]

        def naming(rows: Table) -> Int64s:
            name_B = names(rows)
            place_B = np.minimum(np.searchsorted(name_N, name_B), name_N.size - 1)
            return np.where(name_N[place_B] == name_B, number_N[place_B], -1)

        return naming


def names(rows: Table) -> npt.NDArray[np.uint64]:
    """Hash id, key, time and `produced` of each row."""
    name_B = _mixed(_text(rows, "id") + _MIX[0] * _text(rows, "key"))
    for column in ("time", "produced"):
        name_B = _mixed(name_B + _MIX[2] * rows.numbers(column).astype(np.uint64))
    return name_B


def _text(rows: Table, name: str) -> npt.NDArray[np.uint64]:
    text = rows.text(name)
    return hash_column(text.offsets, text.data, ENTITY_SEED)


def _mixed(name_B: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (name_B ^ (name_B >> _HALF)) * _MIX[1]


def _sorted(found: list[tuple[npt.NDArray[np.uint64], Int64s]]) -> tuple[npt.NDArray[np.uint64], Int64s]:
    name_N = np.concatenate([name for name, _ in found])
    number_N = np.concatenate([number for _, number in found])
    kept, first = np.unique(name_N, return_index=True)
    return kept, number_N[first]
