"""What is said of a candidate in figures: in the version it publishes, and to who watches it."""

from __future__ import annotations

import math

from models.blocks import Scoreboard
from models.cost import Cost
from models.pending import COUNTERS
from models.scoring import Scores
from models.version import About, Costs


def about_version(scores: Scores, cost: Cost, size_bytes: int, parent: str) -> About:
    """Give what there is to say of a model when it is published as the successor of `parent`."""
    costs = Costs(_known(cost.predict_us), _known(cost.predict_p99_us) or None, _known(cost.learn_us), size_bytes)
    spans = scores.since_start()._asdict(), scores.rolling()._asdict()
    start, rolling = ({name: _known(value) for name, value in span.items()} for span in spans)
    start |= {f"loss_{delay}": _known(loss) for delay, (labels, loss) in scores.by_delay().items() if labels}
    return About(start, rolling, costs, parent)


def watched_figures(scores: Scores, board: Scoreboard) -> dict[str, float]:
    """Give quality by figure and span, and the counters of the scoreboard. Costs about 2 ms."""
    spans = {"start": scores.since_start(), "rolling": scores.rolling()}
    values = {
        f"{name}_{span}": float(value) for span, quality in spans.items() for name, value in quality._asdict().items()
    }
    values.update({name: float(board.count(name)) for name in COUNTERS})
    values["pending"] = board.pending()
    return values


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 9) if math.isfinite(value) else None
