"""`millrace report`: data and models of a pipeline as one page, from archive, versions and topics.

The archive must be there. What lies in Kafka (losses, answers, texts of categories) is left out where no broker
answers, and so is a version that cannot be read; the page says each time what it lacks and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from models.version import Version
from serving.report_charts import Chart, colours_of
from serving.report_data import SAMPLE_EVENTS, Archived, Period, read_archive
from serving.report_evaluation import SLICED, cost_charts, importance_charts, loss_chart, slice_charts, training_charts
from serving.report_exploration import data_charts
from serving.report_league import Candidate, league, league_rows, loss_name, standing
from serving.report_models import Importance, importance_of
from serving.report_page import League, Report, Section, render
from serving.report_summary import paragraphs, tiles
from serving.report_tasks import task_charts
from serving.report_topics import Answers, KafkaTopics, Losses, Names, Topic, read_answers, read_losses, read_names
from serving.report_words import minute, share
from serving.versions import newest
from streams.errors import MillraceError, PipelineError, UnavailableError
from streams.pipeline import Pipeline

T = TypeVar("T")


class Gathered(NamedTuple):
    """All that was read for a report; `left_out` says in words what could not be."""

    archived: Archived
    newest: dict[str, Version | None]
    candidates: list[Candidate]
    losses: dict[str, Losses]
    answers: Answers | None
    names: Names
    importances: list[Importance]
    left_out: list[str]


def run_report(pipeline: Pipeline, out: Path, period: Period, features: Sequence[str]) -> None:
    """Write the report of a period and say where it is.

    Raises:
        UnavailableError: there is no archive yet, or the file cannot be written.
        PipelineError: a feature to part losses by is none of the pipeline's.
    """
    gathered = gather(pipeline, period, KafkaTopics, features)
    page = render(report_of(pipeline, gathered, features, time.time_ns() // 1_000))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{out} cannot be written: {error.strerror or error}; name another file") from None
    for line in gathered.left_out:
        print(f"not in the report: {line}")
    print(f"{out}: {gathered.archived.settled:,} events, {len(page.encode()) / 1e6:.1f} MB")


def gather(
    pipeline: Pipeline,
    period: Period,
    connect: Callable[[Pipeline], Topic],
    features: Sequence[str] = (),
    most_events: int = SAMPLE_EVENTS,
) -> Gathered:
    """Read everything. `connect` gives the topics, or raises where they cannot be reached."""
    left_out: list[str] = []
    archived = read_archive(pipeline, period, most_events)
    _check_features(archived, features)
    losses, answers, names = _from_topics(pipeline, archived, period, connect, left_out)
    versions = newest(pipeline)
    left_out += [f"figures of {name}: it has no version yet" for name, version in versions.items() if version is None]
    importances = []
    for name, version in versions.items():
        if version is not None and version.kind not in ("prior", "last"):
            what = f"which features {name} needs"
            found = _tried(left_out, what, partial(importance_of, pipeline, version, archived.events))
            importances += [found] if found else []
    candidates = league(pipeline.task, versions, losses)
    return Gathered(archived, versions, candidates, losses, answers, names, importances, left_out)


def report_of(pipeline: Pipeline, gathered: Gathered, features: Sequence[str], now_us: int) -> Report:
    """Lay out what was gathered."""
    archived, events = gathered.archived, gathered.archived.events
    found = standing(pipeline, gathered.candidates, gathered.losses)
    first, last = minute(int(events.time_us_N[0])), minute(int(events.time_us_N[-1]))
    colours = colours_of((model.name, model.kind) for model in pipeline.models)
    header, rows = league_rows(pipeline, gathered.candidates)
    lead = "What the candidates are and how good they were; figures judge what was predicted when each event passed."
    shown = League(header, rows, colours)
    return Report(
        f"{pipeline.name}: data and models",
        f"Events from {first} to {last} UTC · made {minute(now_us)} UTC",
        tiles(pipeline, archived, gathered.answers, found),
        paragraphs(pipeline, archived, gathered.candidates, found),
        gathered.left_out,
        [
            Section("models", "Models", lead, model_charts(pipeline, gathered, features, colours), shown),
            Section("data", "Data", _sample_words(archived), data_charts(archived, pipeline.task, gathered.names)),
        ],
        _footer(archived),
    )


def model_charts(
    pipeline: Pipeline,
    gathered: Gathered,
    features: Sequence[str],
    colours: dict[str, str],
) -> list[Chart]:
    """Give the charts of candidates, as far as there is something to show."""
    events, losses, name = gathered.archived.events, gathered.losses, loss_name(pipeline.task)
    charts = [loss_chart(losses, colours, name)] if losses else []
    charts += cost_charts(gathered.candidates, colours, name)
    charts += task_charts(pipeline.task, events, losses, gathered.answers, colours)
    if losses:
        chosen = features or _features_of_note(pipeline, gathered)
        charts += slice_charts(events, losses, chosen, gathered.names, colours, name)
    return [*charts, *importance_charts(gathered.importances, colours), *training_charts(gathered.newest, colours)]


def _from_topics(
    pipeline: Pipeline,
    archived: Archived,
    period: Period,
    connect: Callable[[Pipeline], Topic],
    left_out: list[str],
) -> tuple[dict[str, Losses], Answers | None, Names]:
    what = "losses over time and by slice, what was served, names of categories"
    topic, events = _tried(left_out, what, lambda: connect(pipeline)), archived.events
    if topic is None:
        return {}, None, {}
    found = _tried(left_out, "losses", lambda: read_losses(topic, events, archived.share, period))
    declared = [model.name for model in pipeline.models]
    if found == {}:
        left_out.append(f"losses over time and by slice: {pipeline.name}.scores has no block of this period")
    answers = _tried(left_out, "what was served", lambda: read_answers(topic, events, pipeline.task))
    names = _tried(left_out, "names of categories", lambda: read_names(topic, pipeline)) or {}
    losses = {name: found[name] for name in declared if name in found} if found else {}
    return losses, answers, names


def _tried(left_out: list[str], what: str, read: Callable[[], T]) -> T | None:
    """Read something that a report can do without."""
    try:
        return read()
    except MillraceError as error:
        left_out.append(f"{what}: {error}")
        return None


def _features_of_note(pipeline: Pipeline, gathered: Gathered) -> list[str]:
    """Choose features to part losses by: those the champion needs most, or the first."""
    known = [column.name for column in gathered.archived.events.columns]
    mine = [one for one in gathered.importances if one.version.startswith(f"{pipeline.serve.champion}@")]
    if not mine:
        return known[:SLICED]
    order = (-mine[0].mean_F).argsort(kind="stable").tolist()
    return [mine[0].names[at] for at in order if mine[0].names[at] in known][:SLICED]


def _check_features(archived: Archived, features: Sequence[str]) -> None:
    known = [column.name for column in archived.events.columns]
    wrong = [name for name in features if name not in known]
    if wrong:
        raise PipelineError([f"--by {wrong[0]}: is no feature; allowed: {', '.join(known)}"])


def _sample_words(archived: Archived) -> str:
    size = archived.events.time_us_N.size
    if archived.share >= 1.0:
        return f"All {size:,} events, with their features as they were when each event passed."
    return (
        f"Volumes count all events; everything else is of {size:,} of them ({share(archived.share)}), "
        "chosen by a hash of their number, with their features as they were when each event passed."
    )


def _footer(archived: Archived) -> list[str]:
    chosen = "all events" if archived.share >= 1.0 else f"a sample of {archived.events.time_us_N.size:,} events"
    judged = (
        "Losses are of what each candidate had said when the event passed, so none is judged on what it had learned."
    )
    labels = "An event counts with its first label in losses, and with its newest everywhere else."
    size = f"Curves, slices and distributions are of {chosen}; times are UTC."
    return [f"{judged} {labels}", f"{size} This page holds all it needs and loads nothing."]
