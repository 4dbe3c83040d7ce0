"""The league of a report: what is known of each candidate, and how the champion stands beside a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.scoring import figure_names
from models.training_job import Figures
from models.version import Version
from serving.report_topics import Losses
from serving.report_words import decimal, micros, share, size
from serving.table import words
from streams.pipeline import Pipeline, Task

BASELINES = ("prior", "last")
SHOWN = (
    "brier", "accuracy", "auc", "macro_auc", "macro_f1", "calibration_error", "rmse", "r2", "pinball_10", "pinball_90",
    "coverage", "precision", "recall", "alert_rate", "silhouette", "clusters",
)  # fmt: skip
"""Figures of a league beside the loss, as far as a task has them."""
SHARES = ("accuracy", "coverage", "precision", "recall", "alert_rate")  # those that are told in percent


class Candidate(NamedTuple):
    """One candidate; NaN where nothing is known.

    `loss` is the mean over so many `events` of the period, `since_start` and `recent` are those of its newest version,
    whose other figures are `figures`.
    """

    name: str
    version: str
    loss: float
    events: int
    since_start: float
    recent: float
    figures: dict[str, float]
    predict_us: float
    learn_us: float
    size_bytes: float

    @property
    def judged(self) -> float:
        """Give what it is sorted by: its loss in the period, or else since its start."""
        return self.loss if self.events else self.since_start


class Row(NamedTuple):
    """One row of the league: the candidate, whether it answers, and its cells."""

    candidate: str
    is_champion: bool
    cells: tuple[str, ...]


class Standing(NamedTuple):
    """How the champion stands: its loss over so many events, and beside the best baseline on the events of both.

    `events` is 0 where all that is known are the figures that its version was published with.
    """

    loss: float
    events: int
    baseline: str = ""
    baseline_loss: float = math.nan
    shared_loss: float = math.nan  # the champion's on the same events

    @property
    def change(self) -> float:
        """Give how much larger the champion's loss is than the baseline's, as a share of that."""
        return self.shared_loss / self.baseline_loss - 1.0 if self.baseline_loss else math.nan


def league(task: Task, newest: Mapping[str, Version | None], losses: Mapping[str, Losses]) -> list[Candidate]:
    """Give the candidates, the best first, those of whom nothing is known last."""
    found = [_candidate(task, name, version, losses.get(name)) for name, version in newest.items()]
    return sorted(found, key=lambda one: (math.isnan(one.judged), one.judged))


def league_rows(pipeline: Pipeline, candidates: Sequence[Candidate]) -> tuple[list[str], list[Row]]:
    """Lay out the league: a header without the candidate, and rows."""
    figures = [name for name in SHOWN if any(name in one.figures for one in candidates)]
    loss, is_measured = loss_name(pipeline.task), any(one.events for one in candidates)
    header = ["version", loss, "events", f"{loss}, last 10,000", *map(words, figures), "predict", "learn", "memory"]
    rows = []
    for one in candidates:
        told = [_figure(name, one.figures.get(name, math.nan)) for name in figures]
        costs = micros(one.predict_us), micros(one.learn_us), size(one.size_bytes)
        events = f"{one.events:,}" if is_measured else "-"
        cells = one.version, decimal(one.judged), events, decimal(one.recent), *told, *costs
        rows.append(Row(one.name, one.name == pipeline.serve.champion, cells))
    return header, rows


def loss_name(task: Task) -> str:
    """Say what the task's loss is."""
    return words(figure_names(task)[0])


def standing(pipeline: Pipeline, candidates: Sequence[Candidate], losses: Mapping[str, Losses]) -> Standing:
    """Compare the champion with the best baseline there is, on events that both were judged on."""
    champion = next(one for one in candidates if one.name == pipeline.serve.champion)
    others = [model.name for model in pipeline.models if model.kind in BASELINES and model.name != champion.name]
    if champion.name in losses:
        pairs = {name: _shared(losses[champion.name], losses[name]) for name in others if name in losses}
    else:
        since_start = {one.name: one.since_start for one in candidates}
        pairs = {name: (champion.since_start, since_start[name]) for name in others}
    known = {name: pair for name, pair in pairs.items() if math.isfinite(pair[1])}
    if not known:
        return Standing(champion.judged, champion.events)
    best = min(known, key=lambda name: known[name][1])
    return Standing(champion.judged, champion.events, best, known[best][1], known[best][0])


def _candidate(task: Task, name: str, version: Version | None, measured: Losses | None) -> Candidate:
    loss = figure_names(task)[0]
    figures, recent = (version.figures, version.rolling) if version else ({}, {})
    costs = version.costs if version else None
    return Candidate(
        name,
        version.number if version else "none yet",
        measured.mean if measured else math.nan,
        measured.events if measured else 0,
        _known(figures, loss),
        _known(recent, loss),
        {figure: _known(figures, figure) for figure in SHOWN if figure in figures},
        _number(costs.predict_us if costs else None),
        _number(costs.learn_us if costs else None),
        _number((costs.size_bytes or None) if costs else None),
    )


def _known(figures: Figures, name: str) -> float:
    return _number(figures.get(name))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _figure(name: str, value: float) -> str:
    return share(value) if name in SHARES else decimal(value)


def _shared(mine: Losses, other: Losses) -> tuple[float, float]:
    """Give the mean losses of both on the events that both were judged on."""
    _, at, other_at = np.intersect1d(mine.event_M, other.event_M, assume_unique=True, return_indices=True)
    if not at.size:
        return math.nan, math.nan
    return float(mine.loss_M[at].mean()), float(other.loss_M[other_at].mean())
