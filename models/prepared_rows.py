"""Examples as a network reads them, prepared once for a whole training instead of once an epoch.

Letters of shapes: B rows, N numbers, C category columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.examples import Indexes, Matrix
from models.preparation import Preparation
from models.preparation_kernels import Categories, Numbers
from streams.scratch import Scratch, let_go

CHUNK_ROWS = 65_536  # prepared at a time

Targets = npt.NDArray[np.float32]


class PreparedRows(NamedTuple):
    """Rows with what a network should say of each, in the order of the examples."""

    numbers_BN: Numbers
    categories_BC: Categories
    target_B: Targets


def prepare_rows(
    X_BF: Matrix, rows: Indexes, target_B: npt.ArrayLike, preparation: Preparation, scratch: Scratch | None = None
) -> PreparedRows:
    """Prepare the examples at `rows`; a large result lies in a file of `scratch`.

    Args:
        X_BF: all examples. They may lie in a file; 65,536 rows are read at a time.
        rows: places of those that are wanted.
        target_B: for each of `rows` what the network should say: a class, or a number on the network's scale.
        preparation: fitted to the training examples.
        scratch: where a result lies, None: in memory.
    """
    scratch = scratch or Scratch()
    numbers_BN = scratch.zeros((len(rows), preparation.numbers), np.float32)
    categories_BC = scratch.zeros((len(rows), len(preparation.vocabularies)), np.int32)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        numbers_BN[part], categories_BC[part] = preparation.apply(np.ascontiguousarray(X_BF[rows[part]]))
        let_go(numbers_BN)
        let_go(categories_BC)
    return PreparedRows(numbers_BN, categories_BC, np.ascontiguousarray(target_B, np.float32))
