"""What `millrace models` prints of the selection: who reigns, and how far each challenger is from promotion."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from consumers.standings import Standing, Standings, read_standings
from serving.table import grid, number
from streams.pipeline import Pipeline
from streams.state_folder import state_of


def champion_of(pipeline: Pipeline) -> str:
    """Give who reigns as the selector last said; without a selector it is the file's champion."""
    found = _standings(pipeline)
    return pipeline.serve.champion if found is None else found.reign.champion


def show_standings(pipeline: Pipeline, out: Console) -> None:
    """Print the challengers, if a selector has said anything of them."""
    found = _standings(pipeline)
    if found is None:
        return
    pinned = ", pinned" if found.reign.is_pinned else ""
    guard = found.guard
    told: str = guard.word
    if guard.expected_delay_events is not None:
        told += f", would notice a doubled loss after about {number(round(guard.expected_delay_events))} events"
    out.print(Text(f"Champion {found.reign.champion}{pinned}; guard: {told}", style="bold"))
    table = grid(
        "challenger",
        "verdict",
        ">better by",
        ">surely by",
        ">needed",
        ">events",
        "to promotion",
        wrap=("to promotion",),
    )
    for one in found.challengers:
        figures = (_signed(one.mean), _signed(one.bound), f"> {one.threshold:g}", number(one.events))
        table.add_row(one.candidate, one.word, *figures, to_promotion(one))
    out.print(table)


def to_promotion(one: Standing) -> str:
    """Say how far a challenger is from promotion."""
    if one.gates:
        return "; ".join(one.gates)
    if one.word in {"proven", "cooling"}:
        return "waits for the cool-down" if one.word == "cooling" else "at the next block"
    if one.events_to_go is None:
        return "not in this epoch, as it looks"
    return f"about {number(one.events_to_go)} events, if it goes on so"


def _standings(pipeline: Pipeline) -> Standings | None:
    return None if pipeline.select is None else read_standings(state_of(pipeline))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
