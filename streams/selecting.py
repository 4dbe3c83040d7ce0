"""What `[select]` declares: by which loss candidates are compared, how sure one must be, what else they must keep."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from streams.durations import DAY_US

Metric = Literal["log_loss", "brier", "mae", "rank_loss", "inertia"]

METRICS: dict[str, tuple[Metric, ...]] = {  # of each kind of task, the usual one first
    "binary": ("log_loss", "brier"),
    "multiclass": ("log_loss",),
    "regression": ("mae",),
    "anomaly": ("rank_loss",),
    "clustering": ("inertia",),
}
LARGEST: dict[Metric, float] = {  # loss there can be; evidence needs one, so for others the file declares a cap
    "log_loss": -math.log(0.001),  # no probability counts as less
    "brier": 1.0,
    "rank_loss": 1.0,
}


class Select(msgspec.Struct, frozen=True):
    """How the champion is chosen.

    Attributes:
        metric: the loss that is compared (docs/evidence.md).
        alpha: the chance of any false promotion among all challengers of a reign. Smaller takes more events.
        margin: a challenger must be better by more than this, in units of the loss.
        span_us: event time that must be seen before a promotion, as long as what repeats itself: a day, a week.
        max_age_us: of event time; a block waits no longer for its pair, and a candidate whose scores are further behind
            is not eligible; nor does a champion stay that could publish no version for so long by the wall clock.
        max_predict_ms: the most that one prediction may take (99th percentile), None: as long as it takes.
        max_model_mib: the largest model, None: any.
        max_training_s: the longest training of a model that is retrained, None: any.
        cooldown_us: of event time after a promotion, in which there is no other one.
        cap: the largest loss of a metric that has none itself; larger ones count as this.
        web: host and port of this machine at which the selector shows its standings, None: nowhere.
    """

    metric: Metric = "log_loss"
    alpha: float = 0.05
    margin: float = 0.0
    span_us: int = DAY_US
    max_age_us: int = DAY_US
    max_predict_ms: float | None = None
    max_model_mib: float | None = None
    max_training_s: float | None = None
    cooldown_us: int = 0
    cap: float | None = None
    web: tuple[str, int] | None = None

    @property
    def largest_loss(self) -> float:
        """The largest loss there can be, and so the largest difference between two."""
        return LARGEST[self.metric] if self.cap is None else self.cap
