"""Gates: what a candidate must keep beside its loss to become champion, or to stay it.

A gate compares one measurement with one limit of `[select]`; what was not measured yet, or has no limit, is open.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from streams.selecting import Select

MIB = 2.0**20
SLOW_RECORDS = 20  # one after the other, for a champion to go: a percentile of the first steps is their slowest

GateName = Literal["health", "age", "publishing", "latency", "memory", "training"]
STALE: tuple[GateName, ...] = ("age", "publishing")  # what it answers is old
LASTING: tuple[GateName, ...] = ("health", *STALE)  # a champion must go on keeping these


class Known(msgspec.Struct):
    """What is known of one candidate.

    Attributes:
        lineage: of its model, -1 before its first record.
        time_us: event time of its newest block.
        owes_from_us: event time of the first block that others have given since, 0: it is as far as anybody.
        predict_p99_us, size_bytes: as its last record has them.
        unpublished_s: likewise, for how long it could publish no version: it is scored and its answers stay old.
        slow: how many records in a row have told of predictions that take longer than is allowed.
        training_s: of its last training, None: it was not trained in a batch.
        illness: why it is in quarantine, empty if it is not.
    """

    lineage: int = -1
    time_us: int = 0
    owes_from_us: int = 0
    predict_p99_us: float = 0.0
    size_bytes: int = 0
    training_s: float | None = None
    illness: str = ""
    slow: int = 0
    unpublished_s: float = 0.0

    def measured(self, predict_p99_us: float, settings: Select) -> None:
        """Take how long a prediction takes, from the next record."""
        limit_ms, self.predict_p99_us = settings.max_predict_ms, predict_p99_us
        self.slow = self.slow + 1 if limit_ms is not None and predict_p99_us / 1e3 > limit_ms else 0

    @property
    def is_slow(self) -> bool:
        """Say whether it was too slow for so long that it was no pause of the machine."""
        return self.slow >= SLOW_RECORDS

    def age_us(self, now_us: int) -> int:
        """Say how far it is behind. A pause of everybody is none: what counts is since when others have gone on."""
        return now_us - max(self.owes_from_us, self.time_us) if self.owes_from_us else 0


class Gate(NamedTuple):
    """A gate that is closed, with what was measured and what is allowed, in the unit of the name."""

    name: GateName
    value: float
    limit: float

    def __str__(self) -> str:
        """Say it in words."""
        return {
            "health": "it is in quarantine",
            "age": f"it is {self.value:.0f} s behind, {self.limit:.0f} allowed",
            "publishing": f"no version could be published for {self.value:.0f} s, {self.limit:.0f} allowed",
            "latency": f"a prediction takes {self.value:.3g} ms, {self.limit:.3g} allowed",
            "memory": f"its model has {self.value:.3g} MiB, {self.limit:.3g} allowed",
            "training": f"its training took {self.value:.0f} s, {self.limit:.0f} allowed",
        }[self.name]


def closed_gates(known: Known, now_us: int, settings: Select, *, is_reigning: bool = False) -> list[Gate]:
    """Give the gates that are closed; `now_us` is the event time of the newest block of anybody.

    The one who reigns may fail to publish for as long as it may be behind, for its last version answers; nobody becomes
    champion who fails to: where it is for want of a disk they all do, and one would follow the other.
    """
    max_age_s = settings.max_age_us / 1e6
    limits: list[tuple[GateName, float | None, float | None]] = [
        ("health", 1.0 if known.illness else 0.0, 0.0),
        ("age", known.age_us(now_us) / 1e6, max_age_s),
        ("publishing", known.unpublished_s, max_age_s if is_reigning else 0.0),
        ("latency", known.predict_p99_us / 1e3, settings.max_predict_ms),
        ("memory", known.size_bytes / MIB, settings.max_model_mib),
        ("training", known.training_s, settings.max_training_s),
    ]
    return [
        Gate(name, value, limit)
        for name, value, limit in limits
        if value is not None and limit is not None and value > limit
    ]
