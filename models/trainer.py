"""The loop that trains a network: AdamW, a warm-up, a cosine, and the weights of the best epoch.

Shapes: B examples of this process's share of a step, N numbers, C categories, O outputs.

    each epoch:  the examples in an order of its own, in steps of `batch` over all processes
        each step:  forward → loss of each example → backward → gradients of all processes → cut → AdamW
    then the loss on the validation examples: the best so far is kept, without a better one for some epochs it stops

It keeps: a step's gradient is the sum over the examples of all processes, divided by their number, so that as many
processes as one likes take the same steps; the loss and the order do not depend on when a process was killed.

Sources: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; the loop's form is nanoGPT's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.checkpoints import Checkpoint, Checkpoints
from models.course import Course, Pace
from models.devices import half, seed_dropout, shared
from models.learner import State
from models.tensors import Batch, Batches
from models.training_job import Progress
from streams.errors import ModelError, TrainingError
from streams.faults import fail_point

TOLD_EVERY_S = 0.3  # of progress
CHECKPOINT_EVERY_S = 30.0  # what a crash costs at most, but for the time that a checkpoint takes
CHECKPOINT_SHARE = 20.0  # an epoch's end has one if the last took at most a 20th of the time since
ASKED_EVERY = 10  # steps, after which processes agree on the time, and look whether all numbers are finite
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps for each parameter

Weights = dict[str, Tensor]


LossOf = Callable[[Tensor, Batch], Tensor]
"""Gives the loss of a share from the network's outputs: the sum over its examples, divided by those of all shares."""


class Hooks(NamedTuple):
    """What a training tells, keeps and asks.

    Attributes:
        tell: is given the progress a few times a second.
        checkpoints: None keeps none.
        clock: wall clock in seconds.
    """

    tell: Callable[[Progress], None] = lambda _: None
    checkpoints: Checkpoints | None = None
    clock: Callable[[], float] = time.monotonic


