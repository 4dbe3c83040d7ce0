"""Every task through the running system: River's own streams, scored as River scores them when it is driven alone.

Each event's label comes half a second after it, before the next event, so that a candidate predicts and then learns
every row: progressive validation, as `river.evaluate.progressive_val_score` does it. The only difference is the first
row, which River leaves out of its figures and which here is answered as if nothing were known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from river import datasets as river_datasets
from river import linear_model, optim, preprocessing, tree

from serving.overview import Overview
from serving.publish import RawRecord
from serving.system import System
from streams.pipeline import Pipeline
from tests.system.flights_run import json_of, publish_to_the_end

datasets: Any = river_datasets  # untyped
pytestmark = pytest.mark.timeout(300)
START_US = 1_700_000_000_000_000
STEP_US = 1_000_000
WITHIN = 1e-9


class Stream(NamedTuple):
    """One of River's streams, and a model of River's for it."""

    name: str
    task: str
    rows: list[tuple[dict[str, float], Any]]
    kind: str
    model: Callable[[], Any]
    untrained: Any  # what is answered to the first row


class Run(NamedTuple):
    """What came of it."""

    stream: Stream
    pipeline: Pipeline
    overview: Overview


def _rows(dataset: Any) -> list[tuple[dict[str, float], Any]]:
    return [({f"f{at}": float(value) for at, value in enumerate(x.values())}, y) for x, y in dataset]


STREAMS = {
    "phishing": lambda: Stream(
        "phishing",
        'kind = "binary"',
        _rows(datasets.Phishing()),
        "river:tree.HoeffdingTreeClassifier",
        tree.HoeffdingTreeClassifier,
        0.5,
    ),
    "scaled": lambda: Stream(
        "scaled",
        'kind = "binary"',
        _rows(datasets.Phishing()),
        'river:compose.Pipeline"\nsteps = [{ use = "preprocessing.StandardScaler", only = "numbers" }, '
        '{ use = "linear_model.LogisticRegression", optimizer = { use = "optim.SGD", lr = 0.02 } }]\n'
        'categories = "text',
        lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.02)),
        0.5,
    ),
    "segments": lambda: Stream(
        "segments",
        f'kind = "multiclass"\nclasses = {json.dumps(sorted({y for _, y in datasets.ImageSegments()}))}',
        _rows(datasets.ImageSegments()),
        "river:tree.HoeffdingTreeClassifier",
        tree.HoeffdingTreeClassifier,
        None,
    ),
    "bananas": lambda: Stream(
        "bananas",
        'kind = "binary"',
        _rows(datasets.Bananas()),
        'river:tree.HoeffdingTreeClassifier"\nleaf_prediction = "nb',
        lambda: tree.HoeffdingTreeClassifier(leaf_prediction="nb"),
        0.5,
    ),
    "chickens": lambda: Stream(
        "chickens",
        'kind = "regression"',
        _rows(datasets.ChickWeights()),
        'river:tree.HoeffdingTreeRegressor"\nleaf_prediction = "mean',
        lambda: tree.HoeffdingTreeRegressor(leaf_prediction="mean"),
        0.0,
    ),
    "shuttle": lambda: Stream(
        "shuttle",
        'kind = "binary"',
        _rows(datasets.Shuttle())[:10_000],  # of 49,097, all of which are as equal
        "river:tree.HoeffdingTreeClassifier",
        tree.HoeffdingTreeClassifier,
        0.5,
    ),
    "trump": lambda: Stream(
        "trump",
        'kind = "regression"',
        _rows(datasets.TrumpApproval()),
        'river:tree.HoeffdingTreeRegressor"\nleaf_prediction = "mean',  # its linear leaves go astray on this stream
        lambda: tree.HoeffdingTreeRegressor(leaf_prediction="mean"),
        0.0,
    ),
}


SOON = ("phishing", "segments", "trump")  # of each task one; the others take minutes
PARAMS = [pytest.param(name, marks=() if name in SOON else pytest.mark.chaos) for name in sorted(STREAMS)]


@pytest.fixture(scope="module", params=PARAMS)
def run(request: pytest.FixtureRequest, kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One stream through all roles on real Kafka."""
    stream = STREAMS[request.param]()
    file = tmp_path_factory.mktemp(stream.name) / "pipeline.toml"
    fields = "\n".join(f'{name} = "number"' for name in stream.rows[0][0])
    file.write_text(
        f'[pipeline]\nname = "{stream.name}"\npartitions = 1\n[kafka]\n"bootstrap.servers" = "{kafka}"\n'
        f'[events]\ntopic = "{stream.name}.x"\nid = "n"\ntime = "at"\ntime_unit = "us"\n[events.fields]\n{fields}\n'
        f'[labels]\ntopic = "{stream.name}.y"\nid = "n"\ntime = "at"\ntime_unit = "us"\nvalue = "y"\nwait = "1h"\n'
        f'[task]\n{stream.task}\n[models.river]\nkind = "{stream.kind}"\n[models.linear]\nkind = "linear"\n'
        '[models.prior]\nkind = "prior"\n[models.last]\nkind = "last"\n'
    )
    with System(file, is_replay=True, most_restarts=0) as system:
        return Run(stream, system.pipeline, publish_to_the_end(system, _records(stream)))


