"""The charts of a report that show the data: volumes, labels and their delay, missing values, drift, correlations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving import report_tables as tables
from serving.report_charts import (
    CANDIDATES,
    DATA,
    DATA_LIGHT,
    ROW,
    WARM,
    Chart,
    Layout,
    Panel,
    band,
    bars,
    guide,
    line,
    lying_axis,
    lying_bars,
    title,
)
from serving.report_data import Archived, Events
from serving.report_topics import Names
from serving.report_words import seconds
from streams.pipeline import Task

MOST_BARS = 20
TICKS_S = (
    1e-3,
    1e-2,
    0.1,
    1,
    10,
    60,
    600,
    1_800,
    3_600,
    7_200,
    21_600,
    43_200,
    86_400,
    3 * 86_400,
    7 * 86_400,
    30 * 86_400,
)
MULTIPLES = 12
SMALL, LOW = 190, 240  # heights in px
PSI_SLIGHT, PSI_LARGE = 0.1, 0.25


def data_charts(archived: Archived, task: Task, names: Names) -> list[Chart]:
    """Draw all that is known of the data; what says nothing here (labels of a clustering) is left out."""
    events = archived.events
    has_labels = bool(np.isfinite(events.label_N).any())
    charts = [volume_chart(archived)]
    if has_labels:
        charts.append(label_chart(events, task))
    if np.isfinite(events.delay_us).any():
        charts.append(delay_chart(events))
    charts.append(missing_chart(events))
    charts += drift_charts(events, names)
    charts += category_charts(events, task, names)
    charts += correlation_charts(events, task)
    return [chart for chart in charts if chart.panels or chart.note]


def label_words(task: Task) -> str:
    """Say what the mean of labels is."""
    return "share of yes" if task.is_yes_or_no else "label"


def volume_chart(archived: Archived) -> Chart:
    """Draw events by day, parted by what became of their labels."""
    table = tables.volumes(archived)
    is_weekly = len(table) > 1 and (table.index[1] - table.index[0]).days == 7
    traces = [
        bars(table.index, table["set"], "with a label", DATA),
        bars(table.index, table.missing, "label missing", WARM),
    ]
    unit = "week" if is_weekly else "day"
    late = int(table.amended.sum()), int(table.retracted.sum())
    note = f"{late[0]:,} labels were amended and {late[1]:,} taken back later." if any(late) else ""
    layout = {"barmode": "stack", "bargap": 0.15, "yaxis": title(f"events a {unit}"), "hovermode": "x unified"}
    aid = f"Each bar is the events of one {unit} (UTC); red is those whose label never came in time."
    legend = [("with a label", DATA), ("label missing", WARM)]
    return Chart("Volume", aid, [Panel(traces, layout, LOW)], legend, note=note)


def label_chart(events: Events, task: Task) -> Chart:
    """Draw how labels change with time: the share of yes, the shares of classes, or mean and spread of numbers."""
    table = tables.labels_over_time(events, task)
    if task.classes:
        tints = [CANDIDATES[place % len(CANDIDATES)] for place in range(len(table.columns))]
        traces = [
            line(table.index, table[name], str(name), tint, stackgroup="one", line={"width": 0.5}, fillcolor=tint)
            for name, tint in zip(table.columns, tints, strict=True)
        ]
        layout: Layout = {"yaxis": title("share of labels", tickformat=".0%", range=[0, 1])}
        legend = list(zip(map(str, table.columns), tints, strict=True))
        aid = "The height of a colour is the share of that class among the events of that time."
        return Chart("Labels over time", aid, [Panel(traces, layout, LOW)], legend, is_wide=False)
    traces = [line(table.index, table["mean"], "mean", DATA)]
    if task.is_yes_or_no:
        layout = {"yaxis": title("share of yes", tickformat=".0%", rangemode="tozero")}
        aid = "The share of events whose label is yes, by the time of the event; a level that moves is drift."
    else:
        traces = [*band(table.index, table.low, table.high, "10 % to 90 %"), *traces]
        layout = {"yaxis": title("label")}
        aid = "The line is the mean label by the time of the event, the band holds the middle 80 % of labels."
    return Chart("Labels over time", aid, [Panel(traces, layout, LOW)], is_wide=False)


def delay_chart(events: Events) -> Chart:
    """Draw which share of labels has come after how long."""
    delay = tables.delays(events)
    shown = np.maximum(delay.to_numpy(), 1e-3)
    ticks = [one for one in TICKS_S if shown.min() / 2 <= one <= shown.max() * 2]
    text = [seconds(one) for one in delay]
    trace = line(shown, delay.index, "labels", DATA, text=text, hovertemplate="%{y:.1%} within %{text}<extra></extra>")
    axis = {"type": "log", "tickvals": ticks, "ticktext": [seconds(one) for one in ticks]}
    layout = {"xaxis": title("time from event to label", **axis), "yaxis": title("share of labels", tickformat=".0%")}
    middle, late = seconds(delay.loc[0.5]), seconds(delay.loc[0.99])
    aid = f"The curve says which share of labels has come after how long: half within {middle}, 99 % within {late}."
    return Chart("How late labels come", aid, [Panel([trace], layout, LOW)], is_wide=False)


def missing_chart(events: Events) -> Chart:
    """Draw the features that are missing in some events."""
    table = tables.missing_shares(events)
    some, full = table[table["all"] > 0].head(MOST_BARS), int((table["all"] == 0).sum())
    told = f"{full} of {len(table)} features always have a value."
    if not len(some):
        return Chart("Missing values", "Share of events in which a feature has no value.", [], note=told, is_wide=False)
    traces = [
        lying_bars(list(some.index), some["first"], DATA_LIGHT, name="first quarter"),
        lying_bars(list(some.index), some["last"], DATA, name="last quarter"),
    ]
    layout = {
        "xaxis": title("share of events", tickformat=".1~%", rangemode="tozero", nticks=6),
        "yaxis": lying_axis(list(some.index)),
    }
    aid = "Two bars a feature, of the first and the last quarter of the events: where they differ, something changed."
    legend = [("first quarter", DATA_LIGHT), ("last quarter", DATA)]
    panel = Panel(traces, layout, _height(len(some), 2))
    return Chart("Missing values", aid, [panel], legend, is_wide=False, note=told)


def drift_charts(events: Events, names: Names) -> list[Chart]:
    """Draw how much each feature has changed, and the distributions of those that did most."""
    index = tables.drift(events)
    if not len(index):
        return []
    top = index.head(MOST_BARS)
    tints = [WARM if one >= PSI_LARGE else DATA if one >= PSI_SLIGHT else DATA_LIGHT for one in top]
    layout = {
        "xaxis": title("population stability index", rangemode="tozero"),
        "yaxis": lying_axis(list(top.index)),
        "shapes": [guide("x", PSI_SLIGHT), guide("x", PSI_LARGE)],
    }
    aid = "How far a feature's last quarter is from its first: under 0.1 is no change, from 0.25 on (red) a large one."
    strength = Chart(
        "Drift of features",
        aid,
        [Panel([lying_bars(list(top.index), top, tints)], layout, _height(len(top)))],
        is_wide=False,
    )
    panels = [_distribution_panel(events, name, index[name], names) for name in index.index[:MULTIPLES]]
    aid = (
        "Share of events by value in the first (light) and the last quarter (dark); those that changed most come first."
    )
    legend = [("first quarter", DATA_LIGHT), ("last quarter", DATA)]
    return [strength, Chart("Distributions, then and now", aid, panels, legend)]


def category_charts(events: Events, task: Task, names: Names) -> list[Chart]:
    """Draw the largest values of each category feature."""
    panels = []
    for column in events.columns:
        table = tables.categories(events, column.name, names) if column.is_category else None
        if table is None or not len(table):
            continue
        told = [f"{share:.0%}" for share in table.share]
        if not task.classes and np.isfinite(table["mean"]).any():
            form = "{:.0%} yes" if task.is_yes_or_no else "mean {:.3g}"
            told = [f"{share}, {form.format(mean)}" for share, mean in zip(told, table["mean"], strict=True)]
        most = float(table.share.max())
        trace = lying_bars(
            list(table.index), table.share, DATA_LIGHT, text=told, textposition="outside", cliponaxis=False
        )
        axis = title("share of events", tickformat=".0%", range=[0, most * 1.6])
        layout = {"xaxis": axis, "yaxis": lying_axis(list(table.index))}
        panels.append(Panel([trace], layout, _height(len(table)), column.name))
    mean = "" if task.classes or task.is_unsupervised else f", and behind it the {label_words(task)} among them"
    aid = f"The most frequent values of each category, with their share of all events{mean}."
    return [Chart("Largest categories", aid, panels)] if panels else []


def correlation_charts(events: Events, task: Task) -> list[Chart]:
    """Draw rank correlations as a map."""
    table = tables.correlations(events, task)
    size = len(table)
    if size < 2:
        return []
    names, values = list(table.columns), table.to_numpy().round(3)
    values[np.triu_indices(size, 1)] = np.nan
    colours = [[0.0, "#b2432f"], [0.5, "#f7f7f7"], [1.0, "#2f5d8a"]]
    form = {
        "colorscale": colours,
        "zmin": -1,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 8, "outlinewidth": 0},
    }
    cells = [[None if np.isnan(one) else float(one) for one in row] for row in values]
    places = list(range(size))
    trace = {"type": "heatmap", "z": cells, "x": places, "y": places, **form, "hoverongaps": False}
    trace["customdata"] = [[f"{one} and {other}" for other in names] for one in names]
    trace["hovertemplate"] = "%{customdata}: %{z:.2f}<extra></extra>"
    layout = {
        "xaxis": {"tickvals": places, "ticktext": names, "showgrid": False, "tickangle": -45},
        "yaxis": lying_axis(names, range=[size - 0.5, -0.5]),
    }
    aid = "Spearman's rank correlation: blue rises together, red falls as the other rises, white is no relation."
    return [Chart("Correlations of numbers", aid, [Panel([trace], layout, 150 + 22 * size)])]


def _distribution_panel(events: Events, feature: str, index: float, names: Names) -> Panel:
    table = tables.distribution(events, feature, names)
    is_category = next(column.is_category for column in events.columns if column.name == feature)
    layout: Layout = {"yaxis": {"tickformat": ".1~%", "rangemode": "tozero", "nticks": 4}, "hovermode": "x unified"}
    values = _texts(table.index) if is_category else table.index
    if is_category or len(table) < tables.HISTOGRAM_BINS:
        traces = [bars(values, table["first"], "first", DATA_LIGHT), bars(values, table["last"], "last", DATA)]
        layout |= {"barmode": "group", "bargap": 0.25}
        layout |= {"xaxis": {"type": "category", "tickfont": {"size": 10}, "showgrid": False}} if is_category else {}
    else:
        step = {"shape": "hvh"}
        filled = {"fill": "tozeroy", "fillcolor": "rgba(152,179,212,.35)"}
        traces = [
            line(values, table["first"], "first", DATA_LIGHT, line=step, **filled),
            line(values, table["last"], "last", DATA, line=step),
        ]
    return Panel(traces, layout, SMALL, f"{feature} · PSI {index:.2f}")


def _texts(names: Sequence[str]) -> list[str]:
    return [one if len(one) <= 12 else f"{one[:11]}…" for one in names]


def _height(rows: int, bars_each: int = 1) -> int:
    return 84 + rows * (ROW if bars_each == 1 else ROW + 8)
