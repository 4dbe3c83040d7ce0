"""Charts of a report, by plotly: what they share, so that all look alike, and the forms they have.

A chart is drawn from traces as plain dicts. Text that users wrote (names of candidates, features, categories) becomes
harmless where figures are made, because plotly takes some of HTML in any text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

INK, FAINT, LINES, GROUND = "#1f2933", "#66727f", "#e4e8ed", "#ffffff"
DATA, DATA_LIGHT, DATA_PALE, WARM = "#3d5a80", "#98b3d4", "#dbe4ef", "#c8553d"
CANDIDATES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#6f4ab0", "#17a2b8", "#7a5230")
"""Of candidates, in the file's order; told apart by most people with a colour blindness (after Okabe and Ito)."""
BASELINES = {"prior": "#8b949e", "last": "#b9c0c8"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LONGEST_TEXT = 26  # of a category at an axis
ROW = 26  # height of a horizontal bar in px
_KEPT = ("hovertemplate", "type", "mode", "color", "fillcolor", "family")

Trace = dict[str, Any]
Layout = dict[str, Any]


class Panel(NamedTuple):
    """One drawing; several of a chart stand side by side as far as there is room."""

    traces: Sequence[Trace]
    layout: Layout
    height: int = 320
    name: str = ""


class Chart(NamedTuple):
    """A chart with its title, one sentence on how to read it, and its legend as (name, colour)."""

    title: str
    aid: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]] = ()
    is_wide: bool = True
    note: str = ""


def colours_of(models: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Give each candidate, by (name, kind), the colour it has on the whole page: baselines are grey.

    >>> colours_of([("logistic", "linear"), ("base", "prior")])
    {'logistic': '#0072b2', 'base': '#8b949e'}
    """
    found: dict[str, str] = {}
    for name, kind in models:
        used = len([one for one in found.values() if one in CANDIDATES])
        found[name] = BASELINES.get(kind) or CANDIDATES[used % len(CANDIDATES)]
    return found


def draw(panel: Panel) -> go.Figure:
    """Make the figure of a panel.

    Raises:
        ValueError: a trace is none that plotly knows.
    """
    axis = {
        "gridcolor": LINES, "linecolor": LINES, "zeroline": False, "ticks": "", "automargin": True,
        "tickfont": {"color": FAINT, "size": 12}, "title": {"font": {"color": FAINT, "size": 12}, "standoff": 8},
    }  # fmt: skip
    base: Layout = {
        "template": "none",
        "height": panel.height,
        "margin": {"l": 8, "r": 22, "t": 8, "b": 8},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": GROUND,
        "plot_bgcolor": GROUND,
        "showlegend": False,
        "hoverlabel": {"bgcolor": GROUND, "bordercolor": LINES, "font": {"family": FONT, "size": 12, "color": INK}},
        "xaxis": axis,
        "yaxis": axis,
        "dragmode": False,
    }
    return go.Figure([harmless(trace) for trace in panel.traces], _merged(base, harmless(panel.layout)))


def harmless(value: Any) -> Any:
    """Take the meaning from all text below a value, but for what never holds any of a user's.

    >>> harmless({"name": "<b>", "hovertemplate": "%{y}<br>", "x": ["a&b"]})
    {'name': '&lt;b&gt;', 'hovertemplate': '%{y}<br>', 'x': ['a&amp;b']}
    """
    if isinstance(value, dict):
        return {name: one if name in _KEPT else harmless(one) for name, one in value.items()}
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [harmless(one) for one in value]
    return value


def line(x: Any, y: Any, name: str, colour: str, **changes: Any) -> Trace:
    """Draw a line; a gap is where nothing is known."""
    form = {"color": colour, "width": 2, **changes.pop("line", {})}
    return {"type": "scatter", "mode": "lines", "x": _list(x), "y": _list(y), "name": name, "line": form, **changes}


def band(x: Any, low: Any, high: Any, name: str) -> list[Trace]:
    """Draw the room between two lines."""
    edge = {"width": 0}
    below = line(x, low, name, DATA_PALE, line=edge, hoverinfo="skip")
    return [below, line(x, high, name, DATA_PALE, line=edge, fill="tonexty", fillcolor=DATA_PALE, hoverinfo="skip")]


def points(x: Any, y: Any, name: str, colour: str, size: Any = 9, **changes: Any) -> Trace:
    """Draw points."""
    form = {"color": colour, "size": size, "line": {"color": GROUND, "width": 1}, **changes.pop("marker", {})}
    return {"type": "scatter", "mode": "markers", "x": _list(x), "y": _list(y), "name": name, "marker": form, **changes}


def bars(x: Any, y: Any, name: str, colour: str, **changes: Any) -> Trace:
    """Draw upright bars."""
    return {"type": "bar", "x": _list(x), "y": _list(y), "name": name, "marker": {"color": colour}, **changes}


def lying_bars(names: Sequence[str], values: Any, colour: Any, **changes: Any) -> Trace:
    """Draw bars that lie, the first on top."""
    shown: Trace = {"marker": {"color": colour}, "hovertemplate": "%{customdata}: %{x}<extra></extra>"}
    shown["customdata"] = list(names)
    return {"type": "bar", "orientation": "h", "x": _list(values), "y": list(range(len(names))), **shown, **changes}


def lying_axis(names: Sequence[str], **changes: Any) -> Layout:
    """Give the axis of names that stand at the left, the first on top. Names may be the same when shortened."""
    places = list(range(len(names)))
    shown = {"tickvals": places, "ticktext": [shortened(one) for one in names], "range": [len(names) - 0.4, -0.6]}
    return {**shown, "showgrid": False, **changes}


def title(text: str, **changes: Any) -> Layout:
    """Give an axis its title."""
    return {"title": {"text": text}, **changes}


def guide(axis: str, value: float, colour: str = FAINT) -> Layout:
    """Draw a thin dashed line across a panel at a value of `x` or `y`."""
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    return {"type": "line", **ends, "line": {"color": colour, "width": 1, "dash": "dot"}, "layer": "below"}


def shortened(text: str) -> str:
    """Cut what is too long for an axis."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _list(values: Any) -> Any:
    """Give plain values, which a page holds without pandas; times as ISO text."""
    found = np.asarray(values)
    if found.dtype.kind == "M":
        return np.datetime_as_string(found.astype("datetime64[s]")).tolist()
    if found.dtype.kind == "f":  # NaN is null, which is a gap
        return [None if np.isnan(one) else float(f"{one:.6g}") for one in found.tolist()]
    return found.tolist()


def _merged(base: Layout, changes: Layout) -> Layout:
    merged = dict(base)
    for name, value in changes.items():
        known = merged.get(name)
        merged[name] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
