"""What is printed of a training: its parts by time, and how good the model is on those it has not learned."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from models.training_job import Training
from models.version import Version
from serving.feature_report import size
from serving.table import duration, figure, grid, number, words

_PARTS = ("train", "validation", "test")


def show_training(version: Version, out: Console) -> None:
    """Print a training's parts and figures; nothing of a model that learned online."""
    training = version.training
    if training is None:
        return
    if training.split is not None:
        parts = grid("part", "events from", "to", "labels known by")
        for name in _PARTS:
            span = getattr(training.split, name)
            parts.add_row(name, *(_day(time_us) for time_us in (span.from_us, span.to_us, span.known_by_us)))
        out.print(parts)
    if training.test or training.validation:
        figures = grid("figure", ">validation", ">test")
        for name in training.test or training.validation:
            figures.add_row(
                words(name), figure(name, training.validation.get(name)), figure(name, training.test.get(name))
            )
        out.print(figures)
    for name, text in training_facts(training).items():
        out.print(Text(f"{name}: {text}"))


def training_facts(training: Training) -> dict[str, str]:
    """Give what is known of a training beside its figures, as text by name."""
    facts = {
        "trained from": f"{number(training.rows)} examples of {_day(training.from_us)} to {_day(training.to_us)}, "
        f"labels known by {_day(training.known_us)}",
        "trained for": training.reason,
        "trained in": f"{duration(training.seconds)} on {training.device}, {training.epochs} epochs, "
        f"{size(training.peak_bytes)} at most",
    }
    if training.curve:
        best = min(range(len(training.curve)), key=lambda epoch: training.curve[epoch][1])
        loss, validation = training.curve[best]
        facts["best epoch"] = f"{best + 1}: loss {loss:.4f}, validation {validation:.4f}"
    if training.settings:
        facts["found by search"] = ", ".join(f"{name} = {value}" for name, value in training.settings.items())
    if training.notes:
        facts["note"] = "; ".join(training.notes)
    return facts


def _day(time_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(time_us / 1e6))
