"""The top of a report: what happened and how good the champion was, in words and in a few large numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from models.scoring import figure_names
from models.version import Version
from serving import report_tables as tables
from serving.report_data import Archived
from serving.report_exploration import PSI_LARGE
from serving.report_tables import league
from serving.report_topics import Answers, Losses
from serving.report_words import compared, day, decimal, micros, minute, seconds, share, size
from serving.table import words
from streams.durations import DAY_US
from streams.pipeline import Pipeline

BASELINES = ("prior", "last")
SHARES = ("accuracy", "precision", "recall", "alert_rate")  # figures that are told in percent
BASELINE_WORDS = {"prior": "which knows no features", "last": "which repeats the last label"}


class Tile(NamedTuple):
    """One large number with its name and what stands below it."""

    name: str
    value: str
    below: str = ""


class Row(NamedTuple):
    """One row of the league: the candidate, whether it answers, and its cells."""

    candidate: str
    is_champion: bool
    cells: tuple[str, ...]


class Standing(NamedTuple):
    """How the champion stands: its loss over so many events, and beside a baseline on the same ones.

    `events` is 0 where all that is known are the figures that its version was published with.
    """

    loss: float
    events: int
    baseline: str = ""
    baseline_loss: float = math.nan
    shared_loss: float = math.nan  # the champion's on the events of the baseline


def loss_figure(pipeline: Pipeline) -> str:
    """Give the name of the figure that is the task's loss."""
    return figure_names(pipeline.task)[0]


def loss_name(pipeline: Pipeline) -> str:
    """Say what the task's loss is."""
    return words(loss_figure(pipeline))


def standing(pipeline: Pipeline, newest: Mapping[str, Version | None], losses: Mapping[str, Losses]) -> Standing:
    """Compare the champion with the best baseline there is; on events that both were judged on."""
    champion = pipeline.serve.champion
    baselines = [model.name for model in pipeline.models if model.kind in BASELINES and model.name != champion]
    if champion in losses:
        mine = losses[champion]
        pairs = {name: _shared(mine, losses[name]) for name in baselines if name in losses}
        known = {name: pair for name, pair in pairs.items() if math.isfinite(pair[1])}
        if not known:
            return Standing(mine.mean, mine.events)
        best = min(known, key=lambda name: known[name][1])
        return Standing(mine.mean, mine.events, best, known[best][1], known[best][0])
    figures = {name: _since_start(version, loss_figure(pipeline)) for name, version in newest.items()}
    told = {name: figures[name] for name in baselines if math.isfinite(figures.get(name, math.nan))}
    mine_loss = figures.get(champion, math.nan)
    if not told:
        return Standing(mine_loss, 0)
    best = min(told, key=lambda name: told[name])
    return Standing(mine_loss, 0, best, told[best], mine_loss)


def tiles(pipeline: Pipeline, archived: Archived, answers: Answers | None, found: Standing) -> list[Tile]:
    """Give the large numbers."""
    events, counted = archived.events, archived.counted
    made = [Tile("Events", f"{archived.settled:,}", f"{archived.settled / _days(archived):,.0f} a day")]
    if pipeline.labels.is_declared:
        made.append(Tile("With a label", share(counted["set"] / archived.settled), f"{counted['missing']:,} without"))
    label_N = events.label_N[np.isfinite(events.label_N)]
    if label_N.size and pipeline.task.is_yes_or_no:
        made.append(Tile("Labels that are yes", share(float(label_N.mean())), "of all labels"))
    elif label_N.size and not pipeline.task.classes:
        made.append(Tile("Mean label", f"{label_N.mean():.4g}", f"standard deviation {label_N.std():.3g}"))
    over = f"over {found.events:,} events" if found.events else "since its start"
    made.append(Tile(f"Champion's {loss_name(pipeline)}", decimal(found.loss), over))
    if found.baseline:
        change = found.shared_loss / found.baseline_loss - 1.0 if found.baseline_loss else math.nan
        sign = "+" if change > 0 else "\u2212" if change < 0 else ""
        made.append(Tile(f"Against {found.baseline}", f"{sign}{share(abs(change))}", "loss on the same events"))
    if answers is not None and np.isfinite(answers.latency_ms_M).any():
        middle, late = np.nanquantile(answers.latency_ms_M, [0.5, 0.99]).tolist()
        made.append(Tile("Time to answer", seconds(middle / 1e3), f"99 % within {seconds(late / 1e3)}"))
    return made


def paragraphs(
    pipeline: Pipeline,
    archived: Archived,
    newest: Mapping[str, Version | None],
    losses: Mapping[str, Losses],
    found: Standing,
) -> list[str]:
    """Say what there is to know first."""
    return [_data_words(pipeline, archived), _model_words(pipeline, newest, losses, found), _drift_words(archived)]


