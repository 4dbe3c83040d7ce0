"""A training that takes a moment: examples drawn from a known rule, a small network, and batches that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoints import Checkpoints
from models.course import Pace
from models.trainer import Batch, Hooks, Trainer

PACE = Pace(lr=0.02, batch=64, epochs=4, patience=4, warmup=0.1, seed=3)
VALUES = 11  # of the category


class Net(nn.Module):
    """One hidden layer over 3 numbers and the sum of two categories' rows."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(VALUES, 8)
        self.first = nn.Linear(3, 8)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(8, 1)

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        hidden = torch.relu(self.first(numbers_BN) + self.table(categories_BC).sum(dim=1))
        scores: Tensor = self.last(self.dropout(hidden))
        return scores


class Rows:
    """Examples in memory; each epoch has an order of its own, and each process every n-th row of a step."""

    def __init__(self, size: int, seed: int, batch: int = PACE.batch, rank: int = 0, processes: int = 1) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self.numbers = torch.randn(size, 3, generator=drawn)
        self.categories = torch.randint(0, VALUES, (size, 2), generator=drawn, dtype=torch.int32)
        logit = self.numbers @ torch.tensor([1.0, -2.0, 0.5]) + (self.categories[:, 0] % 3 - 1)
        self.y = (torch.rand(size, generator=drawn) < torch.sigmoid(logit)).double()
        self._batch, self._rank, self._processes = batch, rank, processes

    @property
    def steps(self) -> int:
        return -(-len(self.y) // self._batch)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(100 + epoch))
        for step in range(first, self.steps):
            picked = order[step * self._batch : (step + 1) * self._batch]
            yield self._of(picked)

    def in_order(self) -> Iterator[Batch]:
        yield self._of(torch.arange(len(self.y)))

    def _of(self, picked: Tensor) -> Batch:
        own = picked[self._rank :: self._processes]
        return Batch(self.numbers[own], self.categories[own], self.y[own], len(picked))


def loss_of(outputs_BO: Tensor, batch: Batch) -> Tensor:
    total = nn.functional.binary_cross_entropy_with_logits(outputs_BO[:, 0], batch.y_B.float(), reduction="sum")
    return total / batch.rows


def new_net(dropout: float = 0.0) -> Net:
    torch.manual_seed(1)
    return Net(dropout)


def new_trainer(
    directory: Path | None = None, pace: Pace = PACE, dropout: float = 0.0, hooks: Hooks | None = None
) -> Trainer:
    hooks = hooks or Hooks()
    if directory is not None:
        hooks = hooks._replace(checkpoints=Checkpoints(directory, "tiny"))
    return Trainer(new_net(dropout), loss_of, pace, hooks=hooks)


torch.set_num_threads(1)  # of so few rows: more of them wait for each other
TRAINING, VALIDATION = Rows(600, 5), Rows(200, 6)  # 9 steps of 64, and one of 24
