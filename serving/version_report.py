"""What `millrace models`, `show` and `diff` print of versions."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from consumers.served_figures import read_served
from models.scoring import figure_names
from models.version import Version
from serving.feature_report import size
from serving.json_output import write_json
from serving.served_report import served_row, served_words
from serving.standing_report import champion_of, show_standings
from serving.table import QUANTILE_FIGURES, SHOWN_FIGURES, console, decimal, duration, figure, grid, number, words
from serving.training_report import show_training
from serving.versions import Weights
from streams.pipeline import Pipeline
from streams.served import SERVED, has_served
from streams.state_folder import state_of

LARGEST = 10  # weights that are shown

Newest = Mapping[str, Version | None]


def show_models(pipeline: Pipeline, newest: Newest) -> None:
    """Print the league: the newest version of each candidate, the best first."""
    out, (loss, *others) = console(), figure_names(pipeline.task)
    told = {name for version in newest.values() if version for name in version.figures}
    is_quantile = any(model.params.get("loss") == "quantile" for model in pipeline.models)
    wanted = QUANTILE_FIGURES if is_quantile else SHOWN_FIGURES
    shown = [name for name in others if name in wanted and name in told]
    table = grid(
        "candidate", "version", f">{words(loss)}", ">rolling", *(f">{words(name)}" for name in shown),
        ">predict", ">learn", ">size", ">age", "",
    )  # fmt: skip
    table.padding = (0, 1, 0, 0)  # so that it fits into a hundred characters
    for name in sorted(newest, key=lambda one: _rank(newest[one], loss)):
        table.add_row(name, *_league_row(newest[name], loss, shown), "champion" if _serves(pipeline, name) else "")
    served = read_served(state_of(pipeline)) if has_served(pipeline) else None
    if served is not None:
        table.add_row(SERVED, *served_row(served, loss, shown))
    title = f"Pipeline {pipeline.name}: {len(newest)} candidate{'' if len(newest) == 1 else 's'}"
    out.print(Text(f"{title}, as of their newest versions", style="bold"))
    out.print(table, width=None if out.is_terminal else max(out.width, out.measure(table).maximum))
    if served is not None:
        out.print(served_words(served), soft_wrap=True)
    show_standings(pipeline, out)


def _league_row(version: Version | None, loss: str, shown: Sequence[str]) -> list[str]:
    if version is None:
        return ["none yet", *["-"] * (6 + len(shown))]
    costs = version.costs
    return [
        version.number,
        _decimal(version.figures.get(loss)),
        _decimal(version.rolling.get(loss)),
        *(figure(name, version.figures.get(name)) for name in shown),
        _micros(costs.predict_us),
        _micros(costs.learn_us),
        size(costs.size_bytes) if costs.size_bytes else "-",
        duration(max(0.0, time.time() - version.created_us / 1e6)),
    ]


def _rank(version: Version | None, loss: str) -> float:
    value = version.figures.get(loss) if version else None
    return math.inf if value is None else value


def write_models(pipeline: Pipeline, newest: Newest) -> None:
    """Write the same as JSON: the whole record of each candidate's newest version, null where there is none.

    Beside them stands what is known of answers: `served`, null where none are scored.
    """
    found = [
        {"candidate": name, "is_champion": _serves(pipeline, name), "version": version}
        for name, version in newest.items()
    ]
    served = read_served(state_of(pipeline)) if has_served(pipeline) else None
    write_json({"pipeline": pipeline.name, "models": found, "served": served})


def show_version(version: Version, weights: Weights | None) -> None:
    """Print everything that is known of a version."""
    out = console()
    out.print(Text(version.name, style="bold"))
    facts = grid("", "", wrap=("",))
    facts.show_header = False
    for name, text in facts_of(version).items():
        facts.add_row(name, text)
    out.print(facts)
    figures = grid("figure", ">since the start", ">rolling")
    for name, value in version.figures.items():
        figures.add_row(words(name), figure(name, value), figure(name, version.rolling.get(name)))
    if version.figures:
        out.print(figures)
    show_training(version, out)
    if weights is not None and weights[0]:
        out.print(_largest(weights))


def facts_of(version: Version) -> dict[str, str]:
    """Give what is known of a version beside its figures, as text by name."""
    costs, columns = version.costs, version.columns
    categories = sum(column.is_category for column in columns)
    settings = ", ".join(f"{name} = {value}" for name, value in version.params.items())
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(version.created_us / 1e6))
    return {
        "kind": version.kind + (f" ({settings})" if settings else ""),
        "task": str(version.task),
        "examples": number(version.examples),
        "made": made,
        "follows": version.parent or "-",
        "columns": f"{len(columns) - categories} numbers, {categories} categories; schema {version.schema}",
        "a row costs": f"{_micros(costs.predict_us)} to predict (p99 {_micros(costs.predict_p99_us)}), "
        f"{_micros(costs.learn_us)} to learn",
        "size": size(costs.size_bytes) if costs.size_bytes else "-",
        "made by": ", ".join(f"{name} {release}" for name, release in version.libraries.items()) or "-",
        "file": f"{version.blob} (BLAKE2b {version.digest[:16]}…)",
    }


def _largest(weights: Weights) -> Table:
    """Lay out the largest weights; of several classes a column's largest is what it is sorted by."""
    names, weight_N = weights
    strength_N = np.abs(weight_N) if weight_N.ndim == 1 else np.abs(weight_N).max(axis=1)
    table = grid("column", ">weight of a standard deviation", wrap=("column",))
    for place in np.argsort(-strength_N, kind="stable")[:LARGEST].tolist():
        values = np.atleast_1d(weight_N[place]).tolist()
        table.add_row(names[place], "  ".join(f"{value:+.4f}" for value in values))
    if len(names) > LARGEST:
        table.caption = f"the largest {LARGEST} of {len(names)}"
    return table


def _serves(pipeline: Pipeline, name: str) -> bool:
    return champion_of(pipeline) == name


def _micros(value: float | None) -> str:
    return "-" if value is None else duration(value / 1e6) if value >= 1_000 else f"{value:.3g} us"


def _decimal(value: float | None) -> str:
    return decimal(math.nan if value is None else value)
