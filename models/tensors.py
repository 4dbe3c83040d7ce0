"""Batches of tensors for training: shuffled, shared among processes, and on their way to the device while it computes.

A *global batch* is what one step learns. Which rows it has depends on the seed, the epoch and the number of rows alone;
each of the processes that train together takes its share of it, so together they see what one alone would.

Rows are shuffled freely where they are few. Rows that may not fit into memory lie in a file, where a row alone costs
the reading of a page: there blocks of neighbours are shuffled, and then the rows within some thousand blocks that lie
next to each other after that. An example has other company in each epoch, and a page is read once an epoch.

Letters of shapes: B rows, N numbers, C category columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.prepared_rows import PreparedRows

BLOCK_ROWS = 256  # of neighbours in a file: at 20 columns 20 KiB, which a disk reads as fast as one row
GROUP_BLOCKS = 4_096  # whose rows are shuffled together: a million rows, which fit into memory
SHUFFLED_BLOCKS_FROM_BYTES = 2 << 30

Order = npt.NDArray[np.integer[Any]]


class Batch(NamedTuple):
    """This process's share of a global batch of `rows` rows, on the device. The share may be empty."""

    numbers_BN: torch.Tensor  # float32
    categories_BC: torch.Tensor  # int32
    target_B: torch.Tensor  # float32
    rows: int


class Batches:
    """Gives the rows of a training in batches.

    Args:
        prepared: the rows.
        batch: rows of a global batch; the last one of an epoch has what is left.
        device: where the batches go. Towards a GPU they are copied while it computes.
        seed: of the order.
        rank: which of the processes this is, from 0.
        world: how many there are.

    Example:
        >>> rows = PreparedRows(np.ones((5, 1), np.float32), np.zeros((5, 0), np.int32), np.arange(5, dtype=np.float32))
        >>> batches = Batches(rows, batch=2)
        >>> [batch.target_B.tolist() for batch in batches.in_order()]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
        >>> sorted(row for batch in batches.epoch(0) for row in batch.target_B.tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """

    def __init__(
        self,
        prepared: PreparedRows,
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._tensors = tuple(torch.from_numpy(array) for array in prepared)
        self._size, self._batch, self._device = len(prepared.target_B), batch, torch.device(device)
        self._seed, self._rank, self._world = seed, rank, world
        is_large = sum(array.nbytes for array in prepared) >= SHUFFLED_BLOCKS_FROM_BYTES
        self._block_rows = BLOCK_ROWS if is_large else 1
        self.steps = -(-self._size // batch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Give an epoch's batches in its own order; one that was interrupted goes on at `first_step`."""
        order = shuffled(self._size, self._seed, epoch, self._block_rows)
        return self._batches(torch.from_numpy(order), first_step)

    def in_order(self) -> Iterator[Batch]:
        """Give the batches in the order of the rows, to judge a model."""
        return self._batches(None, 0)

    def _batches(self, order: torch.Tensor | None, first_step: int) -> Iterator[Batch]:
        for step in range(first_step, self.steps):
            start, stop = step * self._batch, min((step + 1) * self._batch, self._size)
            rows = stop - start
            mine = slice(start + self._rank * rows // self._world, start + (self._rank + 1) * rows // self._world)
            numbers, categories, target = (self._taken(tensor, order, mine) for tensor in self._tensors)
            yield Batch(numbers, categories, target, rows)

    def _taken(self, tensor: torch.Tensor, order: torch.Tensor | None, mine: slice) -> torch.Tensor:
        """Gather rows. Memory that a GPU copies from by itself is given back once it has, by torch's own allocator."""
        if self._device.type != "cuda":
            taken = tensor[mine] if order is None else tensor.index_select(0, order[mine])
            return taken if self._device.type == "cpu" else taken.to(self._device)
        shape = (mine.stop - mine.start, *tensor.shape[1:])
        pinned = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
        if order is None:
            pinned.copy_(tensor[mine])
        else:
            torch.index_select(tensor, 0, order[mine], out=pinned)
        return pinned.to(self._device, non_blocking=True)


def shuffled(size: int, seed: int, epoch: int, block_rows: int = 1) -> Order:
    """Give the order of rows in an epoch, a permutation that depends on nothing else; 4 bytes a row.

    >>> shuffled(5, seed=1, epoch=0).tolist() == shuffled(5, seed=1, epoch=0).tolist()
    True
    """
    rng = np.random.default_rng([seed, epoch])
    kind = np.int32 if size < 2**31 else np.int64
    if block_rows == 1:
        order: Order = np.arange(size, dtype=kind)
        rng.shuffle(order)
        return order
    starts = rng.permutation(-(-size // block_rows)) * block_rows
    order, end = np.empty(size, dtype=kind), 0
    for first in range(0, starts.size, GROUP_BLOCKS):
        group = (starts[first : first + GROUP_BLOCKS, None] + np.arange(block_rows)).ravel()
        group = group[group < size]  # the last block of all is shorter
        order[end : end + group.size] = rng.permutation(group)
        end += group.size
    return order
