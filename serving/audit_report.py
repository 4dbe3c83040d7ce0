"""How an audit's findings read: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from serving.auditor import ONE_SIDED, skew_of
from serving.comparison import Difference
from serving.table import grid, number
from serving.tally import SHOWN, Tally


def report_record(name: str, tallies: Sequence[Tally]) -> dict[str, Any]:
    """Give what `--json` prints."""
    return {
        "pipeline": name,
        "compared": sum(tally.compared for tally in tallies),
        "skew": skew_of(tallies).total(),
        "partitions": [tally.as_record() for tally in tallies],
    }


def show_report(out: Console, name: str, tallies: Sequence[Tally]) -> None:
    """Print a table of partitions, the first differences, and the outcome in a line."""
    is_chain = _is_chain(tallies)
    counted = (">compared", ">values differ", ">only served", ">only in the log", ">not served yet", ">log gone")
    table = grid(*([">stage"] if is_chain else []), ">partition", *counted)
    for one in tallies:
        counts = (
            one.compared,
            one.unlike.total(),
            one.only_served,
            one.only_recomputed,
            one.unserved,
            one.out_of_reach,
        )
        place = [str(one.stage)] if is_chain else []
        table.add_row(*place, str(one.partition), *map(number, counts))
    out.print(table)
    differences = [one for tally in tallies for one in tally.first][:SHOWN]
    if differences:
        out.print(_differences(differences, is_chain=is_chain))
    out.print(outcome(name, tallies), soft_wrap=True)


def _is_chain(tallies: Sequence[Tally]) -> bool:
    return len({tally.stage for tally in tallies}) > 1


def outcome(name: str, tallies: Sequence[Tally]) -> Text:
    """Say in one line whether everything is as it should be, and if not, in which stages."""
    rows, skew = sum(tally.compared for tally in tallies), skew_of(tallies)
    if not skew:
        return Text(f"{name}: {number(rows)} served rows are equal to their recomputation, bit for bit", style="green")
    what = _columns(skew)
    if _is_chain(tallies):
        of = {tally.stage: skew_of([one for one in tallies if one.stage == tally.stage]) for tally in tallies}
        what = "; ".join(f"stage {stage}: {_columns(found)}" for stage, found in of.items() if found)
    return Text(f"{name}: SKEW of {number(skew.total())} in {number(rows)} rows: {what}", style="bold red")


def _columns(skew: Counter[str]) -> str:
    """Say how much differs in what, the worst column first."""
    parts = [f"{column} {number(count)}" for column, count in skew.most_common() if column != ONE_SIDED]
    if skew[ONE_SIDED]:
        parts.append(f"rows on one side only {number(skew[ONE_SIDED])}")
    return ", ".join(parts)


def _differences(found: Sequence[Difference], *, is_chain: bool) -> Any:
    head = ([">stage"] if is_chain else []) + [">partition", ">number", "id", "column", ">served", ">recomputed"]
    table = grid(*head, wrap=("id",))
    for one in found:
        # As text: brackets in an id are no markup.
        place = (str(one.partition), str(one.number), Text(str(one.id)), one.column)
        stage = [str(one.stage)] if is_chain else []
        table.add_row(*stage, *place, Text(str(one.served)), Text(str(one.recomputed)))
    return table
