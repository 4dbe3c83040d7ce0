"""River's anomaly detectors and clusterers: which of them, how they are asked, and what is done about their traps.

They take numbers only, so categories are left out unless the file says `categories = "text"`, and they learn rows
without labels. A score is pressed into [0, 1] by a function that keeps the order: half spaces and Gaussians give it so;
ratios and distances s >= 0 become s / (1 + s); the signed score of a one-class SVM becomes 1 / (1 + exp(-s)).

Handled here, because a stream would come to it:

- A row without a single number is not given to a model: half-space trees begun on it raise for ever. Nor is a row with
  a missing number given to CluStream, which raises. Such rows are no anomalies, or of cluster 0.
- KMeans draws its first centres in the order of a set of names, which every process has its own of: they are drawn in
  the order of the columns, before the first row is learned.
- DenStream merges micro-clusters in place when it is asked: they are put back, for asking must change nothing.
- GaussianScorer says 1.0 of the very value that a constant series has; that is 0 here, any other value still 1.
- GaussianScorer and StandardAbsoluteDeviation judge one number, River's `y`: `of` names its column.
- Half-space trees need numbers in [0, 1], clusterers numbers of like size: `scale` puts River's own scaler before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from river import base, compose, preprocessing

from models.river_parts import SEED, find_class, make_part
from streams.errors import PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

OF, SCALE = "of", "scale"  # our own parameters beside the model's
Row = dict[str, Any]
Ask = Callable[[Row], float]
Teach = Callable[[Row], None]

_SCALERS = {"none": None, "standard": preprocessing.StandardScaler, "minmax": preprocessing.MinMaxScaler}
_SEEDED_INSIDE = ("STREAMKMeans",)  # takes a seed for the k-means inside it, and does not say so
_NO_CLUSTERERS = ("ODAC", "TextClust")  # they cluster the columns, and texts


def _as_it_is(score: float) -> float:
    return score


def _ratio(score: float) -> float:
    return score / (1.0 + score) if score < math.inf else 1.0


def _logistic(score: float) -> float:
    if score >= 0.0:
        return 1.0 / (1.0 + math.exp(-score))
    small = math.exp(max(score, -700.0))  # below it a float64 is 0
    return small / (1.0 + small)


DETECTORS: dict[str, Callable[[float], float]] = {
    "HalfSpaceTrees": _as_it_is,
    "OneClassSVM": _logistic,
    "LocalOutlierFactor": _ratio,
    "LODA": _ratio,
    "GaussianScorer": _as_it_is,
    "StandardAbsoluteDeviation": _ratio,
}


class Unsupervised:
    """One detector or clusterer, asked and taught as the task wants it.

    Args:
        model: the candidate's declaration.
        params: what of it goes to the class; `of` and `scale` are taken out.
        columns: of the rows.
        task: anomaly or clustering.

    Raises:
        PipelineError: the class cannot do the task, or `of` or `scale` is wrong.
    """

    def __init__(
        self,
        model: Model,
        params: dict[str, Any],
        columns: tuple[Column, ...],
        task: Task,
    ) -> None:
        self._where = f"[models.{model.name}]"
        self._is_clustering = task.kind == "clustering"
        found = self._class_of(model)
        self._name = found.__name__
        self._names = [column.name for column in columns if not column.is_category]
        self._numbers = len(self._names)
        self._of = self._column(params.pop(OF, None), columns, is_wanted=_is_of_one_number(found))
        scaler = self._scaler(params.pop(SCALE, "none"))
        self._squash = DETECTORS.get(self._name, _as_it_is)
        if self._name in _SEEDED_INSIDE:
            params.setdefault("seed", SEED)
        made = make_part(model.kind.removeprefix("river:"), params, self._where)
        self.made = made if scaler is None else compose.Pipeline(scaler(), made)

    def ask(self, model: Any, x: Row) -> float | None:
        """Give the score in [0, 1] or the number of the cluster; None where the model must not be asked."""
        if not self._is_given(x):
            return None
        if self._name == "DenStream":
            return _ask_den_stream(model, x)
        if self._is_clustering:
            return float(model.predict_one(x))
        if self._of is None:
            return self._squash(float(model.score_one(x)))
        y = x[self._of]
        if self._name == "GaussianScorer" and _is_constant(model, y):
            return 0.0
        return self._squash(float(model.score_one(None, y)))

    def teach(self, model: Any, x: Row) -> bool:
        """Let the model learn a row; says whether it was given it."""
        is_given = self._is_given(x)
        if self._name == "KMeans":
            draw_centres(model, self._names)
        if is_given and self._of is None:
            model.learn_one(x)
        elif is_given:
            model.learn_one(None, x[str(self._of)])
        return is_given

    def _is_given(self, x: Row) -> bool:
        if self._of is not None:
            return self._of in x
        return len(x) >= self._numbers if self._name == "CluStream" else bool(x)

    def _class_of(self, model: Model) -> Any:
        kind = base.Clusterer if self._is_clustering else base.Estimator
        try:
            found = find_class(model.kind.removeprefix("river:"))
        except LookupError as error:
            raise PipelineError([f"{self._where} kind: {model.kind!r} {error}"]) from None
        name, is_right = found.__name__, issubclass(found, kind)
        if self._is_clustering and (not is_right or name in _NO_CLUSTERERS):
            text = f"{model.kind!r} is no clusterer of rows; allowed: river:cluster.KMeans and its like"
            raise PipelineError([f"{self._where} kind: {text}"])
        if not self._is_clustering and (not is_right or name not in DETECTORS):
            hint = "; an alert is [task]'s to raise" if name in ("QuantileFilter", "ThresholdFilter") else ""
            allowed = ", ".join(f"river:anomaly.{one}" for one in DETECTORS)
            raise PipelineError([f"{self._where} kind: {model.kind!r} gives no score{hint}; allowed: {allowed}"])
        return found

    def _column(self, name: object, columns: tuple[Column, ...], *, is_wanted: bool) -> str | None:
        names = [column.name for column in columns if not column.is_category]
        if is_wanted and name not in names:
            text = "is missing" if name is None else f"{name!r} is no column with numbers"
            raise PipelineError([f"{self._where} {OF}: {text}; allowed: {', '.join(names)}"])
        if not is_wanted and name is not None:
            raise PipelineError([f"{self._where} {OF}: {self._name} looks at all columns; allowed: leave it out"])
        return None if name is None else str(name)

    def _scaler(self, how: object) -> Any:
        if how not in _SCALERS or (how != "none" and self._of is not None):
            raise PipelineError([f"{self._where} {SCALE}: {how!r} found; allowed: {', '.join(_SCALERS)}"])
        return _SCALERS[str(how)]


def _is_of_one_number(found: Any) -> bool:
    return issubclass(found, base.SupervisedAnomalyDetector)


def _last(model: Any) -> Any:
    return list(model.steps.values())[-1] if isinstance(model, compose.Pipeline) else model


def draw_centres(model: Any, names: list[str]) -> None:
    """Let k-means draw what its centres do not have yet, in this order; reading an absent value draws it."""
    for centre in _last(model).centers.values():
        for name in names:
            _ = centre[name]


def _ask_den_stream(model: Any, x: Row) -> float:
    """Ask for a cluster, and put back the sums of the micro-clusters, which the answer has merged."""
    micro = _last(model).p_micro_clusters.values()
    kept = [(one, dict(one.linear_sum), dict(one.squared_sum)) for one in micro]
    said = float(model.predict_one(x))
    for one, linear, squared in kept:
        one.linear_sum, one.squared_sum = linear, squared
    return said


def _is_constant(model: Any, y: float) -> bool:
    """Say whether a Gaussian was only ever given one value, and this is it."""
    gaussian = model.gaussian
    return bool(gaussian.n_samples >= model.grace_period and gaussian.sigma == 0.0 and gaussian.mu == y)
