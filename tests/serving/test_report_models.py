"""Permutation importance and trainings of a report: on which events, against a second implementation, and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss

from models.registry import read_version
from models.version import Version
from serving import report_models
from serving.report_charts import colours_of
from serving.report_data import Events, Period, read_archive
from serving.report_evaluation import importance_note, training_charts
from serving.report_models import ROWS, importance_of
from serving.versions import newest
from tests import reporting
from tests.reporting import Made


class Span(NamedTuple):
    from_us: int


class Split(NamedTuple):
    test: Span


class Training(NamedTuple):
    split: Split | None
    rows: int = 1_200
    seconds: float = 75.0
    curve: tuple[tuple[float, float], ...] = ((0.7, 0.72), (0.5, 0.6), (0.4, 0.65))


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return reporting.make(tmp_path_factory.mktemp("state"))


@pytest.fixture(name="events", scope="module")
def _events(made: Made) -> Events:
    return read_archive(made.pipeline, Period()).events


def newest_of(made: Made, name: str) -> Version:
    found = newest(made.pipeline)[name]
    assert found is not None
    return found


class Estimator:
    """A version as scikit-learn wants it."""

    def __init__(self, made: Made, version: Version) -> None:
        self.learner = read_version(made.pipeline.state, version)

    def fit(self, X_BF: Any, y_B: Any) -> Estimator:
        return self

    def score(self, X_BF: Any, y_B: Any) -> float:
        p_B = np.clip(self.learner.predict(np.ascontiguousarray(X_BF)), 0.001, 0.999)
        return -float(log_loss(y_B, p_B, labels=[0, 1]))


def test_importance_is_scikit_learns_within_what_shuffles_vary(made: Made, events: Events) -> None:
    version = newest_of(made, "linear")
    found = importance_of(made.pipeline, version, events)
    assert found is not None
    place = np.flatnonzero(np.isfinite(events.label_N))[-ROWS:]
    again = permutation_importance(
        Estimator(made, version), events.X_NF[place], events.label_N[place], n_repeats=20, random_state=1
    )

    assert found.names == ("amount", "shop", "is_new", "miles")
    assert found.mean_F == pytest.approx(again.importances_mean, abs=5 * again.importances_std.max() + 1e-3)
    assert found.mean_F[0] > 10 * abs(found.mean_F[2])  # is_new says nothing
    assert (found.rows, found.is_unseen, found.measure) == (ROWS, False, "log loss")


def test_importance_is_the_same_each_time(made: Made, events: Events) -> None:
    one, other = (importance_of(made.pipeline, newest_of(made, "linear"), events) for _ in range(2))
    assert one is not None
    assert other is not None

    assert np.array_equal(one.mean_F, other.mean_F)


def test_a_batch_candidate_is_judged_behind_what_it_was_trained_on(
    made: Made, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the beginning of its test span on; the page says which versions were not."""
    from_us = int(events.time_us_N[2_500])
    monkeypatch.setattr(report_models, "training_of", lambda _: Training(Split(Span(from_us))))
    given: list[Any] = []
    real = report_models.columns_for

    def watched(version: Version, events: Events, place_N: Any) -> Any:
        given.append(place_N)
        return real(version, events, place_N)

    monkeypatch.setattr(report_models, "columns_for", watched)
    found = importance_of(made.pipeline, newest_of(made, "linear"), events)
    assert found is not None

    expected = np.flatnonzero(np.isfinite(events.label_N) & (events.time_us_N >= from_us))
    assert given[0].tolist() == expected.tolist()
    assert found.is_unseen
    told = importance_note([found, found._replace(version="other@0.7", is_unseen=False)])
    assert told.startswith(
        f"{found.version}: judged on events behind those trained on. other@0.7: judged on the newest"
    )


def test_columns_that_are_not_archived_are_missing(made: Made, events: Events) -> None:
    version = newest_of(made, "linear")
    reordered = msgspec.structs.replace(version, columns=version.columns[::-1])
    fewer = events._replace(X_NF=events.X_NF[:, :3], columns=events.columns[:3])
    found = report_models.columns_for(reordered, fewer, np.array([5, 6]))

    assert np.isnan(found[:, 0]).all()
    assert np.array_equal(found[:, 1:], events.X_NF[5:7, 2::-1], equal_nan=True)


def test_too_few_labels_say_nothing(made: Made, events: Events) -> None:
    assert importance_of(made.pipeline, newest_of(made, "linear"), events.take(np.arange(60))) is None


@pytest.mark.parametrize("kind", ["multiclass", "regression", "anomaly", "clustering"])
def test_every_task_has_a_measure_by_which_a_feature_matters(kind: str, tmp_path: Path) -> None:
    """The third feature says nothing of the label; clusters and anomalies look at all features alike."""
    made = reporting.make(tmp_path, kind, size=1_500)
    events = read_archive(made.pipeline, Period()).events
    version = newest_of(made, made.pipeline.serve.champion)
    found = importance_of(made.pipeline, version, events)
    assert found is not None

    measures = {"multiclass": "log loss", "regression": "mean absolute error", "anomaly": "rank loss (1 - AUC)"}
    assert found.measure == measures.get(kind, "share of rows in another cluster")
    assert found.mean_F[0] > 0.0
    if kind in ("multiclass", "regression"):
        assert found.mean_F[0] > 10 * abs(found.mean_F[2])


def test_a_training_is_drawn_with_its_best_epoch(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.report_evaluation.training_of", lambda _: Training(None))
    colours = colours_of((name, name) for name in made.said)
    version = newest_of(made, "linear")
    (chart,) = training_charts({"linear": version, "prior": None}, colours)
    (panel,) = chart.panels

    assert panel.name == f"{version.name} · 1,200 rows, 1.25 min"
    trained, held_back, best = panel.traces
    assert (trained["y"], held_back["y"]) == ([0.7, 0.5, 0.4], [0.72, 0.6, 0.65])
    assert (best["x"], best["y"]) == ([2], [0.6])
