"""What there is to say of answers beside the candidates: written by the stream that scores them, read by `models`.

It is a file of the state folder, as the standings are (standings.py), so that it can be read without Kafka.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from consumers.served import ServedTask
from models.staleness import Cost
from streams.served import SERVED
from streams.state_folder import Folder
from streams.told import tell, told

FILE = "served.json"


class StalenessFigure(msgspec.Struct, frozen=True):
    """How much more answers lost than the candidates that gave them, on average, over so many events."""

    events: int
    cost: float | None


class Given(msgspec.Struct, frozen=True):
    """How many answers a version has given."""

    model: str
    version: str
    answers: int


class ServedFigures(msgspec.Struct, frozen=True):
    """The row `served` of the league.

    Attributes:
        time_us: when it was written, wall clock.
        events: scored, whose label has come.
        figures: since the start, the task's loss first; what cannot be said yet is left out.
        rolling: over the last 10,000.
        unanswered: events without an answer.
        repeats: answers that did not count, for the event had one, or had passed.
        uncompared: blocks of answers that never had their pair.
        models: answers by who gave them.
        versions: the same by version, of those that answered last.
    """

    time_us: int
    events: int
    figures: Mapping[str, float]
    rolling: Mapping[str, float]
    staleness: StalenessFigure
    staleness_rolling: StalenessFigure
    answered: int
    unanswered: int
    repeats: int
    uncompared: int
    models: Mapping[str, int]
    versions: tuple[Given, ...]


def figures_of(task: ServedTask, now_us: int) -> ServedFigures:
    """Sum up. Costs about 2 ms."""
    cost, quality = task.shadowing.cost, task.scores.since_start()
    return ServedFigures(
        now_us,
        quality.labels,
        _known(quality._asdict()),
        _known(task.scores.rolling()._asdict()),
        _staleness(cost.since_start()),
        _staleness(cost.rolling()),
        task.answered,
        task.unanswered,
        task.repeats,
        task.shadowing.uncompared,
        dict(task.answers.given),
        tuple(Given(*version, count) for version, count in task.answers.versions.items()),
    )


def write_served(state: Folder, figures: ServedFigures) -> None:
    """Write them where others find them. Raises as `tell`."""
    tell(state / SERVED, FILE, figures)


def read_served(state: Folder) -> ServedFigures | None:
    """Read them, if there are any. Raises as `told`."""
    return told(state / SERVED, FILE, ServedFigures)


def _staleness(cost: Cost) -> StalenessFigure:
    return StalenessFigure(cost.events, cost.cost if math.isfinite(cost.cost) else None)


def _known(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if name != "labels" and math.isfinite(value)}
