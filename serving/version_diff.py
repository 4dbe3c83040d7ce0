"""What differs between two versions: settings, columns, figures, and what a linear model has changed its mind about."""

from __future__ import annotations

import numpy as np
from rich.table import Table
from rich.text import Text

from models.version import Version
from serving.table import console, decimal, grid, words
from serving.version_report import LARGEST, facts_of
from serving.versions import Weights

Change = tuple[str, str, str]
"""What differs, and what it is in the one and in the other."""


def changes(one: Version, other: Version) -> list[Change]:
    """Give the facts in which two versions differ, beside figures and weights."""
    facts = facts_of(one), facts_of(other)
    found = [(name, facts[0][name], facts[1][name]) for name in facts[0] if facts[0][name] != facts[1][name]]
    columns = [{column.name: column for column in version.columns} for version in (one, other)]
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        before, after = (_kind(side.get(name)) for side in columns)
        if before != after:
            found.append((f"column {name}", before, after))
    return found


def figure_changes(one: Version, other: Version) -> list[tuple[str, float | None, float | None]]:
    """Give each figure since the start in both; None where one of them does not have it."""
    names = dict.fromkeys([*one.figures, *other.figures])
    return [(name, one.figures.get(name), other.figures.get(name)) for name in names]


def weight_changes(one: Weights, other: Weights) -> list[tuple[str, float, float]]:
    """Give the weights of columns that both have, what changed most first; of several classes the one that did."""
    places = {name: place for place, name in enumerate(other[0])}
    found = []
    for place, name in enumerate(one[0]):
        if name in places:
            a, b = np.atleast_1d(one[1][place]), np.atleast_1d(other[1][places[name]])
            if a.size == b.size:
                most = int(np.argmax(np.abs(b - a)))
                found.append((name, float(a[most]), float(b[most])))
    return sorted(found, key=lambda change: -abs(change[2] - change[1]))


def show_diff(one: Version, other: Version, weights: list[Weights | None]) -> None:
    """Print what differs between two versions; `weights` are those of both, as far as they are linear."""
    out = console()
    if not changes(one, other) and one.figures == other.figures:
        out.print(f"{one.name} and {other.name} are one version: no difference", soft_wrap=True)
        return
    out.print(Text(f"{one.name} and {other.name}", style="bold"))
    if one.schema != other.schema:
        out.print(Text(f"made for different columns or tasks: schema {one.schema} and {other.schema}", style="yellow"))
    table = grid("", one.name, other.name, wrap=("", one.name, other.name))
    for what, before, after in changes(one, other):
        table.add_row(what, before, after)
    out.print(table)
    if one.figures or other.figures:
        out.print(_figures(one, other))
    known = [some for some in weights if some is not None]
    if len(known) == len(weights):
        out.print(_weights(one, other, *known))


def _figures(one: Version, other: Version) -> Table:
    table = grid("figure", f">{one.name}", f">{other.name}", ">change")
    for name, a, b in figure_changes(one, other):
        change = "" if a is None or b is None else f"{b - a:+.4f}"
        table.add_row(words(name), *("-" if value is None else decimal(value) for value in (a, b)), change)
    return table


def _weights(one: Version, other: Version, before: Weights, after: Weights) -> Table:
    table = grid("column", f">{one.name}", f">{other.name}", ">change", wrap=("column",))
    for name, a, b in weight_changes(before, after)[:LARGEST]:
        table.add_row(name, f"{a:+.4f}", f"{b:+.4f}", f"{b - a:+.4f}")
    return table


def _kind(column: object) -> str:
    return "-" if column is None else "category" if getattr(column, "is_category", False) else "number"
