"""The charts of a report that compare candidates: losses over time and by slice, cost, training, importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.version import Version
from serving import report_tables as tables
from serving.report_charts import FAINT, ROW, Chart, Panel, Trace, line, lying_axis, lying_bars, points, title
from serving.report_data import Events
from serving.report_league import Candidate
from serving.report_models import Importance, training_of
from serving.report_tables import Slices
from serving.report_topics import Losses, Names
from serving.report_words import micros, seconds, size

Colours = Mapping[str, str]
SLICED = 6  # features whose slices are shown
MOST_FEATURES = 12  # of a chart of importance
TICKS_US = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
SQUARE = 340  # height in px
LARGEST_PX = 34.0


def loss_chart(losses: Mapping[str, Losses], colours: Colours, loss_name: str) -> Chart:
    """Draw each candidate's loss by time."""
    table = tables.losses_over_time(losses)
    traces = [line(table.index, table[name], name, colours[name]) for name in reversed(table.columns)]  # first on top
    layout = {"yaxis": title(loss_name), "hovermode": "x unified"}
    aid = "Lower is better. Each line is what a candidate lost on the events of that time, said before the label came."
    return Chart("Loss over time", aid, [Panel(traces, layout)], _legend(losses, colours))


def slice_charts(
    events: Events,
    losses: Mapping[str, Losses],
    features: Sequence[str],
    names: Names,
    colours: Colours,
    loss_name: str,
) -> list[Chart]:
    """Draw each candidate's loss by the values of some features, and by how late the label came."""
    parts = [tables.slice_by(events, feature, names) for feature in features[:SLICED]]
    panels = [_slice_panel(part, losses, colours, loss_name) for part in parts if len(part.names) > 1]
    legend, charts = _legend(losses, colours), []
    if panels:
        aid = (
            "A point is a candidate's mean loss among the events of that row; a row that lies right is harder for all."
        )
        charts.append(Chart("Loss by slice", aid, panels, legend))
    if np.unique(events.delay_us[np.isfinite(events.delay_us)]).size > 1:
        panel = _slice_panel(tables.slice_by_delay(events), losses, colours, loss_name)._replace(name="")
        aid = "By how long the label took: where late labels are harder, early figures look better than they are."
        charts.append(Chart("Loss by label delay", aid, [panel], legend, is_wide=False))
    return charts


def cost_charts(candidates: Sequence[Candidate], colours: Colours, loss_name: str) -> list[Chart]:
    """Draw loss against the time of a prediction, with memory as the size of a point."""
    known = [one for one in candidates if math.isfinite(one.judged) and one.predict_us > 0.0]
    if len(known) < 2:
        return []
    traces = [_cost_point(one, colours[one.name]) for one in known]
    times = [one.predict_us for one in known]
    ticks = [one for one in TICKS_US if min(times) / 2 <= one <= max(times) * 2]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [micros(one) for one in ticks]}
    layout = {"xaxis": title("CPU time of a prediction", **axis), "yaxis": title(loss_name)}
    aid = "Best is low and left: little loss for little time. Larger points take more memory."
    legend = [(one.name, colours[one.name]) for one in known]
    return [Chart("Loss against cost", aid, [Panel(traces, layout, SQUARE)], legend, is_wide=False)]


def importance_charts(found: Sequence[Importance], colours: Colours) -> list[Chart]:
    """Draw which features each version needs."""
    panels = []
    for one in found:
        order = np.argsort(-one.mean_F, kind="stable")[:MOST_FEATURES]
        names = [one.names[at] for at in order.tolist()]
        errors = {"type": "data", "array": one.error_F[order].tolist(), "color": FAINT, "thickness": 1, "width": 0}
        candidate = one.version.partition("@")[0]
        trace = lying_bars(names, one.mean_F[order].round(6), colours[candidate], error_x=errors)
        layout = {"xaxis": title(f"rise of {one.measure}", nticks=5), "yaxis": lying_axis(names)}
        panels.append(Panel([trace], layout, 70 + ROW * len(names), one.version))
    if not panels:
        return []
    aid = "How much worse a version does when one feature's values are shuffled among the events; 0 is not needed."
    return [Chart("Which features matter", aid, panels, note=importance_note(found))]


def importance_note(found: Sequence[Importance]) -> str:
    """Say which versions were judged on events they had been trained on."""
    seen = [one.version for one in found if not one.is_unseen]
    unseen = [one.version for one in found if one.is_unseen]
    parts = [f"{', '.join(unseen)}: judged on events behind those trained on."] if unseen else []
    if seen:
        told = "judged on the newest events, most likely learned from already"
        parts.append(f"{', '.join(seen)}: {told}, so bars say what a model uses, not how it would do on new events.")
    return " ".join(parts)


def training_charts(newest: Mapping[str, Version | None], colours: Colours) -> list[Chart]:
    """Draw how trainings went: the loss of each epoch on what was trained on and on what was held back."""
    panels = []
    for name, version in newest.items():
        training = training_of(version) if version else None
        if version is None or training is None or not training.curve:
            continue
        trained, held_back = (list(side) for side in zip(*training.curve, strict=True))
        epochs = list(range(1, len(trained) + 1))
        best = int(np.nanargmin(held_back))
        traces = [
            line(epochs, trained, "trained on", FAINT, line={"dash": "dot"}),
            line(epochs, held_back, "held back", colours[name]),
            points([epochs[best]], [held_back[best]], "best", colours[name]),
        ]
        layout: dict[str, Any] = {
            "xaxis": title("epoch", rangemode="tozero"),
            "yaxis": title("loss"),
            "hovermode": "x unified",
        }
        panels.append(
            Panel(traces, layout, 240, f"{version.name} · {training.rows:,} rows, {seconds(training.seconds)}")
        )
    if not panels:
        return []
    aid = (
        "Dotted is the loss on what was trained on, full that on later events held back; the point is the model taken."
    )
    return [Chart("Trainings of batch candidates", aid, panels)]


def _slice_panel(part: Slices, losses: Mapping[str, Losses], colours: Colours, loss_name: str) -> Panel:
    table = tables.loss_by(part, losses)
    rows = [f"{name} ({count:,})" for name, count in zip(table.index, table.events, strict=True)]
    places = list(range(len(rows)))
    traces = [
        points(table[name], places, name, colours[name], customdata=rows, hovertemplate="%{customdata}: %{x:.4g}")
        for name in reversed(list(losses))  # the first on top
    ]
    axis = lying_axis(list(part.names), showgrid=True)
    return Panel(traces, {"xaxis": title(loss_name, nticks=6), "yaxis": axis}, 70 + 30 * len(rows), part.feature)


def _cost_point(one: Candidate, colour: str) -> Trace:
    told = f"{one.judged:.4g} at {micros(one.predict_us)}, {size(one.size_bytes)}"
    return points([one.predict_us], [one.judged], one.name, colour, _area(one.size_bytes), hovertemplate=told)


def _area(size_bytes: float) -> float:
    """Give the diameter of a point, from 8 px at 1 KiB to 34 px at 1 GiB."""
    kib = max(1.0, (size_bytes if np.isfinite(size_bytes) else 0.0) / 1024)
    return 8.0 + (LARGEST_PX - 8.0) * min(1.0, float(np.log10(kib)) / 6.0)


def _legend(losses: Mapping[str, Losses], colours: Colours) -> list[tuple[str, str]]:
    return [(name, colours[name]) for name in losses]
