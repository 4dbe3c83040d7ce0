"""Settlements: which events have a row in the archive that settles them, so that each is counted once.

An archive that had to begin anew, because its snapshot was gone, has some events twice, under other row numbers. The
first row is the one that counts, for everyone who reads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streams.frames import OUTCOME_NAMES

SETTLING, CORRECTING = pa.array(OUTCOME_NAMES[:2]), pa.array(OUTCOME_NAMES[2:])

Bools = npt.NDArray[np.bool_]


class Settlements:
    """The events that were settled by rows seen so far; a byte for each, up to the largest number of its source.

    Example:
        >>> names = {"source": [1, 1, 2, 1], "number": [5, 5, 5, 5], "outcome": ["set", "set", "missing", "amended"]}
        >>> Settlements().once(pa.table(names)).column("outcome").to_pylist()
        ['set', 'missing', 'amended']
    """

    def __init__(self) -> None:
        self._settled: dict[int, Bools] = {}

    def once(self, rows: pa.Table) -> pa.Table:
        """Leave out rows that settle an event which is settled already; those that correct a label stay.

        Args:
            rows: of the archive, in its order, behind those of the call before.
        """
        outcome = rows.column("outcome").cast(pa.string())
        settling = np.flatnonzero(pc.is_in(outcome, SETTLING).to_numpy())
        sources, numbers = (rows.column(name).to_numpy()[settling] for name in ("source", "number"))
        is_kept_B = np.ones(rows.num_rows, np.bool_)
        is_kept_B[settling] = False
        for source in np.unique(sources).tolist():
            mine = np.flatnonzero(sources == source)
            number_M, first_M = np.unique(numbers[mine], return_index=True)
            known = self._known(source, int(number_M[-1]) + 1)
            is_kept_B[settling[mine[first_M]]] = ~known[number_M]
            known[number_M] = True
        return rows if is_kept_B.all() else rows.filter(pa.array(is_kept_B))

    def _known(self, source: int, size: int) -> Bools:
        """Give what is known of a source's events, with room for so many."""
        known = self._settled.get(source, np.zeros(0, np.bool_))
        if size > known.size:
            known = np.concatenate([known, np.zeros(max(size, 2 * known.size) - known.size, np.bool_)])
            self._settled[source] = known
        return known
