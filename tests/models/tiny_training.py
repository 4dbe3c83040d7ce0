"""A training that takes a moment: examples drawn from a known rule, and a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints import Checkpoints
from models.course import Pace
from models.prepared_rows import PreparedRows
from models.tensors import Batch, Batches
from models.trainer import Hooks, Trainer

PACE = Pace(lr=0.02, batch=64, epochs=4, patience=4, warmup=0.1, seed=3)
VALUES = 11  # of a category
EFFECTS = np.array([1.0, -2.0, 0.5], np.float32)


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


def rows_of(size: int, seed: int) -> PreparedRows:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(size, 3)).astype(np.float32)
    categories = rng.integers(0, VALUES, (size, 2)).astype(np.int32)
    logit = numbers @ EFFECTS + (categories[:, 0] % 3 - 1)
    return PreparedRows(numbers, categories, (rng.random(size) < 1 / (1 + np.exp(-logit))).astype(np.float32))


def batches_of(rows: PreparedRows) -> Batches:
    return Batches(rows, PACE.batch, seed=PACE.seed)


def loss_of(outputs_BO: Tensor, batch: Batch) -> Tensor:
    total = nn.functional.binary_cross_entropy_with_logits(outputs_BO[:, 0], batch.target_B, reduction="sum")
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
TRAINING_ROWS, VALIDATION_ROWS = rows_of(600, 5), rows_of(200, 6)  # 9 steps of 64, and one of 24
TRAINING, VALIDATION = batches_of(TRAINING_ROWS), batches_of(VALIDATION_ROWS)
