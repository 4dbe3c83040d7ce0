"""bench.json and the table: every figure with its runs, what it is compared with, and whether it is reached."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.figure import BARE, Figure, Measurement, Ratio, bound_here, is_reached, middle
from tests.bench.processes import ROOT

PACKAGES = ("confluent-kafka", "numpy", "numba", "pyarrow", "msgspec")


class Result(msgspec.Struct, frozen=True):
    """One figure of bench.json: `value` is the median of `runs`; `ratio` is value divided by what `against` names."""

    name: str
    value: float
    unit: str
    ratio: float | None
    against: str | None
    runs: list[float]


class Report(msgspec.Struct, frozen=True):
    """The whole of bench.json."""

    figures: list[Result]
    machine: dict[str, str | int]
    versions: dict[str, str]


def make_report(measured: Iterable[Measurement], runs: Mapping[str, list[float]]) -> Report:
    """Sum up the runs; figures that were not measured are left out."""
    measured = list(measured)
    bare = middle(runs[BARE]) if runs.get(BARE) else None
    declared: list[Figure | Ratio] = [figure for measurement in measured for figure in measurement.figures]
    declared += [ratio for measurement in measured for ratio in measurement.ratios]
    results = [_result(figure, runs[figure.name], bare) for figure in declared if runs.get(figure.name)]
    return Report(results, machine(), versions())


def _result(figure: Figure | Ratio, runs: list[float], bare: float | None) -> Result:
    value = middle(runs)
    if isinstance(figure, Ratio):
        return Result(figure.name, _rounded(value), "x", _rounded(value), figure.denominator, _all_rounded(runs))
    ratio, against = None, None
    if figure.unit.endswith("/s") and bare and figure.name != BARE:
        ratio, against = value / bare, BARE
    elif figure.bound is not None:
        ratio, against = value / figure.bound, f"the most allowed, {figure.bound:g} {figure.unit}"
    ratio = None if ratio is None else _rounded(ratio)
    return Result(figure.name, _rounded(value), figure.unit, ratio, against, _all_rounded(runs))


def write_json(report: Report, file: Path) -> None:
    """Write bench.json."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def show(report: Report, measured: Iterable[Measurement], console: Console) -> bool:
    """Print the table; give whether everything that was measured is reached."""
    declared: dict[str, Figure | Ratio] = {}
    for measurement in measured:
        declared |= {figure.name: figure for figure in measurement.figures}
        declared |= {ratio.name: ratio for ratio in measurement.ratios}
    bare = next((result.value for result in report.figures if result.name == BARE), None)
    table = Table("figure", *("value", "unit", "ratio", "against", "required here", "reached", "runs"), box=None)
    for column in (1, 3, 5, 7):
        table.columns[column].justify = "right"
    reached: list[bool] = []
    for result in report.figures:
        figure = declared[result.name]
        verdict = is_reached(figure, result.value, bare)
        reached += [] if verdict is None else [verdict]
        required = _required(figure, bare)
        word = {None: "", True: "yes", False: "NO"}[verdict]
        spread = f"{shown(min(result.runs))} … {shown(max(result.runs))}"
        ratio = "" if result.ratio is None else shown(result.ratio)
        table.add_row(
            result.name, shown(result.value), result.unit, ratio, result.against or "", required, word, spread
        )
    console.print(table)
    return all(reached)


def _required(figure: Figure | Ratio, bare: float | None) -> str:
    bound = bound_here(figure, bare)
    if bound is None:
        return ""
    sign = "≤" if isinstance(figure, Figure) and not figure.is_floor else "≥"
    return f"{sign} {shown(bound)}"


def shown(value: float) -> str:
    """Write a number as the table does."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _all_rounded(values: list[float]) -> list[float]:
    return [_rounded(value) for value in values]


def machine() -> dict[str, str | int]:
    """Say what machine this is."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_mib": memory, "system": platform.platform()}


def versions() -> dict[str, str]:
    """Say what ran: the commit and the libraries that speed depends on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit or "unknown",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