def _records(stream: Stream) -> Iterator[RawRecord]:
    for number, (x, y) in enumerate(stream.rows):
        for is_label, values in ((False, x), (True, {"y": y})):
            at = START_US + number * STEP_US + is_label * STEP_US // 2
            value = json.dumps({"n": number, "at": at, **values}).encode()
            yield RawRecord(at, is_label, str(number).encode(), value)


def _driven_alone(stream: Stream, classes: tuple[str, ...]) -> list[Any]:
    """Give what River says to every row, each learned before the next."""
    model = stream.model()
    said: list[Any] = []
    ask = model.predict_one if stream.untrained == 0.0 else model.predict_proba_one
    for number, (x, y) in enumerate(stream.rows):
        found = ask(x) if number else None
        if classes:
            found = {name: 1 / len(classes) for name in classes} if found is None else found
            said.append([found.get(name, 0.0) for name in classes])
        elif stream.untrained == 0.5:
            said.append(0.5 if found is None else found.get(True, 0.0))
        else:
            said.append(0.0 if found is None else found)
        model.learn_one(x, y)
    return said


def test_the_figures_are_those_of_river_driven_alone(run: Run) -> None:
    stream, task = run.stream, run.pipeline.task
    said = _driven_alone(stream, task.classes)
    labels = [y for _, y in stream.rows]
    line = next(line for line in run.overview.models if line.name == "river")
    assert line.learned == len(labels)

    if task.kind == "regression":
        errors = [abs(p - y) for p, y in zip(said, labels, strict=True)]
        squares = sum(error**2 for error in errors) / len(errors)
        expected = {"mae": sum(errors) / len(errors), "rmse": math.sqrt(squares)}
    else:
        if task.kind == "binary":
            said = [[1.0 - p, p] for p in said]
        places = [task.classes.index(y) if task.classes else int(y) for y in labels]
        given = [min(max(p[place], 0.001), 0.999) for p, place in zip(said, places, strict=True)]
        likeliest = [p.index(max(p)) if task.classes else int(p[1] >= 0.5) for p in said]
        right = [answer == place for answer, place in zip(likeliest, places, strict=True)]
        expected = {
            "log_loss": -sum(map(math.log, given)) / len(given),
            "accuracy": sum(right) / len(right),
        }
    for figure, value in expected.items():
        assert line.figures[figure] == pytest.approx(value, abs=WITHIN), figure


def test_every_event_is_answered_in_the_task_s_words(run: Run) -> None:
    answers = json_of(run.pipeline, "predictions", 0)
    task, expected = run.pipeline.task, {"binary": int, "multiclass": str, "regression": float}

    assert [answer["id"] for answer in answers] == [str(number) for number in range(len(run.stream.rows))]
    assert all(type(answer["prediction"]) in (expected[task.kind], int) for answer in answers)
    assert ("probability" in answers[0], "probabilities" in answers[0]) == (
        task.kind == "binary",
        task.kind == "multiclass",
    )
    assert run.overview.unaccounted == 0


def test_models_beat_their_baselines_where_they_can_and_every_candidate_has_its_figures(run: Run) -> None:
    losses = {line.name: line.loss for line in run.overview.models}

    assert all(math.isfinite(loss) for loss in losses.values())
    if run.stream.name == "trump":  # all begin at 0, far from labels that hardly move: the last one wins
        assert losses["last"] < min(losses["prior"], losses["river"], losses["linear"])
    else:
        assert max(losses["river"], losses["linear"]) < losses["prior"]
