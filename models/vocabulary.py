"""The vocabulary of a category column: its most frequent codes."""

from __future__ import annotations

import numpy as np

from models.learner import MAX_CODE, Vector
from models.linear_kernels import Indexes

MOST_WAITING = 4_000_000  # codes that wait to be counted together: 64 MiB


class CodeCounts:
    """Counts the codes of a column, of which it may be given any number of values.

    Memory: 16 bytes for each different code, and up to 64 MiB besides.

    Example:
        >>> counts = CodeCounts()
        >>> counts.add(np.array([7.0, 5.0, 5.0, np.nan, -1.0]))
        >>> counts.most_frequent(10)
        array([5, 7])
    """

    def __init__(self) -> None:
        self._codes: list[Indexes] = []
        self._counts: list[Indexes] = []
        self._waiting = 0

    def add(self, code_B: Vector) -> None:
        """Count values; what is no exact code is passed over."""
        is_code = (code_B >= 0.0) & (code_B < MAX_CODE) & (code_B == np.floor(code_B))
        codes, counts = np.unique(code_B[is_code].astype(np.int64), return_counts=True)
        self._codes.append(codes)
        self._counts.append(counts.astype(np.int64))
        self._waiting += codes.size
        if self._waiting > MOST_WAITING:
            self._unite()

    def most_frequent(self, most: int) -> Indexes:
        """Give up to `most` codes, the most frequent first, of equals the smaller one."""
        self._unite()
        order = np.lexsort((self._codes[0], -self._counts[0]))[:most]
        return self._codes[0][order]

    def _unite(self) -> None:
        codes, place = np.unique(np.concatenate([np.empty(0, np.int64), *self._codes]), return_inverse=True)
        counts = np.zeros(codes.size, np.int64)
        np.add.at(counts, place, np.concatenate([np.empty(0, np.int64), *self._counts]))
        self._codes, self._counts, self._waiting = [codes], [counts], 0
