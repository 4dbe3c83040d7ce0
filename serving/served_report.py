"""What `millrace models` prints of answers: a row below the candidates, and who gave them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from consumers.served_figures import ServedFigures
from serving.table import decimal, duration, figure, number

MOST_VERSIONS = 3  # that are named, those that answered last


def served_row(served: ServedFigures, loss: str, shown: Sequence[str]) -> list[str]:
    """Lay out the row `served` of the league, without its name."""
    return [
        "-",
        decimal(served.figures.get(loss, math.nan)),
        decimal(served.rolling.get(loss, math.nan)),
        *(figure(name, served.figures.get(name, math.nan)) for name in shown),
        "-",
        "-",
        "-",
        duration(max(0.0, time.time() - served.time_us / 1e6)),
        "answered",
    ]


def served_words(served: ServedFigures) -> str:
    """Say how many answers were scored, what their staleness cost, and which models gave them."""
    by_model = ", ".join(f"{name} {number(count)}" for name, count in served.models.items()) or "nobody yet"
    newest = served.versions[: -MOST_VERSIONS - 1 : -1]
    last = ", ".join(f"{one.model}@{one.version} {number(one.answers)}" for one in newest)
    cost = served.staleness_rolling.cost
    lines = [
        f"Served: {number(served.events)} answers scored, {number(served.unanswered)} events without an answer; "
        f"answered by {by_model}" + (f" (last: {last})" if last else ""),
    ]
    if cost is not None:
        lines.append(
            f"Staleness: an answer lost {served.staleness.cost or 0.0:+.4f} more than its model's own prediction, "
            f"{cost:+.4f} over the last {number(served.staleness_rolling.events)} compared"
        )
    return "\n".join(lines)
