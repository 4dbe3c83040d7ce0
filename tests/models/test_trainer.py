"""The loop of trainings takes the steps of a bare loop of torch, and goes on with them whatever kills it."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints import Checkpoints
from models.course import Pace
from models.learner import State
from models.tensors import Batch
from models.trainer import Hooks, Trainer
from models.training_job import Progress
from streams.errors import ModelError, TrainingError
from tests.models.tiny_training import (
    PACE,
    TRAINING,
    TRAINING_ROWS,
    VALIDATION,
    VALIDATION_ROWS,
    Net,
    batches_of,
    loss_of,
    new_net,
    new_trainer,
    rows_of,
)

DROPOUT = 0.3


class KilledError(Exception):
    """Stands for kill -9: nothing of the training goes on after it."""


def bare_loop(epochs: int) -> tuple[list[tuple[float, float]], Net]:
    """Train as a page of torch's documentation would."""
    net = new_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=PACE.lr, weight_decay=PACE.weight_decay)
    steps, rising = PACE.epochs * TRAINING.steps, math.ceil(PACE.warmup * PACE.epochs * TRAINING.steps)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rising, 1.0, rising - 1),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - rising),
        ],
        [rising],
    )
    entropy, curve = nn.BCEWithLogitsLoss(), []
    for epoch in range(epochs):
        total = 0.0
        for batch in TRAINING.epoch(epoch):
            optimizer.zero_grad()
            loss = entropy(net(batch.numbers_BN, batch.categories_BC)[:, 0], batch.target_B)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), PACE.clip)
            optimizer.step()
            schedule.step()
            total += loss.item() * batch.rows
        with torch.no_grad():
            numbers, categories, target = (torch.from_numpy(array) for array in VALIDATION_ROWS)
            found = entropy(net(numbers, categories)[:, 0], target)
        curve.append((total / len(TRAINING_ROWS.target_B), float(found)))
    return curve, net


def trained(directory: Path | None = None, dropout: float = 0.0) -> tuple[list[tuple[float, float]], State]:
    trainer = new_trainer(directory, dropout=dropout)
    trainer.train(TRAINING, VALIDATION)
    return trainer.course.curve, trainer.state()


def killer(at: int) -> Hooks:
    """Give a clock that raises when it is asked so many times; each second asks for a checkpoint by a minute."""
    asked = iter(range(10**9))

    def clock() -> float:
        now = next(asked)
        if now == at:
            raise KilledError
        return now * 60.0

    return Hooks(clock=clock)


def test_it_takes_the_steps_of_a_bare_loop() -> None:
    curve, net = bare_loop(PACE.epochs)

    trainer = new_trainer()
    trainer.train(TRAINING, VALIDATION)

    assert np.allclose(trainer.course.curve, curve, rtol=0, atol=1e-6)
    assert trainer.course.best_epoch == PACE.epochs - 1
    for name, value in net.state_dict().items():
        assert np.allclose(trainer.state()[f"network.{name}"], value, rtol=0, atol=2e-6), name


def test_the_same_seed_gives_the_same_bits_and_another_one_other_dropout() -> None:
    first, again = trained(dropout=DROPOUT), trained(dropout=DROPOUT)
    other = new_trainer(pace=msgspec.structs.replace(PACE, seed=4), dropout=DROPOUT)
    other.train(TRAINING, VALIDATION)

    assert first[0] == again[0]
    assert all(np.array_equal(first[1][name], again[1][name]) for name in first[1])
    assert other.course.curve != first[0]


@pytest.mark.parametrize("at", [3, 17, 30, 43, 60, 75, 101])
def test_a_training_killed_at_any_moment_goes_on_bit_for_bit(at: int, tmp_path: Path) -> None:
    killed = new_trainer(tmp_path, dropout=DROPOUT, hooks=killer(at))
    with pytest.raises(KilledError):
        killed.train(TRAINING, VALIDATION)
    again = new_trainer(tmp_path, dropout=DROPOUT)
    found = Checkpoints(tmp_path, "tiny").newest()
    if found is not None:
        again.resume(found)
    again.train(TRAINING, VALIDATION)
    curve, state = trained(dropout=DROPOUT)

    assert (found is None) == (at < 10)
    assert again.course.curve == curve
    assert all(np.array_equal(again.state()[name], state[name]) for name in state)


