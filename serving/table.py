"""How an overview looks: a live table on a terminal, one line elsewhere."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.overview import AnswersLine, ModelLine, Overview
from streams.served import SERVED

SHOWN_FIGURES = ("accuracy", "auc", "macro_f1", "kappa", "rmse", "r2")  # figures of a league table; /metrics has all
_WORDS = {
    "auc": "AUC", "mae": "MAE", "rmse": "RMSE", "r2": "R2",
    "macro_auc": "macro AUC", "pinball_10": "pinball 0.1", "pinball_90": "pinball 0.9",
    "loss_1m": "loss where the label took less than 1 min", "loss_1h": "… 1 min to 1 h", "loss_1d": "… 1 h to 1 day",
    "loss_7d": "… 1 to 7 days", "loss_more": "… more",
}  # fmt: skip
QUANTILE_FIGURES = ("pinball_10", "pinball_90")  # in their place where a candidate is to tell a quantile
PLAIN_WIDTH = 110  # columns of a table that goes to a file or a pipe


def console() -> Console:
    """The console for standard output; wide enough for tables when it is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=PLAIN_WIDTH, highlight=False, color_system=None)


def render(title: str, overview: Overview) -> RenderableType:
    """Lay out everything: processes, models, and what must stay at zero."""
    return Group(
        Text(title, style="bold"),
        processes(overview),
        league(overview.models, overview.answers, is_final=False),
        _health(overview),
    )


def line(overview: Overview) -> str:
    """Say the same in one line, for logs."""
    rates = ", ".join(
        f"{role} {number(overview.events_per_s(role))}/s"
        for role in dict.fromkeys(process.role for process in overview.processes)
    )
    losses = ", ".join(f"{model.name} {decimal(model.loss)}" for model in overview.models)
    losses += "" if overview.answers is None else f", {SERVED} {decimal(next(iter(overview.answers.figures.values())))}"
    loss = next(iter(overview.models[0].figures)) if overview.models else "loss"
    lag = sum(process.lag_records for process in overview.processes)
    down = [process.name for process in overview.processes if process.state not in ("up", "starting")]
    parts = [
        f"events: {rates}",
        f"lag {number(lag)}",
        f"latency p50 {duration(overview.latency_s[0])}, p99 {duration(overview.latency_s[1])}",
        f"{words(loss)}: {losses}",
        f"champion {overview.champion}",
    ]
    if down:
        parts.append(f"down: {', '.join(down)}")
    if overview.unaccounted:
        parts.append(f"UNACCOUNTED ROWS: {overview.unaccounted}")
    return " | ".join(parts)


def processes(overview: Overview) -> Table:
    """One row per process."""
    table = grid("process", "state", ">events/s", ">lag", ">CPU", ">memory", ">restarts")
    for one in overview.processes:
        style = {"up": "", "starting": "dim"}.get(one.state, "bold red")
        table.add_row(
            one.name,
            Text(one.state, style=style),
            "-" if one.events_per_s is None else number(one.events_per_s),
            number(one.lag_records),
            "-" if one.cpu_ratio is None else f"{one.cpu_ratio:.0%}",
            f"{one.memory_bytes / 2**20:.0f} MiB",
            str(one.restarts) if one.restarts else "",
        )
    return table


def league(models: tuple[ModelLine, ...], answers: AnswersLine | None = None, *, is_final: bool) -> Table:
    """Candidates: in the file's order while running, the best first at the end; below them what was answered."""
    names = list(models[0].figures) if models else ["log_loss"]
    shown = [name for name in names[1:] if name in SHOWN_FIGURES]
    table = grid("candidate", f">{words(names[0])}", ">rolling", *(f">{words(one)}" for one in shown), ">learned", "")
    best = min((model.loss for model in models if not math.isnan(model.loss)), default=math.nan)
    order = sorted(models, key=lambda model: (math.isnan(model.loss), model.loss)) if is_final else models
    for model in order:
        table.add_row(
            model.name,
            Text(decimal(model.loss), style="bold green" if model.loss == best else ""),
            decimal(model.rolling_loss),
            *(figure(one, model.figures[one]) for one in shown),
            number(model.learned),
            _standing(model),
        )
    if answers is not None:
        table.add_row(
            SERVED,
            decimal(answers.figures[names[0]]),
            decimal(answers.rolling_loss),
            *(figure(one, answers.figures[one]) for one in shown),
            number(answers.scored),
            staleness(answers.staleness),
        )
    return table


def staleness(cost: float) -> str:
    """Say how much more the answers lost than their models would have."""
    return "answered" if math.isnan(cost) else f"answered; stale by {cost:+.4f}"


def _standing(model: ModelLine) -> Text:
    """Say what else there is to know of a candidate."""
    standing = Text("champion: answers" if model.is_champion else "")
    if model.trainings is not None:
        made = model.trainings.get("made", 0)
        standing.append(f"{', ' if standing else ''}{made} version{'' if made == 1 else 's'} trained")
    if model.is_quarantined:
        standing.append(" " if standing else "").append("in quarantine", "bold red")
    return standing


def words(figure: str) -> str:
    """Say a figure's name as people write it."""
    return _WORDS.get(figure, figure.replace("_", " "))


def _health(overview: Overview) -> Text:
    p50, p99 = overview.latency_s
    age = overview.version_age_s
    text = Text.assemble(
        f"latency p50 {duration(p50)}, p99 {duration(p99)} · {number(overview.served)} predictions · ",
        f"serving a version of {number(overview.version_examples)} examples",
        "" if math.isnan(age) else f", {duration(age)} old",
        f" · {number(overview.pending)} events wait for their label\n",
        f"dead letters {number(sum(overview.dead_letters.values()))} · repeats dropped {number(overview.repeats)} · ",
    )
    return text.append(f"unaccounted rows {overview.unaccounted}", "bold red" if overview.unaccounted else "green")


def grid(*columns: str, wrap: tuple[str, ...] = ()) -> Table:
    """Make an empty table; a leading `>` sets a column right, only those in `wrap` may break lines."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        name = column.lstrip(">")
        table.add_column(name, justify="right" if column.startswith(">") else "left", no_wrap=name not in wrap)
    return table


def number(value: float) -> str:
    """Write a count with thousands separators."""
    return f"{value:,.0f}"


def decimal(value: float) -> str:
    """Write a loss or a share with four digits."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def figure(name: str, value: float | None) -> str:
    """Write a figure of a model: shares in percent, others as `decimal` does; None is not known."""
    return "-" if value is None else share(value) if name in ("accuracy", "coverage") else decimal(value)


def share(value: float) -> str:
    """Write a share in percent."""
    return "-" if math.isnan(value) else f"{value:.2%}"


def duration(seconds: float) -> str:
    """Write a time in the unit that reads best.

    >>> duration(0.0123), duration(2.5), duration(600)
    ('12.3 ms', '2.5 s', '10 min')
    """
    if math.isnan(seconds):
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.0f} min"
