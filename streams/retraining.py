"""What a candidate's `retrain` and `[archive]` declare: when a model is trained anew, from what, and what is kept."""

from __future__ import annotations

from typing import Literal

import msgspec

Start = Literal["warm", "fresh"]  # what weights a training begins with
Then = Literal["freeze", "learn"]  # what a network does between two trainings


class Archive(msgspec.Struct, frozen=True):
    """Settled examples as Parquet, for training, export and reports; `keep_us` by event time, None: for good."""

    keep_us: int | None = None


class Retrain(msgspec.Struct, frozen=True):
    """When and how a candidate is trained from the archive.

    Attributes:
        every_us: once so much event time has passed since the last training began, None: not by time.
        examples: once so many examples with a label have come since then, None: not by number.
        on_drift: when a detector of drift asks for it.
        cooldown_us: of event time, in which nothing but a person's own command starts another training.
        window_us: how far back examples are taken, None: as far as the archive goes.
        budget_s: wall-clock seconds that one training may take; it stops at the best model so far.
        nproc: processes that share one training (torch.distributed).
        search: trials of a search for hyper-parameters within the budget, 0: none.
        start: "warm": with the weights of the version before, where they fit; "fresh": with new ones.
        then: "freeze", or "learn": the network learns on from every label until the next training.
    """

    every_us: int | None = None
    examples: int | None = None
    on_drift: bool = False
    cooldown_us: int = 0
    window_us: int | None = None
    budget_s: float = 600.0
    nproc: int = 1
    search: int = 0
    start: Start = "warm"
    then: Then = "freeze"