def test_a_training_that_was_over_is_not_trained_any_more(tmp_path: Path) -> None:
    curve, state = trained(tmp_path)

    again, found = new_trainer(), Checkpoints(tmp_path, "tiny").newest()
    assert found is not None
    again.resume(found)
    again.train(batches_of(rows_of(0, 1)), VALIDATION)

    assert again.course.curve == curve
    best = {name.removeprefix("best."): state[name] for name in state if name.startswith("best.")}
    assert all(np.array_equal(again.state()[f"network.{name}"], best[name]) for name in best)


def test_it_stops_without_a_better_validation_loss_and_keeps_the_best_weights() -> None:
    pace = msgspec.structs.replace(PACE, lr=0.5, epochs=50, patience=2)
    trainer = new_trainer(pace=pace)
    trainer.train(TRAINING, VALIDATION)
    course = trainer.course

    validation = [loss for _, loss in course.curve]
    assert course.stopped == "patience"
    assert course.best_epoch == int(np.argmin(validation)) == len(validation) - 3
    last = Trainer(trainer._network, loss_of, PACE)
    assert last._validate(VALIDATION) == min(validation)


def test_it_stops_in_its_epoch_when_the_time_is_over_and_counts_what_it_has() -> None:
    seconds = iter(range(1000))
    trainer = Trainer(new_net(), loss_of, PACE, 0.5, Hooks(clock=lambda: float(next(seconds))))
    trainer.train(TRAINING, VALIDATION)
    first = next(iter(TRAINING.epoch(0)))
    untrained = loss_of(new_net()(first.numbers_BN, first.categories_BC), first)

    assert trainer.course.stopped == "budget"
    assert (len(trainer.course.curve), trainer.course.best_epoch) == (1, 0)
    assert trainer.course.curve[0][0] == pytest.approx(untrained.item(), abs=1e-6)


def test_a_loss_that_is_not_finite_ends_it_with_the_place() -> None:
    broken = rows_of(600, 5)
    broken.numbers_BN[17, 0] = math.inf

    with pytest.raises(TrainingError, match=r"the loss is not finite in epoch 0, step (10|5)"):
        Trainer(new_net(), loss_of, PACE).train(batches_of(broken), VALIDATION)


def test_a_validation_loss_that_is_not_finite_ends_it() -> None:
    broken = rows_of(200, 6)
    broken.numbers_BN[17, 0] = math.nan

    with pytest.raises(TrainingError, match="the validation loss is not finite in epoch 0: nan"):
        Trainer(new_net(), loss_of, PACE).train(TRAINING, batches_of(broken))


def test_progress_tells_steps_losses_and_speed() -> None:
    told: list[Progress] = []
    trainer = Trainer(new_net(), loss_of, PACE, hooks=Hooks(told.append))
    trainer.train(TRAINING, VALIDATION)

    assert [one.epoch for one in told[-1:]] == [4]
    assert told[-1].step == told[-1].steps == 40
    assert (told[-1].loss, told[-1].validation_loss) == trainer.course.curve[-1]
    assert told[-1].rows_per_s > 0.0


def test_progress_is_told_at_most_a_few_times_a_second() -> None:
    told: list[Progress] = []
    seconds = iter(range(10**6))
    trainer = Trainer(new_net(), loss_of, PACE, hooks=Hooks(told.append, clock=lambda: next(seconds) / 100))
    trainer.train(TRAINING, VALIDATION)

    assert len(told) <= PACE.epochs + next(seconds) / 100 / 0.3


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    found = Checkpoints(tmp_path, "tiny").newest()
    wide = Net()
    wide.last = nn.Linear(8, 2)

    assert found is not None
    with pytest.raises(ModelError, match=r"of another network: shape \(1, 8\) found for network\.last\.weight"):
        Trainer(wide, loss_of, PACE).resume(found)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    pace = Pace(lr=0.1, warmup=0.25)
    rates = [pace.rate(step, 100) for step in range(100)]

    assert rates[:25] == pytest.approx([0.1 * (step + 1) / 25 for step in range(25)])
    assert rates[25:] == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 75)) for step in range(75)])


class Picky(Net):
    def forward(self, numbers_BN: torch.Tensor, categories_BC: torch.Tensor) -> torch.Tensor:
        assert len(numbers_BN) > 0
        return super().forward(numbers_BN, categories_BC)


def test_a_process_without_a_share_of_a_step_adds_nothing_to_it() -> None:
    net, pace = Picky(), msgspec.structs.replace(PACE, weight_decay=0.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trainer = Trainer(net, loss_of, pace)
    trainer._steps = 10
    empty = Batch(torch.zeros(0, 3), torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0), 1)
    trainer._take_step(empty, 0)

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert float(trainer._loss) == 0.0
