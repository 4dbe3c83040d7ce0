"""An estimator that raises at rows is set aside until its next version; what it could not answer is counted."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.learn import LearnTask
from consumers.quarantine import Quarantined, Released
from consumers.uptake import uptake_of
from consumers.version_rows import version_row
from models.contained import Contained
from models.learner import Matrix, State, Vector, make_learner
from models.registry import read_version, write_version
from models.sklearn_learner import SklearnLearner
from models.version import Version
from streams.frames import EVENT, LABEL, NO_OUTCOME, SET, Column, Outgoing, build, examples_schema
from streams.metrics import RoleMetrics
from streams.pipeline import Model
from streams.retraining import Retrain
from streams.tables import Table, join
from tests.consumers.test_quarantine import process, rows_of, told

KEY = b"k" * 32
COLUMNS = (Column("a", False),)
SCHEMA = examples_schema(COLUMNS)
STEPS = [
    ["known", {"use": "preprocessing.OrdinalEncoder"}],  # raises at a value that no example had
    ["tree", {"use": "tree.DecisionTreeClassifier"}],
]
MODEL = Model("m", "sklearn:pipeline.Pipeline", {"steps": STEPS}, retrain=Retrain())
EVENTS, UNKNOWN, AT = 300, (40, 41, 200), 250  # events with such a value; the row before which a version is announced


@cache
def fitted() -> State:
    """The state of an estimator that knows 0, 1, 2 and what is missing."""
    learner = SklearnLearner(MODEL, COLUMNS, KEY)
    X = np.tile([0.0, 1.0, 2.0, np.nan], 50)[:, None]
    learner.fit(X, (X[:, 0] == 2.0).astype(float))
    return learner.state()


def version_of(state: Path, order: tuple[int, int]) -> Version:
    learner = make_learner(MODEL, COLUMNS, KEY)
    learner.restore(fitted())
    version = write_version(state, MODEL, COLUMNS, learner, order, created_us=7)
    assert version is not None
    return version


def rows() -> Table:
    """Events, each with its label right behind it."""
    x = np.repeat(np.arange(EVENTS) % 3 * 1.0, 2)
    at = np.repeat(np.arange(EVENTS), 2)
    x[np.isin(at, UNKNOWN)] = 99.0
    is_label = np.arange(2 * EVENTS) % 2 == 1
    values: dict[str, Any] = {
        "kind": np.where(is_label, LABEL, EVENT),
        "source": np.zeros(2 * EVENTS),
        "number": at,
        "time": at,
        "label": np.where(is_label, (x == 2.0).astype(float), np.nan),
        "outcome": np.where(is_label, SET, NO_OUTCOME),
        "vector": x[:, None],
    }
    return build(SCHEMA, values, 2 * EVENTS)


def announced(state: Path) -> Table:
    """One version before all rows, a second one among them, and none behind the last event that it fails at."""
    first, second = (version_row(SCHEMA, version_of(state, (lineage, 50)), 0) for lineage in (1, 2))
    return join([first, rows().slice(0, AT), second, rows().slice(AT)])


def learn_task(state: Path) -> LearnTask:
    uptake = uptake_of(MODEL, state, KEY)
    return LearnTask("m", make_learner(MODEL, COLUMNS, KEY), COLUMNS, clock=lambda: 0.0, uptake=uptake)


def where(told: Quarantined) -> tuple[int, str, int]:
    return told.lineage, told.row, told.number


def losses(outgoing: list[Outgoing]) -> list[str]:
    return [block["losses"] for block in rows_of(outgoing)]


def test_it_is_set_aside_with_the_row_and_the_reason_and_its_next_version_ends_that(tmp_path: Path) -> None:
    """Each version is judged by itself; a reason names no row around the one that failed."""
    first, released, second = told(process(learn_task(tmp_path), announced(tmp_path)))

    assert (where(first), where(second)) == ((1, "event", 40), (2, "event", 200))
    assert released == Released("m", 2, 0, "another version takes the place of the one that raised")
    assert first.reason.startswith(
        "the model m (sklearn:pipeline.Pipeline) failed: ValueError: Found unknown categories"
    )


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_what_it_says_and_why_it_was_set_aside_does_not_depend_on_batches_and_restarts(
    tmp_path: Path, cut: int
) -> None:
    given, chance = announced(tmp_path), random.Random(cut)
    expected, learn, found = process(learn_task(tmp_path), given), learn_task(tmp_path), []
    for start in range(0, given.num_rows, cut):
        found += process(learn, given.slice(start, cut))
        if chance.random() < 0.05:
            state, learn = learn.state(), learn_task(tmp_path)
            learn.restore(state)

    assert told(found) == told(expected)
    assert losses(found) == losses(expected)
    assert len(losses(found)) == 2  # the block between them is of two models


def test_rows_that_it_raises_at_are_answered_as_by_an_untrained_model_and_counted(tmp_path: Path) -> None:
    learn, metrics = learn_task(tmp_path), RoleMetrics("learn", "p")
    process(learn, announced(tmp_path))
    for _ in range(2):  # what was told is not told again
        learn.measure(metrics)
    said = learn.learner.predict(np.array([[99.0], [2.0], [0.0]]))

    labels = {"pipeline": "p", "role": "learn", "candidate": "m"}
    incidents = {**labels, "what": "answer_failed"}
    assert said.tolist() == [0.5, 1.0, 0.0]
    assert metrics.registry.get_sample_value("millrace_incidents_total", incidents) == len(UNKNOWN)
    assert metrics.registry.get_sample_value("millrace_model_quarantined", labels) == 1.0


def test_answers_that_are_not_finite_are_counted_and_set_nothing_aside(tmp_path: Path) -> None:
    learn, metrics = learn_task(tmp_path), RoleMetrics("learn", "p")
    process(learn, version_row(SCHEMA, version_of(tmp_path, (1, 50)), 0))
    assert isinstance(learn.learner, Contained)
    inner: Any = learn.learner.learner
    inner._ask = lambda block: np.full((len(block[0]), 1), np.nan)
    process(learn, rows())
    learn.measure(metrics)

    labels = {"pipeline": "p", "role": "learn", "candidate": "m"}
    incidents = {**labels, "what": "answer_not_finite"}
    assert metrics.registry.get_sample_value("millrace_incidents_total", incidents) == EVENTS
    assert metrics.registry.get_sample_value("millrace_model_quarantined", labels) == 0.0


def test_many_rows_that_it_raises_at_cost_few_calls(tmp_path: Path) -> None:
    """A forest takes milliseconds a call, whether for one row or for a thousand."""
    learner = read_version(tmp_path, version_of(tmp_path, (1, 50)), KEY)
    assert isinstance(learner, Contained)
    inner: Any = learner.learner
    ask, sizes = inner.predict, []

    def counted(X_BF: Matrix) -> Vector:
        sizes.append(len(X_BF))
        found: Vector = ask(X_BF)
        return found

    inner.predict = counted
    x = np.tile([0.0, 1.0, 2.0, 0.0], 1_024)[:, None]
    x[1_000] = 99.0
    said = learner.step(x, np.full(4_096, np.nan), np.ones(4_096, np.int8))

    assert np.flatnonzero(said == 0.5).tolist() == [1_000]
    assert learner.failure is not None
    assert learner.failure.row == 1_000
    assert len(sizes) < 50
