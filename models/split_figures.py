"""What the parts of a split hold, in figures and as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from models.examples import Examples, Indexes, Vector
from models.time_split import Split
from streams.durations import rough_text
from streams.pipeline import Task

_NAMES = ("training", "validation", "test", "in gaps", "late labels")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PartFigures(NamedTuple):
    """What a part of a split holds, for people.

    Attributes:
        part: "training", "validation", "test"; "in gaps" or "late labels" for what was left out.
        examples: how many.
        labels: share of yes, share of each class, or mean of the numbers; NaN where there is none.
        first_us, last_us: event times of its first and last example, None: it has none.
    """

    part: str
    examples: int
    labels: tuple[float, ...]
    first_us: int | None
    last_us: int | None


def split_figures(
    split: Split, examples: Examples, indexes: Sequence[Indexes], task: Task | None = None
) -> list[PartFigures]:
    """Say what each part holds, and what was left out and why; `indexes` are as `split_by_time` gives them."""
    is_left = np.ones(len(examples.time_B), np.bool_)
    for part in indexes:
        is_left[part] = False
    time_B = examples.time_B
    is_in_gap = (time_B >= split.train.to_us) & (time_B < split.validation.from_us)
    is_in_gap |= (time_B >= split.validation.to_us) & (time_B < split.test.from_us)
    left = [np.flatnonzero(is_left & is_in_gap), np.flatnonzero(is_left & ~is_in_gap)]
    parts = zip(_NAMES, (*indexes, *left), strict=True)
    return [_part(name, examples, part, task or Task()) for name, part in parts]


def show_split(split: Split, figures: Sequence[PartFigures], task: Task | None = None) -> str:
    """Give a split's figures as a table in plain text."""
    what = {"regression": "mean label", "multiclass": "classes"}.get((task or Task()).kind, "yes")
    lines = [("part", "examples", what, "first event", "last event")]
    lines += [
        (one.part, f"{one.examples:,}", _labels_text(one, task or Task()), _date(one.first_us), _date(one.last_us))
        for one in figures
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        f"{line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  "
        + "  ".join(f"{text:<{width}}" for text, width in zip(line[2:], widths[2:], strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*rows, f"gap between parts: {rough_text(split.gap_us)}"])


def _part(name: str, examples: Examples, places: Indexes, task: Task) -> PartFigures:
    label_N, time_N = examples.y_B[places], examples.time_B[places]
    known_N = label_N[~np.isnan(label_N)]
    first_us, last_us = (int(time_N.min()), int(time_N.max())) if time_N.size else (None, None)
    return PartFigures(name, places.size, _labels(known_N, task), first_us, last_us)


def _labels(label_N: Vector, task: Task) -> tuple[float, ...]:
    if not label_N.size:
        return (math.nan,) * max(1, len(task.classes))
    if task.classes:
        return tuple((np.bincount(label_N.astype(np.int64), minlength=len(task.classes)) / label_N.size).tolist())
    return (float((label_N > 0.5).mean() if task.is_yes_or_no else label_N.mean()),)


def _labels_text(one: PartFigures, task: Task) -> str:
    if math.isnan(one.labels[0]):
        return "-"
    if task.classes:
        return ", ".join(f"{name} {share:.1%}" for name, share in zip(task.classes, one.labels, strict=True))
    return f"{one.labels[0]:.2%}" if task.is_yes_or_no else f"{one.labels[0]:.6g}"


def _date(time_us: int | None) -> str:
    return "-" if time_us is None else f"{_EPOCH + timedelta(microseconds=time_us):%Y-%m-%d %H:%M}"
