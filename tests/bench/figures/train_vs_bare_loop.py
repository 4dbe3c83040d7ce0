"""Training a network on one core, in memory: rows a second of the trainer, and of a bare loop of torch on the same.

The bare loop is what a page of torch's documentation would write, with its fastest optimizer: order, rows, forward,
backward, cut, step. The trainer does the same, and looks at losses and clock, judges and keeps the best. First epochs,
in which memory is touched for the first time, are left out on both sides.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from models.course import Pace
from models.networks import Network, loss_of, make_network
from models.preparation import Sizes
from models.prepared_rows import PreparedRows
from models.tensors import Batches
from models.trainer import Hooks, Trainer
from models.training_job import Progress
from streams.pipeline import Model, Task
from tests.bench.figure import Figure, Ratio, middle
from tests.bench.kafka import BenchError
from tests.bench.workplace import FULL, Workplace

NUMBERS, CATEGORIES, BITS = 12, 4, 12
BATCH, JUDGED = 512, 512
REPEATS = 3  # one after the other, so that both see the same machine; the median counts
WITHIN = 0.02  # of the last epochs' losses: their orders differ

FIGURES = (Figure("train", "rows/s"), Figure("train_bare", "rows/s"))
RATIOS = (Ratio("train_vs_bare_loop", "train", "train_bare", bound=0.8),)

_MODEL = Model("m", "torch:mlp", {"hidden": [256, 128], "bits": BITS, "lr": 0.001})


def measure(workplace: Workplace) -> dict[str, float]:
    """Train with both in turn; that they learn the same is checked."""
    size, epochs = (100_000, 3) if workplace.size == FULL else (20_000, 2)
    rows, ours, bare = made_up_rows(size), [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a process that trains has it
    try:
        for _ in range(REPEATS):
            ours.append(trainer_speed(rows, epochs))
            bare.append(bare_speed(rows, epochs))
    finally:
        torch.set_num_threads(threads)
    if abs(ours[-1][1] - bare[-1][1]) > WITHIN:
        found = f"losses {ours[-1][1]:.4f}, {bare[-1][1]:.4f}"
        raise BenchError(f"the trainer and a bare loop do not learn the same: {found}")
    return {"train": middle([speed for speed, _ in ours]), "train_bare": middle([speed for speed, _ in bare])}


def made_up_rows(size: int) -> PreparedRows:
    """Give prepared rows whose labels follow from their numbers and first category."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(size, NUMBERS)).astype(np.float32)
    categories = rng.integers(0, 2**BITS, (size, CATEGORIES)).astype(np.int32)
    logit = numbers[:, 0] - numbers[:, 1] * numbers[:, 2] + (categories[:, 0] % 3 - 1)
    return PreparedRows(numbers, categories, (rng.random(size) < 1 / (1 + np.exp(-logit))).astype(np.float32))


def trainer_speed(rows: PreparedRows, epochs: int) -> tuple[float, float]:
    """Give the trainer's speed behind its first epoch, and the training loss of its last."""
    ends: dict[int, float] = {}

    def tell(progress: Progress) -> None:
        ends.setdefault(progress.epoch, time.perf_counter())

    judged = PreparedRows(rows.numbers_BN[:JUDGED], rows.categories_BC[:JUDGED], rows.target_B[:JUDGED])
    pace = Pace(batch=BATCH, epochs=epochs + 1, patience=epochs + 1, warmup=0.0)
    trainer = Trainer(
        _network(), lambda outputs, batch: loss_of(Task(), outputs, batch.target_B, None, batch.rows), pace,
        hooks=Hooks(tell),
    )  # fmt: skip
    trainer.train(Batches(rows, BATCH), Batches(judged, BATCH))
    return epochs * len(rows.target_B) / (ends[epochs + 1] - ends[1]), trainer.course.curve[-1][0]


def bare_speed(rows: PreparedRows, epochs: int) -> tuple[float, float]:
    """Give the same of a bare loop."""
    network, size = _network(), len(rows.target_B)
    numbers, categories, target = (torch.from_numpy(array) for array in rows)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=0.01, fused=True)
    entropy, began, total = nn.BCEWithLogitsLoss(), 0.0, 0.0
    steps = (epochs + 1) * -(-size // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs + 1):
        began, total = began if epoch > 1 else time.perf_counter(), 0.0
        for picked in torch.split(torch.randperm(size), BATCH):
            loss = entropy(network(numbers[picked], categories[picked])[:, 0], target[picked])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(picked)
    return epochs * size / (time.perf_counter() - began), total / size


def _network() -> Network:
    torch.manual_seed(0)
    return make_network(_MODEL, Sizes(NUMBERS, (2**BITS,) * CATEGORIES, BITS))
