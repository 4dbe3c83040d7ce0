"""What a candidate watches for drift, and what an alarm does to it.

Its own losses are watched as they settle; the champion's process watches the features too, once for all candidates:
it reads the rows anyway, with the columns that the model which answers is given. An alarm is a record on P.decisions,
named by candidate, detector, feature, source and number: a repeat after a crash is equal to what came before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.drift import Alarm, LossDrift
from models.drift_psi import FeatureDrift
from models.learner import Actions, Matrix, State, Vector
from models.pending import Rows
from streams.drift import RELEARN_ROWS, Drift, OnDrift
from streams.frames import Column, Outgoing
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline
from streams.records import pack

LOG = logging.getLogger("consumers.drifting")

Direction = Literal["up", "down", ""]
Bools = npt.NDArray[np.bool_]


class DriftRecord(msgspec.Struct, frozen=True, tag="drift", tag_field="decision"):
    """A record of P.decisions: a detector's alarm at one example.

    Attributes:
        feature: the column that drifted; empty where it is the candidate's loss.
        direction: of the loss; empty of a feature.
        lineage, examples: the model's version at this example, before any action.
        source, number, time_us: of the row that showed it: of a loss the label row, of a feature the event row.
        value, threshold: what the detector measured, and from where on that is an alarm.
        action: what was done: the model began its next lineage (`reset`, `relearn`), or `retrain` is asked for.
    """

    candidate: str
    detector: str
    feature: str
    direction: Direction
    lineage: int
    generation: int
    examples: int
    source: int
    number: int
    time_us: int
    value: float
    threshold: float
    action: OnDrift


class ModelNow(NamedTuple):
    """The model before the rows at hand are learned."""

    candidate: str
    lineage: int
    generation: int
    examples: int


class Alarmed(NamedTuple):
    """An alarm's record, and the row of the batch that raised it."""

    row: int
    record: DriftRecord


class _Finding(NamedTuple):
    """What a detector says of a row."""

    row: int
    detector: str
    feature: str
    direction: Direction
    value: float
    threshold: float
    action: OnDrift


class Recent:
    """The last examples that were learned, in a ring: what a model is relearned from."""

    def __init__(self, rows: int, features: int) -> None:
        """Make a ring of so many rows."""
        self._X_NF = np.zeros((rows, features))
        self._y_N = np.zeros(rows)
        self._learned = 0

    def add(self, X_BF: Matrix, y_B: Vector) -> None:
        """Keep these, the oldest first; the oldest of all make room."""
        size = self._y_N.size
        X_BF, y_B, skipped = X_BF[-size:], y_B[-size:], max(0, y_B.size - size)
        place = (self._learned + skipped + np.arange(y_B.size)) % size
        self._X_NF[place], self._y_N[place] = X_BF, y_B
        self._learned += skipped + y_B.size

    def rows(self) -> tuple[Matrix, Vector]:
        """Copy what is kept, the oldest first."""
        size = self._y_N.size
        place = np.arange(max(0, self._learned - size), self._learned) % size
        return self._X_NF[place], self._y_N[place]

    def state(self) -> State:
        """Copy what is kept."""
        return dict(zip(("X", "y"), self.rows(), strict=True))

    def restore(self, state: State) -> None:
        """Take back what `state` gave, or the newest of it if the ring is smaller now."""
        y_N = np.array(state["y"], np.float64)
        self.add(np.array(state["X"], np.float64).reshape(y_N.size, self._X_NF.shape[1]), y_N)


