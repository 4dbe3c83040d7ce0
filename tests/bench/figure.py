"""What the bench measures: figures, the bound each must keep, and ratios of two figures of the same run.

A file in `figures/` is found by itself. It has `FIGURES`, may have `RATIOS`, and a function
`measure(workplace) -> dict[str, float]` that measures its figures once; the bench calls it once a run.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from importlib import import_module
from statistics import median
from typing import NamedTuple

from tests.bench.workplace import Workplace

BARE = "bare"
REFERENCE_BARE = 440_000.0  # records/s of the bare loop on the machine that the absolute bounds are written for


class Figure(NamedTuple):
    """One number. `bound` is what it must reach (`is_floor`) or stay under; none means it is shown for comparison.

    The bound of what `scales` holds where the bare loop gives REFERENCE_BARE, and elsewhere in proportion to the bare
    loop of the same runs: less speed, or more time, of a slower machine.
    """

    name: str
    unit: str
    bound: float | None = None
    is_floor: bool = True
    scales: bool = False


class Ratio(NamedTuple):
    """One figure divided by another, run by run; `bound` is what it must reach."""

    name: str
    numerator: str
    denominator: str
    bound: float | None = None
    factor: float = 1.0


class Measurement(NamedTuple):
    """One file of `figures/`: everything that one kind of run gives."""

    name: str
    figures: tuple[Figure, ...]
    ratios: tuple[Ratio, ...]
    measure: Callable[[Workplace], dict[str, float]]


def measurements() -> list[Measurement]:
    """All measurements, the bare loop first, since others refer to it."""
    from tests.bench import figures

    found = []
    for module_info in pkgutil.iter_modules(figures.__path__):
        module = import_module(f"tests.bench.figures.{module_info.name}")
        ratios = getattr(module, "RATIOS", ())
        found.append(Measurement(module_info.name, module.FIGURES, ratios, module.measure))
    return sorted(found, key=lambda measurement: measurement.name != BARE)


def choose(available: Iterable[Measurement], only: set[str]) -> list[Measurement]:
    """Keep the measurements that give a wanted figure, with the other side of every wanted ratio; all if none is named.

    Raises:
        ValueError: a name is neither a figure, a ratio nor a file of `figures/`.
    """
    available = list(available)
    if not only:
        return available
    ratios = {ratio.name: ratio for measurement in available for ratio in measurement.ratios}
    figures = {figure.name: figure for measurement in available for figure in measurement.figures}
    files = {measurement.name for measurement in available}
    unknown = sorted(only - figures.keys() - ratios.keys() - files)
    if unknown:
        known = ", ".join(sorted(files | figures.keys() | ratios.keys()))
        raise ValueError(f"no figure is called {', '.join(unknown)}; there are {known}")
    wanted = set(only)
    for name in only & ratios.keys():
        wanted |= {ratios[name].numerator, ratios[name].denominator}
    chosen = [m for m in available if m.name in wanted or wanted & {figure.name for figure in m.figures}]
    if any(figure.scales for measurement in chosen for figure in measurement.figures):
        chosen = [m for m in available if m in chosen or m.name == BARE]
    return chosen


def with_ratios(runs: dict[str, list[float]], ratios: Iterable[Ratio]) -> dict[str, list[float]]:
    """Add every ratio whose two sides were measured, run by run, to the runs of each figure."""
    values = dict(runs)
    for ratio in ratios:
        sides = runs.get(ratio.numerator, []), runs.get(ratio.denominator, [])
        if all(sides):
            values[ratio.name] = [ratio.factor * over / under for over, under in zip(*sides, strict=True)]
    return values


def bound_here(figure: Figure | Ratio, bare: float | None) -> float | None:
    """The bound on this machine: of what scales, in proportion to its bare loop."""
    if not isinstance(figure, Figure) or not figure.scales or figure.bound is None or bare is None:
        return figure.bound
    speed = bare / REFERENCE_BARE
    return figure.bound * speed if figure.is_floor else figure.bound / speed


def is_reached(figure: Figure | Ratio, value: float, bare: float | None) -> bool | None:
    """Whether a value keeps its bound; None where there is none."""
    bound = bound_here(figure, bare)
    if bound is None:
        return None
    return value <= bound if isinstance(figure, Figure) and not figure.is_floor else value >= bound


def middle(values: list[float]) -> float:
    """The median of the runs."""
    return float(median(values))
