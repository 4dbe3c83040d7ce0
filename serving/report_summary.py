"""The top of a report: what happened and how good the champion was, in words and in a few large numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from serving import report_tables as tables
from serving.report_data import Archived, Floats
from serving.report_exploration import PSI_LARGE
from serving.report_league import Candidate, Standing, loss_name
from serving.report_topics import Answers
from serving.report_words import compared, day, decimal, minute, seconds, share
from streams.durations import DAY_US
from streams.pipeline import Pipeline

BASELINE_WORDS = {"prior": "which knows no features", "last": "which repeats the last label"}


class Tile(NamedTuple):
    """One large number with its name and what stands below it."""

    name: str
    value: str
    below: str = ""


def tiles(pipeline: Pipeline, archived: Archived, answers: Answers | None, found: Standing) -> list[Tile]:
    """Give the large numbers."""
    made = [Tile("Events", f"{archived.settled:,}", f"{archived.settled / _days(archived):,.0f} a day")]
    made += _label_tiles(pipeline, archived)
    over = f"over {found.events:,} events" if found.events else "since its start"
    made.append(Tile(f"Champion's {loss_name(pipeline.task)}", decimal(found.loss), over))
    if found.baseline:
        sign = "+" if found.change > 0 else "\u2212" if found.change < 0 else ""
        made.append(Tile(f"Against {found.baseline}", f"{sign}{share(abs(found.change))}", "loss on the same events"))
    if answers is not None and np.isfinite(answers.latency_ms_M).any():
        middle, late = np.nanquantile(answers.latency_ms_M, [0.5, 0.99]).tolist()
        made.append(Tile("Time to answer", seconds(middle / 1e3), f"99 % within {seconds(late / 1e3)}"))
    return made


def paragraphs(pipeline: Pipeline, archived: Archived, candidates: Sequence[Candidate], found: Standing) -> list[str]:
    """Say what there is to know first."""
    return [_data_words(pipeline, archived), _model_words(pipeline, candidates, found), _drift_words(archived)]


def _label_tiles(pipeline: Pipeline, archived: Archived) -> list[Tile]:
    counted, label_N = archived.counted, _known_labels(archived)
    if not label_N.size:
        return []
    made = [Tile("With a label", share(counted["set"] / archived.settled), f"{counted['missing']:,} without")]
    if pipeline.task.is_yes_or_no:
        made.append(Tile("Labels that are yes", share(float(label_N.mean())), "of all labels"))
    elif not pipeline.task.classes:
        made.append(Tile("Mean label", f"{label_N.mean():.4g}", f"standard deviation {label_N.std():.3g}"))
    return made


def _data_words(pipeline: Pipeline, archived: Archived) -> str:
    time_us_N, each_day = archived.events.time_us_N, archived.settled / _days(archived)
    first, last = int(time_us_N[0]), int(time_us_N[-1])
    when = f"from {day(first)} to {day(last)}" if last - first > DAY_US else f"from {minute(first)} to {minute(last)}"
    told = [f"The archive has {archived.settled:,} events {when} (UTC), {each_day:,.0f} a day."]
    return " ".join([*told, *_label_words(pipeline, archived)])


def _label_words(pipeline: Pipeline, archived: Archived) -> list[str]:
    counted, label_N, task = archived.counted, _known_labels(archived), pipeline.task
    if not label_N.size:
        return []
    others = f"; for the others none came within {seconds(pipeline.labels.wait_us / 1e6)}" if counted["missing"] else ""
    told = [f"{share(counted['set'] / archived.settled)} got their label{others}."]
    if task.is_yes_or_no:
        told.append(f"{share(float(label_N.mean()))} of the labels are yes.")
    elif task.classes:
        counts = np.bincount(label_N.astype(np.int64), minlength=len(task.classes))
        most = int(counts.argmax())
        told.append(f"The most frequent label is {task.classes[most]} ({share(counts[most] / counts.sum())}).")
    delay_us = archived.events.delay_us
    if np.isfinite(delay_us).any():
        middle, late = (np.nanquantile(delay_us, [0.5, 0.99]) / 1e6).tolist()
        told.append(f"Half of the labels came within {seconds(middle)} of their event, 99 % within {seconds(late)}.")
    return told


def _model_words(pipeline: Pipeline, candidates: Sequence[Candidate], found: Standing) -> str:
    champion, loss = pipeline.serve.champion, loss_name(pipeline.task)
    if not math.isfinite(found.loss):
        return f"Nothing is known yet of how good the champion, {champion}, is: it has neither losses nor a version."
    when = "when it passed" if pipeline.task.is_unsupervised else "before its label was known"
    over = f"over {found.events:,} events, each answered {when}" if found.events else "since its start"
    told = [f"The champion is {champion}. Its {loss} was {decimal(found.loss)} {over}."]
    if found.baseline:
        kind = next(model.kind for model in pipeline.models if model.name == found.baseline)
        beside = f"{decimal(found.shared_loss)} against {decimal(found.baseline_loss)} on the same events"
        how = compared(found.shared_loss, found.baseline_loss)
        told.append(f"That is {how} than {found.baseline}, {BASELINE_WORDS[kind]} ({beside}).")
    best = candidates[0]
    if best.name == champion:
        told.append(f"Of {len(candidates)} candidates it has the lowest loss." if len(candidates) > 1 else "")
    else:
        told.append(f"The lowest of {len(candidates)} candidates is that of {best.name}: {decimal(best.judged)}.")
    return " ".join(part for part in told if part)


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


def _days(archived: Archived) -> float:
    time_us = archived.events.time_us_N
    return max(1.0, float(time_us[-1] - time_us[0]) / DAY_US)


def _known_labels(archived: Archived) -> Floats:
    label_N = archived.events.label_N
    known: Floats = label_N[np.isfinite(label_N)]
    return known