class Drifting:
    """Drift of one candidate.

    Args:
        settings: of the detectors.
        columns: of the examples.
        on_drift: what an alarm does when the loss has risen.
        relearn_rows: how many of the last examples a model is relearned from.
        watches_features: only of one candidate, the champion.
    """

    def __init__(
        self,
        settings: Drift,
        columns: tuple[Column, ...],
        on_drift: OnDrift = "none",
        relearn_rows: int = RELEARN_ROWS,
        *,
        watches_features: bool = False,
    ) -> None:
        self.losses = LossDrift(settings)
        self._settings, self._on_drift, self._relearn_rows = settings, on_drift, relearn_rows
        self._watches_features = watches_features and settings.features == "psi"
        self._ahead: list[_Finding] = []  # of features, at rows that are not settled yet
        self._untold: Counter[tuple[str, str, str]] = Counter()
        self.bind(columns)

    def bind(self, columns: tuple[Column, ...]) -> None:
        """Begin anew with examples of these columns."""
        self._features = FeatureDrift(columns, self._settings.psi) if self._watches_features else None
        self._recent = Recent(self._relearn_rows, len(columns)) if self._on_drift == "relearn" else None

    def see(self, X_BF: Matrix, start: int, action_B: Actions) -> None:
        """Watch the features of rows from `start` on, before they are settled."""
        if self._features is not None:
            self._ahead += [
                _Finding(start + alarm.row, "psi", alarm.feature, "", alarm.value, alarm.threshold, "none")
                for alarm in self._features.watch(X_BF[start : start + action_B.size], action_B)
            ]

    def learned(self, X_BF: Matrix, y_B: Vector, is_example_B: Bools) -> None:
        """Remember the examples learned, if a model may be relearned from them."""
        if self._recent is not None:
            self._recent.add(X_BF[is_example_B], y_B[is_example_B])

    def recent(self) -> tuple[Matrix, Vector] | None:
        """Give the last examples that were learned; None for a model that is only reset."""
        return None if self._recent is None else self._recent.rows()

    def alarms(self, rows: Rows, start: int, is_example_B: Bools, model: ModelNow, *, is_frozen: bool) -> list[Alarmed]:
        """Give the alarms of rows from `start` on that were just settled, in order.

        An alarm of a loss is of the last of them, for settling stops there. `is_example_B` says which of them the model
        learned as examples; one that is frozen, for it is in quarantine, stays what it is.
        """
        stop = start + is_example_B.size
        found = [finding for finding in self._ahead if finding.row < stop]
        self._ahead = self._ahead[len(found) :]
        found += [self._of_loss(stop - 1, alarm, is_frozen=is_frozen) for alarm in self.losses.alarms()]
        self._untold.update((one.detector, one.feature, one.direction) for one in found)
        learned_B = np.cumsum(is_example_B)
        return [Alarmed(one.row, _record(one, rows, model, int(learned_B[one.row - start]))) for one in found]

    def _of_loss(self, row: int, alarm: Alarm, *, is_frozen: bool) -> _Finding:
        action: OnDrift = self._on_drift if alarm.is_up and not is_frozen else "none"
        return _Finding(row, alarm.detector, "", "up" if alarm.is_up else "down", alarm.value, alarm.threshold, action)

    def measure(self, metrics: RoleMetrics) -> None:
        """Count the alarms since the last call, and set the features' indexes."""
        for labels, times in self._untold.items():
            metrics.drifted(*labels, times)
        self._untold.clear()
        if self._features is not None:
            metrics.feature_drift(self._features.index())

    def state(self) -> State:
        """Give what detectors and ring remember."""
        parts = {"losses": self.losses, "features": self._features, "recent": self._recent}
        states = {part: held.state() for part, held in parts.items() if held is not None}
        return {f"{part}.{name}": array for part, arrays in states.items() for name, array in arrays.items()}

    def restore(self, state: State, candidate: str) -> None:
        """Take back what `state` gave; what has other settings now begins anew, and says so."""
        parts: dict[str, State] = {"losses": {}, "features": {}, "recent": {}}
        for name, array in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = array
        is_same = not parts["losses"] or self.losses.restore(parts["losses"])
        if self._features is not None and parts["features"]:
            is_same &= self._features.restore(parts["features"])
        if self._recent is not None and parts["recent"]:
            self._recent.restore(parts["recent"])
        if not is_same:
            LOG.warning("%s: detectors of drift begin anew, their settings are not those of the snapshot", candidate)


def drifting_of(pipeline: Pipeline, model: Model, columns: tuple[Column, ...]) -> Drifting:
    """Make what watches a candidate, as the pipeline file has it."""
    is_champion = pipeline.serve.champion == model.name
    return Drifting(pipeline.drift, columns, model.on_drift, model.relearn_rows, watches_features=is_champion)


def _record(one: _Finding, rows: Rows, model: ModelNow, learned: int) -> DriftRecord:
    return DriftRecord(
        candidate=model.candidate,
        detector=one.detector,
        feature=one.feature,
        direction=one.direction,
        lineage=model.lineage,
        generation=model.generation,
        examples=model.examples + learned,
        source=int(rows.source[one.row]),
        number=int(rows.number[one.row]),
        time_us=int(rows.time[one.row]),
        value=one.value,
        threshold=one.threshold,
        action=one.action,
    )


def renews(alarms: list[Alarmed]) -> bool:
    """Say whether an alarm lets the model begin anew."""
    return any(record.action in {"reset", "relearn"} for _, record in alarms)


def decisions(told: Sequence[tuple[int, msgspec.Struct]]) -> list[Outgoing]:
    """Give the records for P.decisions in the order of the rows that caused them, whatever the batch."""
    if not told:
        return []
    in_order = sorted(told, key=lambda one: one[0])
    cause = np.array([row for row, _ in in_order], np.int64)
    return [Outgoing("decisions", 0, pack([msgspec.json.encode(record) for _, record in in_order]), None, cause)]