def league_rows(
    pipeline: Pipeline, newest: Mapping[str, Version | None], losses: Mapping[str, Losses]
) -> tuple[list[str], list[Row]]:
    """Give the league's header and rows, the best first."""
    table = league(newest, losses, loss_figure(pipeline))
    figures = [name for name in table.columns if name.startswith("figure ")]
    loss, has_losses = loss_name(pipeline), bool(losses)
    told = [words(one.removeprefix("figure ")) for one in figures]
    header = ["version", loss, "events", f"{loss}, last 10,000", *told, "predict", "learn", "memory"]
    rows = [
        Row(
            str(name),
            name == pipeline.serve.champion,
            (
                row.version,
                decimal(row.loss if has_losses else row.since_start),
                f"{row.events:,.0f}" if has_losses else "-",
                decimal(row.recent),
                *(_figure(one, row[one]) for one in figures),
                micros(row.predict_us),
                micros(row.learn_us),
                size(row.size_bytes),
            ),
        )
        for name, row in table.iterrows()
    ]
    return header, rows


def _figure(name: str, value: float) -> str:
    return share(value) if name.removeprefix("figure ") in SHARES else decimal(value)


def _data_words(pipeline: Pipeline, archived: Archived) -> str:
    events, counted, task = archived.events, archived.counted, pipeline.task
    first, last = int(events.time_us_N[0]), int(events.time_us_N[-1])
    when = f"from {day(first)} to {day(last)}" if last - first > DAY_US else f"from {minute(first)} to {minute(last)}"
    told = [
        f"The archive has {archived.settled:,} events {when} (UTC), {archived.settled / _days(archived):,.0f} a day."
    ]
    if pipeline.labels.is_declared:
        wait = seconds(pipeline.labels.wait_us / 1e6)
        late = f"; for the others none came within {wait}" if counted["missing"] else ""
        told.append(f"{share(counted['set'] / archived.settled)} got their label{late}.")
    label_N = events.label_N[np.isfinite(events.label_N)]
    if label_N.size and task.is_yes_or_no:
        told.append(f"{share(float(label_N.mean()))} of the labels are yes.")
    elif label_N.size and task.classes:
        counts = np.bincount(label_N.astype(np.int64), minlength=len(task.classes))
        told.append(
            f"The most frequent label is {task.classes[int(counts.argmax())]} ({share(counts.max() / counts.sum())})."
        )
    if np.isfinite(events.delay_us).any():
        middle, late = (np.nanquantile(events.delay_us, [0.5, 0.99]) / 1e6).tolist()
        told.append(f"Half of the labels came within {seconds(middle)} of their event, 99 % within {seconds(late)}.")
    return " ".join(told)


def _model_words(
    pipeline: Pipeline, newest: Mapping[str, Version | None], losses: Mapping[str, Losses], found: Standing
) -> str:
    champion, loss = pipeline.serve.champion, loss_name(pipeline)
    if not math.isfinite(found.loss):
        return f"Nothing is known yet of how good the champion, {champion}, is: it has neither losses nor a version."
    over = (
        f"over {found.events:,} events, each predicted before its label was known"
        if found.events
        else "since its start"
    )
    told = [f"The champion, {champion}, had a {loss} of {decimal(found.loss)} {over}."]
    if found.baseline:
        kind = next(model.kind for model in pipeline.models if model.name == found.baseline)
        beside = f"{decimal(found.shared_loss)} against {decimal(found.baseline_loss)}"
        how = compared(found.shared_loss, found.baseline_loss)
        told.append(f"That is {how} than {found.baseline}, {BASELINE_WORDS[kind]} ({beside} on the same events).")
    table = league(newest, losses, loss_figure(pipeline))
    best = str(table.index[0])
    if best == champion:
        told.append(f"Of {len(table)} candidates it has the lowest loss.")
    elif math.isfinite(float(table.judged.iloc[0])):
        told.append(
            f"The lowest loss of {len(table)} candidates is that of {best}: {decimal(float(table.judged.iloc[0]))}."
        )
    return " ".join(told)


def _drift_words(archived: Archived) -> str:
    index = tables.drift(archived.events)
    large = [str(name) for name, value in index.items() if value >= PSI_LARGE]
    if not len(index):
        return ""
    if not large:
        most = f"PSI at most {index.iloc[0]:.2f}"
        return f"No feature has changed much between the first and the last quarter of the events ({most})."
    told = ", ".join(large[:4]) + (f" and {len(large) - 4} more" if len(large) > 4 else "")
    verb = "has" if len(large) == 1 else "have"
    return f"{len(large)} of {len(index)} features {verb} changed a lot between the first and the last quarter: {told}."


def _shared(mine: Losses, other: Losses) -> tuple[float, float]:
    """Give the mean losses of both on the events that both were judged on."""
    _, at, other_at = np.intersect1d(mine.event_M, other.event_M, assume_unique=True, return_indices=True)
    if not at.size:
        return math.nan, math.nan
    return float(mine.loss_M[at].mean()), float(other.loss_M[other_at].mean())


def _since_start(version: Version | None, loss: str) -> float:
    value = version.figures.get(loss) if version else None
    return math.nan if value is None else value


def _days(archived: Archived) -> float:
    time_us = archived.events.time_us_N
    return max(1.0, float(time_us[-1] - time_us[0]) / DAY_US)