class Trainer:
    """Trains one network.

    Args:
        network: untrained, or with the weights it shall begin with; on the device it is to be trained on.
        loss_of: the loss of a share.
        pace: what decides the steps.
        budget_s: seconds after which it stops at the best so far.
        hooks: what it tells, keeps and asks.

    Attributes:
        course: how far it is.

    Example:
        >>> trainer = Trainer(network, loss_of, Pace(epochs=5), budget_s=60.0)
        >>> trainer.train(training, validation)
        >>> trainer.course.stopped, len(trainer.course.curve)
        ('epochs', 5)
    """

    def __init__(
        self, network: nn.Module, loss_of: LossOf, pace: Pace, budget_s: float = math.inf, hooks: Hooks | None = None
    ) -> None:
        self.course = Course()
        self._network, self._loss_of, self._pace, self._budget_s = network, loss_of, pace, budget_s
        self._hooks = hooks or Hooks()
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.requires_grad and parameter.numel() > 0)  # processes wait for no table
        self._parameters = {name: one for name, one in network.named_parameters() if one.requires_grad}
        self._device = next(iter(self._parameters.values())).device
        self._processes = dist.get_world_size() if dist.is_initialized() else 1
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=pace.lr, weight_decay=pace.weight_decay, fused=True
        )
        self._shared = shared(network, self._device, self._processes)
        self._best: Weights = {}
        self._loss = torch.zeros((), dtype=torch.float64, device=self._device)  # of this epoch, this process's share
        self._norms = torch.zeros((), device=self._device)  # of gradients since they were looked at
        now = self._hooks.clock()
        self._began = self._told = self._kept = self._epoch_began = now
        self._cost_s, self._epoch_rows, self._steps = 0.0, 0, 0

    def train(self, training: Batches, validation: Batches) -> None:
        """Train until something stops it; then the network has the weights of its best epoch.

        Raises:
            TrainingError: a loss or a gradient is not finite.
        """
        self._steps = self._pace.epochs * training.steps
        while not self.course.stopped:
            is_over = self._train_epoch(training)
            self._end_epoch(validation, is_time_over=is_over)
        self._network.load_state_dict(self._best)

    def resume(self, found: Checkpoint) -> None:
        """Go on where a checkpoint was written.

        Raises:
            ModelError: when it is of another network.
        """
        self._network.load_state_dict(self._taken(found.state, "network", self._network.state_dict()))
        is_begun = found.course.best_epoch is not None
        self._best = self._taken(found.state, "best", self._network.state_dict()) if is_begun else {}
        for name, parameter in self._parameters.items():
            like = {"exp_avg": parameter, "exp_avg_sq": parameter, "step": torch.zeros(())}
            moments = {of: self._taken(found.state, of, {name: like[of]})[name] for of in _MOMENTS}
            self._optimizer.state[parameter] = moments
        self.course = found.course
        if self._rank == 0:
            self._loss.fill_(self.course.loss_sum)  # all shares are in it
        self._began = self._hooks.clock() - self.course.seconds

    def state(self) -> State:
        """Copy all weights and moments, by name; the course goes beside them."""
        named = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        named |= {f"best.{name}": value for name, value in self._best.items()}
        for name, parameter in self._parameters.items():
            named |= {f"{of}.{name}": self._optimizer.state[parameter][of] for of in _MOMENTS}
        return {name: value.detach().cpu().numpy().copy() for name, value in named.items()}

    def _train_epoch(self, training: Batches) -> bool:
        """Take the steps that are left of an epoch; gives whether the time is over."""
        self._shared.train()
        self._epoch_began, self._epoch_rows = self._hooks.clock(), 0
        for batch in training.epoch(self.course.epoch, self.course.step):
            self._take_step(batch, self.course.epoch * training.steps + self.course.step)
            self.course.step += 1
            self.course.rows += batch.rows
            self._epoch_rows += batch.rows
            fail_point("after_step")
            is_over = self._look_up(training.steps)
            if is_over:
                return True
        return self._agreed(is_over=self._seconds() >= self._budget_s, is_due=False)[0]

    def _take_step(self, batch: Batch, step: int) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._pace.rate(step, self._steps)
        seed_dropout(self._pace.seed, step, self._rank, self._device)
        batch, weight = _filled(batch)
        with half(self._device):
            outputs_BO = self._shared(batch.numbers_BN, batch.categories_BC)
        loss = self._loss_of(outputs_BO.float(), batch) * weight
        total: Any = loss * self._processes  # gradients are averaged over processes, and shall be the sum
        total.backward()
        self._norms += nn.utils.clip_grad_norm_(self._parameters.values(), self._pace.clip)
        self._loss += loss.detach() * batch.rows
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _look_up(self, steps: int) -> bool:
        """Between two steps: look at the numbers and the clock; gives whether the time is over."""
        if self._processes > 1 and self.course.step % ASKED_EVERY:
            return False
        if self.course.step % ASKED_EVERY == 0:
            self._check()
        now = self._hooks.clock()
        if now - self._told >= TOLD_EVERY_S:
            self._tell(now)
        is_due = self._hooks.checkpoints is not None and now - self._kept >= CHECKPOINT_EVERY_S
        is_over, is_due = self._agreed(is_over=self._seconds() >= self._budget_s, is_due=is_due)
        if is_due and self.course.step < steps:
            self.course.loss_sum = self._summed(self._loss)
            self._loss.fill_(self.course.loss_sum if self._rank == 0 else 0.0)
            self._keep()
        return is_over

    def _end_epoch(self, validation: Batches, *, is_time_over: bool) -> None:
        self._check()
        self.course.loss_sum = self._summed(self._loss)
        self._loss.zero_()
        found = self._validate(validation)
        if self.course.end_epoch(found, self._pace, is_time_over=is_time_over):
            self._best = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        now = self._hooks.clock()
        self._tell(now)
        if self.course.stopped or now - self._kept >= CHECKPOINT_SHARE * self._cost_s:
            self._keep()

    @torch.no_grad()
    def _validate(self, validation: Batches) -> float:
        """Give the loss of the validation examples, on average."""
        self._network.eval()
        total, rows = torch.zeros((), dtype=torch.float64, device=self._device), 0
        for batch in validation.in_order():
            rows += batch.rows
            if not len(batch.target_B):
                continue
            with half(self._device):
                outputs_BO = self._network(batch.numbers_BN, batch.categories_BC)
            total += self._loss_of(outputs_BO.float(), batch) * batch.rows
        loss = self._summed(total) / max(1, rows)
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is not finite in epoch {self.course.epoch}: {loss}; lower lr")
        return loss

    def _check(self) -> None:
        """Refuse what is not finite: nothing can be learned any more."""
        norms, loss = float(self._norms), float(self._loss)
        self._norms.zero_()
        if not (math.isfinite(norms) and math.isfinite(loss)):
            at = f"epoch {self.course.epoch}, step {self.course.step}"
            raise TrainingError(f"the loss is not finite in {at}: loss {loss}, gradient {norms}; lower lr or clip")

    def _keep(self) -> None:
        """Write a checkpoint, one process for all."""
        began = self._hooks.clock()
        self.course.seconds = self._seconds()
        if self._hooks.checkpoints is not None and self._rank == 0:
            step = self.course.epoch * (self._steps // self._pace.epochs) + self.course.step
            self._hooks.checkpoints.write(step, self.state(), self.course)
            fail_point("after_checkpoint")
        self._kept = self._hooks.clock()
        self._cost_s = self._kept - began

    def _tell(self, now: float) -> None:
        course, self._told = self.course, now
        progress = Progress(
            course.epoch,
            course.epoch * (self._steps // self._pace.epochs) + course.step,
            self._steps,
            float(self._loss) * self._processes / course.rows if course.rows else course.curve[-1][0],
            course.curve[-1][1] if course.curve else None,
            self._epoch_rows / max(now - self._epoch_began, 1e-9),
            self._seconds(),
            course.best_epoch,
        )
        self._hooks.tell(progress)

    def _seconds(self) -> float:
        return self._hooks.clock() - self._began

    def _agreed(self, *, is_over: bool, is_due: bool) -> tuple[bool, bool]:
        """Give what the first process says: all must take the same steps."""
        if self._processes == 1:
            return is_over, is_due
        said = torch.tensor([is_over, is_due], dtype=torch.uint8, device=self._device)
        dist.broadcast(said, 0)
        return bool(said[0]), bool(said[1])

    def _summed(self, value: Tensor) -> float:
        """Give the sum over all processes."""
        if self._processes > 1:
            value = value.clone()
            dist.all_reduce(value)
        return float(value)

    def _taken(self, state: State, of: str, like: Weights) -> Weights:
        """Take arrays that fit; whatever else is there is another network's."""
        found = {}
        for name, one in like.items():
            array = state.get(f"{of}.{name}")
            if array is None or array.shape != tuple(one.shape):
                shape = "nothing" if array is None else f"shape {array.shape}"
                raise ModelError(f"a checkpoint is of another network: {shape} found for {of}.{name}")
            found[name] = torch.from_numpy(array.copy()).to(one.dtype).to(self._device)
        return found


def _filled(batch: Batch) -> tuple[Batch, float]:
    """Give a share with an example at least, and what its loss counts: others wait for a process that has none."""
    if len(batch.target_B):
        return batch, 1.0
    numbers, categories, target = (part.new_zeros(1, *part.shape[1:]) for part in batch[:3])
    return Batch(numbers, categories, target, batch.rows), 0.0
