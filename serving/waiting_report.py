"""What `millrace pending` prints: how many events wait for their label, where, and how old they are."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from serving.json_output import write_json
from serving.table import console, duration, grid, number
from serving.waiting import Waiting, age_edges_us, find_waiting
from streams.durations import SECOND_US, duration_text
from streams.pipeline import Pipeline

AGE_NOTE = (
    "Ages are event times behind the clock that settles missing labels, as of each snapshot. A candidate knows the "
    "times of blocks of 100 events, not of each: its oldest is that of an open block."
)


def show_waiting(pipeline: Pipeline) -> None:
    """Print a table of what waits, and one of the oldest."""
    out, found = console(), list(find_waiting(pipeline))
    in_ledger = [one for one in found if one.where == "ledger"]
    total, labels = sum(one.events for one in in_ledger), pipeline.labels
    title = f"Pipeline {pipeline.name}: {number(total)} events wait for their label"
    most = f"at most {duration_text(labels.wait_us)}, and {number(labels.most_pending)} in a partition"
    most = most if labels.is_declared else "there are no labels, so each is settled as it comes"
    out.print(Text(f"{title}; {most}", style="bold"))
    out.print(_counts(pipeline, found))
    if early := sum(one.early_labels or 0 for one in in_ledger):
        out.print(Text(f"{number(early)} labels wait for their event"))
    if missing := [one for one in found if one.snapshot_age_s is None]:
        names = ", ".join(f"{one.where} {one.partition}" for one in missing)
        out.print(
            Text(f"no snapshot yet of {names}: `millrace up` writes one every {pipeline.run.snapshot_every_s:g} s")
        )
    if labels.is_declared:
        out.print(Text(AGE_NOTE, style="dim"), width=min(out.width, 100))


def write_waiting(pipeline: Pipeline) -> None:
    """Write the same as JSON to standard output."""
    found = {
        "pipeline": pipeline.name,
        "wait_us": pipeline.labels.wait_us,
        "most_pending": pipeline.labels.most_pending,
        "age_edges_us": age_edges_us(pipeline),
        "places": list(find_waiting(pipeline)),
    }
    write_json(found)


def _counts(pipeline: Pipeline, found: Sequence[Waiting]) -> Table:
    edges = [duration_text(edge_us) for edge_us in age_edges_us(pipeline)]
    ages = [f">< {edge}" for edge in edges] + [">older"] * bool(edges)
    table = grid("where", ">partition", ">waiting", *ages, "oldest", ">snapshot", wrap=("oldest",))
    for one in found:
        if one.snapshot_age_s is not None:
            counts = ["-"] * len(ages) if one.ages is None else [number(count) for count in one.ages]
            oldest = Text(_oldest(one))  # an id may hold what rich takes for markup
            age = f"{duration(one.snapshot_age_s)} old"
            table.add_row(one.where, str(one.partition), number(one.events), *counts, oldest, age)
    return table


def _oldest(one: Waiting) -> str:
    if one.oldest_us is None:
        return "-"
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one.oldest_us / SECOND_US))
    return at if one.oldest_id is None else f"{one.oldest_id} of {at}"
