"""What a process tells Prometheus of models: how good they are, what they cost, and who reigns. See metrics.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from streams.metric_families import BASE, Families

Span = Literal["start", "rolling"]


class ModelMetrics:
    """The series of models; each is of the candidate that the metrics are of.

    Attributes:
        families: of all series.
    """

    families: Families
    _base: tuple[str, str, str]
    _clock: Callable[[], float]

    # Models

    def scored(self, span: Span, figures: Mapping[str, float]) -> None:
        """Set a candidate's figures since its start or over the rolling window."""
        for figure, value in figures.items():
            self.families.quality.labels(*self._base, figure, span).set(value)

    def scored_by_delay(self, found: Mapping[str, tuple[int, float]]) -> None:
        """Set how many labels since the start took so long, and their mean loss, NaN where there are none."""
        for delay, (labels, loss) in found.items():
            self.families.delay_labels.labels(*self._base, delay).set(labels)
            self.families.delay_loss.labels(*self._base, delay).set(loss)

    def staleness(self, cost: Mapping[Span, float]) -> None:
        """Set how much more answers lost than the candidates that gave them, NaN where nothing was compared."""
        for span, value in cost.items():
            self.families.staleness.labels(*self._base, span).set(value)

    def served(self, states: Mapping[str, int], answers: Mapping[str, int]) -> None:
        """Set what became of the events that were to be answered, and how many answers each model has given."""
        for state, rows in states.items():
            self.families.served_events.labels(*self._base, state).set(rows)
        for model, given in answers.items():
            self.families.served_answers.labels(*self._base, model).set(given)

    def learned(self, examples: int, size_bytes: int) -> None:
        """Set how many examples a candidate has learned, and how large it is."""
        self.families.learned.labels(*self._base).set(examples)
        self.families.model_bytes.labels(*self._base).set(size_bytes)

    def worked(self, spent_s: tuple[float, float], row_s: tuple[float, float]) -> None:
        """Count CPU time that a candidate has spent predicting and learning; set what one row of each costs now."""
        for what, spent, one in zip(("predict", "learn"), spent_s, row_s, strict=True):
            self.families.model_cpu.labels(*self._base, what).inc(spent)
            self.families.model_row.labels(*self._base, what).set(one)

    def quarantined(self, *, is_set_aside: bool) -> None:
        """Say whether a candidate is in quarantine."""
        self.families.quarantine.labels(*self._base).set(is_set_aside)

    def drifted(self, detector: str, feature: str, direction: str, alarms: int) -> None:
        """Count alarms: of a feature, or (it is empty) of the candidate's loss, which went up or down."""
        self.families.drift_alarms.labels(*self._base, detector, feature, direction).inc(alarms)

    def feature_drift(self, index: Mapping[str, float]) -> None:
        """Set how far each feature is from its reference; NaN while that is not known."""
        for feature, value in index.items():
            self.families.feature_drift.labels(*self._base, feature).set(value)

    def serving(self, lineage: int, examples: int, made_us: int) -> None:
        """Set the version that answers now; its age is computed at each scrape."""
        self.families.version_lineage.labels(*self._base).set(lineage)
        self.families.version_examples.labels(*self._base).set(examples)
        self.families.version_age.labels(*self._base).set_function(lambda: self._clock() - made_us / 1e6)

    # Selecting

    def evidence(self, challenger: str, bound: float | None) -> None:
        """Set what is proven of a challenger, NaN as long as nothing is."""
        self.families.evidence_bound.labels(*self._base, challenger).set(math.nan if bound is None else bound)

    def uncompared(self, challenger: str, blocks: int) -> None:
        """Count a challenger's blocks that had no pair."""
        self.families.uncompared.labels(*self._base, challenger).inc(blocks)

    def unchallenged(self, challenger: str) -> None:
        """Drop the series of a challenger that is champion now."""
        mine = {**dict(zip(BASE, self._base, strict=True)), "challenger": challenger}
        self.families.evidence_bound.remove_by_labels(mine)

    def promoted(self, why: str, times: int) -> None:
        """Count changes of the champion."""
        self.families.promotions.labels(*self._base, why).inc(times)

    def guard(self, fill: float | None, expected_delay_events: float | None) -> None:
        """Set how near the guard is to its alarm, and how soon it would notice a doubled loss; NaN: it still learns."""
        self.families.guard_fill.labels(*self._base).set(math.nan if fill is None else fill)
        delay = math.nan if expected_delay_events is None else expected_delay_events
        self.families.guard_delay.labels(*self._base).set(delay)

    def not_serving(self) -> None:
        """Drop the series of a version, so that none shows what answers no more."""
        mine, of_all = dict(zip(BASE, self._base, strict=True)), self.families
        for family in (of_all.version_lineage, of_all.version_examples, of_all.version_age):
            family.remove_by_labels(mine)

    def champion(self, *, is_reigning: bool) -> None:
        """Say whether the candidate is to answer, by the decisions there are."""
        self.families.champion.labels(*self._base).set(is_reigning)

    def predictions(self, standing: str, rows: int) -> None:
        """Count answers of a candidate: as the champion, in its place (fallback), or for its share (split)."""
        self.families.predictions.labels(*self._base, standing).inc(rows)
