"""The charts of a report that belong to one kind of task: curves of classes, numbers against labels, alerts, clusters.

Of a yes-or-no label P.scores tells the probability of every candidate: the log loss of a known label is one-to-one with
it (kept within 0.001 to 0.999, as losses are). Of other tasks only what was served is known in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from serving import report_tables as tables
from serving.report_charts import (
    DATA,
    DATA_LIGHT,
    FAINT,
    WARM,
    Chart,
    Layout,
    Panel,
    Trace,
    band,
    bars,
    guide,
    line,
    lying_axis,
    points,
    title,
)
from serving.report_curves import Curve, calibration, confusion, precision_recall, roc_curve
from serving.report_data import Events
from serving.report_topics import Answers, Losses
from serving.report_words import share
from streams.pipeline import Task

SQUARE = 340  # height in px
MOST_POINTS = 2_500
HISTOGRAM_BINS = 40
LEAST, LEAST_SHARE = 20, 0.002  # predictions of a point, and their share of all
DIGITS = 6  # of a probability from a float32 loss; more would order equal ones by their label
MOST_TEXTS = 8  # classes up to which cells are told in numbers

Colours = Mapping[str, str]
Floats = npt.NDArray[np.float64]
Judged = dict[str, tuple[Floats, npt.NDArray[np.bool_]]]
"""Of each candidate what it said of M events, and whether the label is yes."""


def task_charts(
    task: Task, events: Events, losses: Mapping[str, Losses], answers: Answers | None, colours: Colours
) -> list[Chart]:
    """Draw what says most of this kind of task."""
    if task.kind == "binary":
        judged = probabilities(events, losses)
        return [
            *curve_charts(judged, colours),
            *calibration_charts(judged, colours),
            *confusion_charts(task, events, answers),
        ]
    if answers is None or not answers.event_M.size:
        return []
    if task.kind == "multiclass":
        return confusion_charts(task, events, answers)
    if task.kind == "regression":
        return number_charts(events, answers)
    return anomaly_charts(events, answers, colours) if task.kind == "anomaly" else cluster_charts(events, answers)


def probabilities(events: Events, losses: Mapping[str, Losses]) -> Judged:
    """Give what each candidate said of the events: exp(-loss) is the probability of the label they were scored with."""
    found: Judged = {}
    for name, one in losses.items():
        is_yes_M = events.first_N[one.event_M] > 0.5
        given_M = np.exp(-one.loss_M)
        known = np.isfinite(events.first_N[one.event_M])
        said_M = np.where(is_yes_M, given_M, 1.0 - given_M).round(DIGITS)
        found[name] = said_M[known], is_yes_M[known]
    return found


def curve_charts(judged: Judged, colours: Colours) -> list[Chart]:
    """Draw ROC and precision against recall."""
    chance = line([0, 1], [0, 1], "chance", FAINT, line={"width": 1, "dash": "dot"}, hoverinfo="skip")
    aid = (
        "Share of yes that is found against the share of no that is taken for yes; nearer to the upper left is better."
    )
    labels = "no taken for yes", "yes found"
    charts = [_curves("ROC", aid, judged, colours, roc_curve, labels, [chance], "AUC")]
    aid = "How many alarms are right against how many yes are found, by threshold; upper right is better."
    labels = "recall (yes found)", "precision (alarms that are right)"
    charts.append(_curves("Precision and recall", aid, judged, colours, precision_recall, labels, [], "AP"))
    return [chart for chart in charts if chart.panels]


def calibration_charts(judged: Judged, colours: Colours) -> list[Chart]:
    """Draw how often a yes came against what was said."""
    traces = [line([0, 1], [0, 1], "exact", FAINT, line={"width": 1, "dash": "dot"}, hoverinfo="skip")]
    legend = []
    for name, (said_M, is_yes_M) in judged.items():
        found = calibration(said_M, is_yes_M)
        kept = found.count_K >= max(LEAST, LEAST_SHARE * said_M.size)
        text = [f"{count:,} events" for count in found.count_K[kept].tolist()]
        shown = {"mode": "lines+markers", "text": text, "marker": {"size": 7, "color": colours[name]}}
        hover = "said %{x:.1%}, came %{y:.1%} (%{text})"
        traces.append(line(found.said_K[kept], found.came_K[kept], name, colours[name], hovertemplate=hover, **shown))
        legend.append((f"{name} (error {found.error:.3f})", colours[name]))
    if not legend:
        return []
    aid = (
        "Of all events for which about 30 % was said, about 30 % should turn out yes: good lines follow the dotted one."
    )
    layout = _square("probability said", "share that was yes")
    return [Chart("Calibration", aid, [Panel(traces, layout, SQUARE)], legend, is_wide=False)]


def confusion_charts(task: Task, events: Events, answers: Answers | None) -> list[Chart]:
    """Draw labels against what was served."""
    if answers is None or not answers.event_M.size:
        return []
    names = list(task.classes) or ["no", "yes"]
    counts = confusion(events.label_N[answers.event_M], answers.prediction_M, len(names))
    if not counts.sum():
        return []
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    places = list(range(len(names)))
    trace: Trace = {"type": "heatmap", "z": shares.round(4).tolist(), "x": places, "y": places, "showscale": False}
    trace |= {"zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2, "colorscale": [[0, "#f4f6f9"], [1, DATA]]}
    trace["hovertemplate"] = "%{z:.1%} of this label<extra></extra>"
    if len(names) <= MOST_TEXTS:
        cells = zip(counts.tolist(), shares.tolist(), strict=True)
        trace["text"] = [[f"{n:,} · {one:.0%}" for n, one in zip(*row, strict=True)] for row in cells]
        trace["texttemplate"] = "%{text}"
    axis = {"tickvals": places, "ticktext": names, "showgrid": False}
    layout = {
        "xaxis": title("served", **axis),
        "yaxis": title("label", **lying_axis(names, range=[len(names) - 0.5, -0.5])),
    }
    accuracy = float(np.trace(counts) / counts.sum())
    above = f", yes from {task.threshold:g} on" if task.kind == "binary" else ""
    said = f"{counts.sum():,} answers, {share(accuracy)} right{above}."
    aid = "Each row is the events with that label, parted by what was served; the diagonal is right."
    return [
        Chart(
            "Confusion of what was served",
            aid,
            [Panel([trace], layout, max(260, 120 + 34 * len(names)))],
            is_wide=False,
            note=said,
        )
    ]


def number_charts(events: Events, answers: Answers) -> list[Chart]:
    """Draw predicted numbers against labels, and how they differ over time."""
    label_M, said_M = events.label_N[answers.event_M], answers.said_MS[:, 0]
    known = np.flatnonzero(np.isfinite(label_M) & np.isfinite(said_M))
    if not known.size:
        return []
    shown = known[np.linspace(0, known.size - 1, min(MOST_POINTS, known.size)).astype(np.int64)]
    both = np.concatenate([label_M[shown], said_M[shown]])
    low, high = np.quantile(both, [0.002, 0.998]).tolist()
    ends = [low, high]
    cloud = points(label_M[shown], said_M[shown], "events", DATA, 5, opacity=0.35, marker={"line": {"width": 0}})
    exact = line(ends, ends, "exact", FAINT, line={"width": 1, "dash": "dot"}, hoverinfo="skip")
    layout: Layout = {"xaxis": title("label", range=ends), "yaxis": title("served", range=ends)}
    aid = "A point is an event: what was served against what came. On the dotted line it was exact."
    charts = [Chart("Served against label", aid, [Panel([cloud, exact], layout, SQUARE)], is_wide=False)]
    residual_M = (said_M - label_M)[known]
    charts.append(_histogram("Errors", "Served minus label; a peak beside 0 is a bias.", residual_M, "error"))
    table = tables.values_over_time(events.time_us_N[answers.event_M][known], residual_M)
    traces = [*band(table.index, table.low, table.high, "80 %"), line(table.index, table["mean"], "median", DATA)]
    aid = "The line is the median error by time, the band holds the middle 80 %; it should lie around 0."
    layout = {"yaxis": title("served minus label"), "shapes": [guide("y", 0.0)]}
    return [*charts, Chart("Errors over time", aid, [Panel(traces, layout, 260)])]


def anomaly_charts(events: Events, answers: Answers, colours: Colours) -> list[Chart]:
    """Draw scores and alerts, and how anomalies ranked where labels are known."""
    score_M, label_M = answers.said_MS[:, 0], events.label_N[answers.event_M]
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    sides = {
        "normal": (label_M <= 0.5, DATA_LIGHT),
        "anomaly": (label_M > 0.5, WARM),
        "no label": (np.isnan(label_M), FAINT),
    }
    shown = {name: (score_M[side], colour) for name, (side, colour) in sides.items() if side.any()}
    traces = [
        line(
            (edges[1:] + edges[:-1]) / 2, np.histogram(part, edges)[0] / part.size, name, colour, line={"shape": "hvh"}
        )
        for name, (part, colour) in shown.items()
    ]
    layout = {"xaxis": title("score served"), "yaxis": title("share of events", tickformat=".0%")}
    aid = "How scores spread, each kind of event by itself; the further apart the better the model tells them."
    legend = [(name, colour) for name, (_, colour) in shown.items()]
    charts = [Chart("Scores", aid, [Panel(traces, layout, SQUARE)], legend, is_wide=False)]
    known = np.isfinite(label_M)
    if known.any():
        name = answers.version_M[0].partition("@")[0]
        judged = {name: (score_M[known], label_M[known] > 0.5)}
        charts += curve_charts(judged, colours)
    alerts = answers.prediction_M
    table = tables.values_over_time(events.time_us_N[answers.event_M], score_M)
    alert = tables.share_over_time(events.time_us_N[answers.event_M], alerts)
    trace = line(alert.index, alert, "alerts", WARM)
    aid = "The share of events that raised an alert, by time."
    charts.append(
        Chart(
            "Alerts over time",
            aid,
            [Panel([trace], {"yaxis": title("share of events", tickformat=".1~%", rangemode="tozero")}, 240)],
        )
    )
    traces = [*band(table.index, table.low, table.high, "80 %"), line(table.index, table["mean"], "median", DATA)]
    aid = "Median score by time, and the middle 80 %; a moving level changes what alerts mean."
    return [*charts, Chart("Scores over time", aid, [Panel(traces, {"yaxis": title("score")}, 240)])]


def cluster_charts(events: Events, answers: Answers) -> list[Chart]:
    """Draw how large clusters are over time, and how far events lie from theirs."""
    time_us = events.time_us_N[answers.event_M]
    table = tables.shares_over_time(time_us, answers.prediction_M)
    tints = dict(zip(table.columns, _tints(len(table.columns)), strict=True))
    traces = [
        line(
            table.index,
            table[name],
            f"cluster {name}",
            tints[name],
            stackgroup="one",
            line={"width": 0.5},
            fillcolor=tints[name],
        )
        for name in table.columns
    ]
    layout = {"yaxis": title("share of events", tickformat=".0%", range=[0, 1])}
    aid = "The height of a colour is the share of events that were put into that cluster at that time."
    legend = [(f"cluster {name}", colour) for name, colour in tints.items()]
    charts = [Chart("Clusters over time", aid, [Panel(traces, layout, 280)], legend)]
    table = tables.values_over_time(time_us, answers.said_MS[:, 0])
    traces = [*band(table.index, table.low, table.high, "80 %"), line(table.index, table["mean"], "median", DATA)]
    aid = "How far events lie from the mean of their cluster, in standard deviations: median and middle 80 %."
    charts.append(Chart("Distance over time", aid, [Panel(traces, {"yaxis": title("distance (deviations)")}, 240)]))
    return charts


def _curves(
    name: str, aid: str, judged: Judged, colours: Colours, curve: Callable[[Floats, npt.NDArray[np.bool_]], Curve],
    labels: tuple[str, str], below: list[dict[str, Any]], area: str,
) -> Chart:  # fmt: skip
    traces, legend = list(below), []
    for candidate, (said_M, is_yes_M) in judged.items():
        found = curve(said_M, is_yes_M)
        if found.x_P.size:
            traces.append(line(found.x_P, found.y_P, candidate, colours[candidate]))
            legend.append((f"{candidate} ({area} {found.area:.3f})", colours[candidate]))
    return Chart(name, aid, [Panel(traces, _square(*labels), SQUARE)] if legend else [], legend, is_wide=False)


def _square(x: str, y: str) -> Layout:
    form = {"range": [-0.01, 1.01], "tickformat": ".0%", "dtick": 0.25}
    return {"xaxis": title(x, **form), "yaxis": title(y, **form)}


def _histogram(name: str, aid: str, value_M: Floats, what: str) -> Chart:
    low, high = np.quantile(value_M, [0.005, 0.995]).tolist()
    counts, edges = np.histogram(np.clip(value_M, low, high), HISTOGRAM_BINS)
    trace = bars((edges[1:] + edges[:-1]) / 2, counts / counts.sum(), what, DATA)
    layout = {
        "xaxis": title(what),
        "yaxis": title("share of events", tickformat=".0%"),
        "bargap": 0.05,
        "shapes": [guide("x", 0.0)],
    }
    return Chart(name, aid, [Panel([trace], layout, SQUARE)], is_wide=False)


def _tints(count: int) -> list[str]:
    """Give blues from dark to light, so that clusters are not taken for candidates."""
    lightness = np.linspace(0.0, 1.0, max(2, count))
    return [f"rgb({61 + 150 * one:.0f},{90 + 130 * one:.0f},{128 + 110 * one:.0f})" for one in lightness.tolist()][
        :count
    ]
