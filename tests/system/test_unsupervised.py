"""Anomalies with labels and clusters without, through the running system, equal to River driven alone.

Labels come half a second after their event and clusters have none, so every row is learned before the next event: what
is said of an event is what River says when it is asked and taught row by row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from river import anomaly, cluster, preprocessing

from models.river_unsupervised import draw_centres
from serving.overview import Overview
from serving.publish import RawRecord
from serving.system import System
from streams.pipeline import Pipeline
from tests.system.flights_run import json_of, publish_to_the_end

scaling: Any = preprocessing  # untyped, as are its neighbours
detectors: Any = anomaly
clusterers: Any = cluster
pytestmark = pytest.mark.timeout(300)
START_US = 1_700_000_000_000_000
STEP_US = 1_000_000
ROWS = 300
WITHIN = 1e-9

FOREST = '[models.river]\nkind = "river:anomaly.HalfSpaceTrees"\nscale = "minmax"\nwindow_size = 60\n'
MEANS = '[models.river]\nkind = "river:cluster.KMeans"\nscale = "standard"\nn_clusters = 3\nhalflife = 0.3\n'
FILES = {
    "anomaly": '[labels]\ntopic = "anomaly.y"\nid = "n"\ntime = "at"\ntime_unit = "us"\nvalue = "y"\nwait = "1h"\n'
    f'[task]\nkind = "anomaly"\nthreshold = 0.9\n{FOREST}[models.last]\nkind = "last"\n',
    "clustering": f'[task]\nkind = "clustering"\n{MEANS}',
}


class Run(NamedTuple):
    """What came of one pipeline."""

    task: str
    pipeline: Pipeline
    overview: Overview

    def figures(self, model: str = "river") -> dict[str, float]:
        return next(line.figures for line in self.overview.models if line.name == model)


def readings() -> list[tuple[dict[str, float], int]]:
    """Give rows around three centres, and a few that are far from all, with whether they are."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 6.0]])[rng.integers(0, 3, ROWS)]
    odd = rng.random(ROWS) < 0.06
    X = centres + rng.normal(0, 0.5, (ROWS, 2)) + 9.0 * odd[:, None]
    return [({"a": a, "b": b}, int(is_odd)) for (a, b), is_odd in zip(X.tolist(), odd.tolist(), strict=True)]


@pytest.fixture(scope="module", params=sorted(FILES))
def run(request: pytest.FixtureRequest, kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One pipeline through all roles on real Kafka."""
    task = request.param
    file = tmp_path_factory.mktemp(task) / "pipeline.toml"
    file.write_text(
        f'[pipeline]\nname = "{task}"\npartitions = 1\n[kafka]\n"bootstrap.servers" = "{kafka}"\n'
        f'[events]\ntopic = "{task}.x"\nid = "n"\ntime = "at"\ntime_unit = "us"\n'
        f'[events.fields]\na = "number"\nb = "number"\n{FILES[task]}[models.prior]\nkind = "prior"\n'
    )
    with System(file, is_replay=True, most_restarts=0) as system:
        return Run(task, system.pipeline, publish_to_the_end(system, _records(has_labels=task == "anomaly")))


def _records(*, has_labels: bool) -> Iterator[RawRecord]:
    for number, (x, y) in enumerate(readings()):
        for is_label, values in ((False, dict[str, float](x)), (True, {"y": y}))[: 1 + has_labels]:
            at = START_US + number * STEP_US + is_label * STEP_US // 2
            value = json.dumps({"n": number, "at": at, **values}).encode()
            yield RawRecord(at, is_label, str(number).encode(), value)


def _scores() -> list[float]:
    """Give River's score of each row, learned before the next."""
    model = scaling.MinMaxScaler() | detectors.HalfSpaceTrees(seed=0, window_size=60)
    said = []
    for number, (x, _) in enumerate(readings()):
        said.append(model.score_one(x) if number else 0.0)
        model.learn_one(x)
    return said


def _squares() -> tuple[float, int]:
    """Give the mean squared distance of rows to the mean so far of the cluster River names, and how many there are."""
    model = scaling.StandardScaler() | clusterers.KMeans(seed=0, n_clusters=3, halflife=0.3)
    draw_centres(model, ["a", "b"])  # River's own order is that of a set, another one in every process
    rows: list[list[float]] = []
    clusters: list[int] = []
    squares: list[float] = []
    said: set[int] = set()
    for number, (x, _) in enumerate(readings()):
        row = list(x.values())
        cluster_now = model.predict_one(x) if number else 0
        said.add(cluster_now)
        seen, deviation = np.array(rows).reshape(-1, 2), np.std(rows, axis=0) if rows else np.zeros(2)
        mine = seen[np.array(clusters, int) == cluster_now] if rows else seen
        centre = mine.mean(axis=0) if len(mine) else seen.mean(axis=0) if rows else np.zeros(2)
        is_told = number > 1  # one row has no deviation
        squares.append(float(np.minimum(((row - centre) / deviation) ** 2, 100.0).mean()) if is_told else 1.0)
        clusters.append(cluster_now)  # what it says right before it learns is what it said when the event passed
        rows.append(row)
        model.learn_one(x)
    return float(np.mean(squares)), len(said)


def test_the_figures_are_those_of_river_driven_alone(run: Run) -> None:
    line = next(line for line in run.overview.models if line.name == "river")
    figures, label = run.figures(), np.array([y for _, y in readings()])
    assert line.learned == ROWS

    if run.task == "anomaly":
        score = np.array(_scores())
        is_alert = score >= 0.9
        assert figures["mean_score"] == pytest.approx(score.mean(), abs=WITHIN)
        assert figures["alert_rate"] == pytest.approx(is_alert.mean(), abs=WITHIN)
        assert figures["recall"] == pytest.approx(is_alert[label == 1].mean(), abs=WITHIN)
        assert figures["precision"] == pytest.approx(label[is_alert].mean(), abs=WITHIN)
        yes, no = score[label == 1], score[label == 0]
        area = ((yes[:, None] > no).sum() + 0.5 * (yes[:, None] == no).sum()) / (yes.size * no.size)
        assert figures["auc"] == pytest.approx(area, abs=figures["auc_error"] + WITHIN)
    else:
        inertia, clusters = _squares()
        assert figures["inertia"] == pytest.approx(inertia, abs=WITHIN)
        assert figures["clusters"] == clusters == 3
        assert figures["silhouette"] > 0


def test_every_event_is_answered_in_the_task_s_words(run: Run) -> None:
    answers = json_of(run.pipeline, "predictions", 0)
    word = {"anomaly": "score", "clustering": "distance"}[run.task]

    assert [answer["id"] for answer in answers] == [str(number) for number in range(ROWS)]
    assert all(isinstance(answer["prediction"], int) and math.isfinite(answer[word]) for answer in answers)
    assert run.overview.unaccounted == 0
    assert run.overview.pending == 0


def test_models_stand_beside_their_baselines(run: Run) -> None:
    if run.task == "anomaly":
        for figure in ("auc", "pr_auc"):
            assert run.figures()[figure] > 0.2 + max(run.figures("prior")[figure], run.figures("last")[figure])
    else:
        assert run.figures()["inertia"] < 0.7 < run.figures("prior")["inertia"]
        assert run.figures("prior")["clusters"] == 1
    blocks = [
        block
        for record in json_of(run.pipeline, "scores", 0)
        for block in record["blocks"]
        if record["order"] == "number"
    ]
    assert len(blocks) == len(run.pipeline.models) * (ROWS // 100)
