"""How far a training has come: with the weights, and the seed, all that it needs to go on as if nothing had been.

Everything that is drawn is drawn anew from (seed, epoch, step, process), so no state of a random generator is part of
it; the learning rate follows from the step.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import msgspec

from models.learner import State, settings_of
from streams.pipeline import Model, Task

Stop = Literal["", "epochs", "patience", "budget"]


class Pace(msgspec.Struct, frozen=True):
    """What decides the steps of a training: the settings that every network has.

    Attributes:
        lr: the largest learning rate, reached after the warm-up.
        weight_decay: AdamW's, each step takes lr * weight_decay of every weight.
        batch: examples in a step, over all processes.
        epochs: passes over the training examples at most.
        patience: epochs without a better validation loss after which it stops.
        warmup: share of all steps in which the rate rises.
        clip: the longest gradient that is taken as it is.
        seed: of weights, order and dropout.
    """

    lr: float = 0.001
    weight_decay: float = 0.01
    batch: int = 512
    epochs: int = 20
    patience: int = 3
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """Give the learning rate of a step: it rises in a line, then falls to nothing along half a cosine.

        >>> pace = Pace(lr=1.0, warmup=0.5)
        >>> [round(pace.rate(step, 8), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Course(msgspec.Struct):
    """How far a training has come.

    Attributes:
        epoch: that is under way; step: of it, the next to be taken.
        loss_sum, rows: of this epoch so far, over all processes.
        curve: the training and the validation loss of each epoch that ended.
        best_epoch, best_loss: the one with the least validation loss, None before one has ended.
        seconds: of wall clock, over restarts.
        stopped: why it has ended, empty while it goes on.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    rows: int = 0
    curve: list[tuple[float, float]] = []
    best_epoch: int | None = None
    best_loss: float | None = None
    seconds: float = 0.0
    stopped: Stop = ""

    def end_epoch(self, validation_loss: float, pace: Pace, *, is_time_over: bool) -> bool:
        """Add an epoch to the curve and decide whether to go on; gives whether it is the best so far."""
        self.curve.append((self.loss_sum / max(1, self.rows), validation_loss))
        is_best = self.best_loss is None or validation_loss < self.best_loss
        if is_best:
            self.best_epoch, self.best_loss = self.epoch, validation_loss
        since_best = self.epoch - (self.best_epoch or 0)
        self.epoch, self.step, self.loss_sum, self.rows = self.epoch + 1, 0, 0.0, 0
        if self.epoch >= pace.epochs:
            self.stopped = "epochs"
        elif since_best >= pace.patience:
            self.stopped = "patience"
        elif is_time_over:
            self.stopped = "budget"
        return is_best


class Trained(NamedTuple):
    """A model's state, and how it came to be: the settings that a search has chosen, and what people should know."""

    state: State
    course: Course
    settings: dict[str, Any]
    notes: tuple[str, ...]


def pace_of(model: Model, task: Task, chosen: dict[str, Any], seed: int) -> Pace:
    """Give the pace that a model's settings say, or a search has chosen; `seed` is the job's, added to the model's."""
    settings = settings_of(model, task) | chosen
    known = {name: settings[name] for name in Pace.__struct_fields__ if name in settings}
    found = msgspec.convert(known, Pace, strict=False)
    return msgspec.structs.replace(found, seed=(found.seed + seed) % 2**31)
