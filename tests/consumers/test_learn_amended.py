"""Labels that change after they were learned: metrics and models against plain Python, in every task."""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from consumers.learn import LearnTask
from models.learner import make_learner
from models.scoring import Scores
from models.tally import add_score
from streams.frames import AMENDED, EVENT, LABEL, MISSING, NO_OUTCOME, RETRACTED, SET, Batch, Column, build
from streams.frames import examples_schema as schema_of
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Task
from streams.tables import Table

COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
TASKS = {"binary": Task(), "multiclass": Task("multiclass", ("x", "y", "z")), "regression": Task("regression")}
MODEL = Model("m", "linear", {"lr": 0.02, "bits": 6})
KEEP, BEHIND = 300, 25  # rows: the clock follows them
SOURCES = 2


class Row(NamedTuple):
    kind: int
    source: int
    number: int
    time: int
    label: float
    outcome: int
    vector: npt.NDArray[np.float64]


def a_label(of: Task, dice: random.Random) -> float:
    return dice.gauss(3.0, 2.0) if of.kind == "regression" else float(dice.randrange(len(of.classes) or 2))


def stream(of: Task, events: int, seed: int, *, has_vectors: bool) -> list[Row]:
    """Events of two sources; labels that come, do not come, are amended, taken back and set again, in any order."""
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    nothing = np.full(3, np.nan)
    rows: list[Row] = []
    waiting: list[Row] = []
    settled: list[Row] = []
    numbers = [0] * SOURCES
    while numbers != [events] * SOURCES or waiting:
        at, draw = len(rows), dice.random()
        if settled and draw < 0.2:
            one = dice.choice(settled[-dice.choice([5, 100, 1000]) :])
            label, outcome = (math.nan, RETRACTED) if dice.random() < 0.3 else (a_label(of, dice), AMENDED)
            vector = one.vector if has_vectors else nothing
            rows.append(one._replace(time=at, label=label, outcome=outcome, vector=vector))
        elif waiting and (draw < 0.6 or numbers == [events] * SOURCES):
            one = waiting.pop(dice.randrange(min(len(waiting), 40)))
            label, outcome = (math.nan, MISSING) if dice.random() < 0.1 else (a_label(of, dice), SET)
            rows.append(one._replace(kind=LABEL, time=at, label=label, outcome=outcome))
            if outcome == SET:
                settled.append(rows[-1])
        elif min(numbers) < events:
            source = dice.choice([s for s in range(SOURCES) if numbers[s] < events])
            vector = rng.normal(size=3)
            vector[2] = float(dice.randrange(4))
            rows.append(Row(EVENT, source + 10, numbers[source], at, math.nan, NO_OUTCOME, vector))
            waiting.append(rows[-1])
            numbers[source] += 1
    return rows


def table(rows: list[Row]) -> Table:
    names = ("kind", "source", "number", "time", "label", "outcome", "vector")
    columns = {name: np.array([row[at] for row in rows]) for at, name in enumerate(names)}
    return build(schema_of(COLUMNS), columns, len(rows))


def learned(of: Task, rows: list[Row], *, is_relearned: bool, cut: int) -> LearnTask:
    """Run the task, cut anywhere, now and then put away and taken up again."""
    dice, start = random.Random(cut), 0

    def fresh() -> LearnTask:
        learner = make_learner(MODEL, COLUMNS, None, of)
        return LearnTask("m", learner, COLUMNS, task=of, keep_us=KEEP, is_relearned=is_relearned)

    learn = fresh()
    while start < len(rows):
        part = rows[start : start + dice.randint(1, cut)]
        clock = np.arange(start - BEHIND, start - BEHIND + len(part))
        learn.process(Batch(table(part), clock, clock))
        start += len(part)
        if dice.random() < 0.1:
            state, learn = learn.state(), fresh()
            learn.restore(state)
    return learn


class Expected(NamedTuple):
    scores: Scores
    weights: dict[str, Any]
    examples: int
    again: int


def expected(of: Task, rows: list[Row], *, is_relearned: bool) -> Expected:
    """Do the same one row at a time; scores are made at the end, from the final labels alone."""
    learner = make_learner(MODEL, COLUMNS, None, of)
    said: dict[tuple[int, int], npt.NDArray[np.float64]] = {}
    final: dict[tuple[int, int], float] = {}
    until: dict[tuple[int, int], int] = {}
    examples = again = 0
    for at, row in enumerate(rows):
        name, x = (row.source, row.number), row.vector[None, :]
        if row.kind == EVENT:
            said[name] = learner.predict(x).reshape(1, -1)
        elif row.outcome in (SET, MISSING):
            final[name], until[name] = row.label, row.time + KEEP
            if not math.isnan(row.label):
                learner.learn(x, np.array([row.label]))
                examples += 1
        elif at - BEHIND <= until[name]:
            final[name] = row.label
            if is_relearned and row.outcome == AMENDED and not np.isnan(x).all():
                learner.learn(x, np.array([row.label]))
                again += 1
    scores = Scores(of)
    for name, label in final.items():
        if not math.isnan(label):
            add_score(scores.tally, said[name], 0, label)
    return Expected(scores, learner.state(), examples, again)


@pytest.mark.parametrize("is_relearned", [False, True], ids=["metrics", "relearn"])
@pytest.mark.parametrize("of", TASKS.values(), ids=TASKS)
def test_metrics_are_those_of_the_final_labels_and_amended_rows_are_learned_where_they_come(
    of: Task, is_relearned: bool
) -> None:
    rows = stream(of, 400, 7, has_vectors=is_relearned)
    wanted = expected(of, rows, is_relearned=is_relearned)

    for cut in (1, 30, len(rows)):
        learn = learned(of, rows, is_relearned=is_relearned, cut=cut)
        quality = learn.scores.since_start()
        assert quality == pytest.approx(wanted.scores.since_start(), rel=1e-12)
        assert quality.labels < learn.scores.rolling().labels
        assert (learn.examples_seen, learn.metrics()["relearned"]) == (wanted.examples, wanted.again)
        assert all(np.array_equal(array, learn.learner.state()[name]) for name, array in wanted.weights.items())
        forgotten = learn.metrics()["amended"] + learn.metrics()["retracted"] - learn.metrics()["corrected"]
        assert forgotten > 0
    assert (wanted.again > 100) == is_relearned


def test_corrections_reach_the_scrape_once() -> None:
    """Those since the last one; a candidate that is taken up again does not tell what was told."""
    learn = learned(Task(), stream(Task(), 100, 5, has_vectors=True), is_relearned=True, cut=1000)
    metrics = RoleMetrics("learn", "p")
    again = LearnTask("m", make_learner(MODEL, COLUMNS), COLUMNS, keep_us=KEEP, is_relearned=True)
    again.restore(learn.state())
    for task in (learn, learn, again):
        task.measure(metrics)

    for what, counter in (("label_corrected", "corrected"), ("label_relearned", "relearned")):
        labels = {"pipeline": "p", "role": "learn", "candidate": "m", "what": what}
        found = metrics.registry.get_sample_value("millrace_incidents_total", labels)
        assert found == learn.metrics()[counter]
        assert found


def test_what_was_learned_once_more_changes_no_block() -> None:
    """Evidence goes by what was known when the label settled its event."""
    rows = [row for row in stream(TASKS["binary"], 300, 3, has_vectors=True) if row.outcome not in (AMENDED, RETRACTED)]
    amended = [row._replace(outcome=AMENDED, label=1.0 - row.label) for row in rows[-50:]]
    by_number, by_label = _blocks(rows)

    assert [by_number, by_label] == _blocks([*rows, *amended])
    assert by_number
    assert by_label


def _blocks(rows: list[Row]) -> list[list[str]]:
    learn = LearnTask("m", make_learner(MODEL, COLUMNS), COLUMNS, keep_us=KEEP, is_relearned=True, clock=lambda: 0.0)
    clock = np.zeros(len(rows), np.int64)
    return [
        [value.decode() for value in out.values.unpack()] for out in learn.process(Batch(table(rows), clock, clock))
    ]


def test_an_amended_row_without_its_vector_corrects_the_metrics_and_is_not_learned() -> None:
    """It was settled before `amend = "relearn"` was set."""
    rows = stream(TASKS["binary"], 200, 5, has_vectors=False)
    bare, without = (learned(Task(), rows, is_relearned=again, cut=50) for again in (True, False))

    assert bare.metrics()["corrected"] > 20
    assert bare.metrics()["relearned"] == 0
    assert bare.scores.since_start() == without.scores.since_start()
    assert all(np.array_equal(array, bare.learner.state()[name]) for name, array in without.learner.state().items())


def test_a_model_that_learned_an_amended_label_is_no_version_until_the_next_example() -> None:
    """A version is named by its examples: what a number of them names must be one model."""
    x = np.array([1.0, 2.0, 3.0])
    rows = [
        Row(EVENT, 1, 0, 0, math.nan, NO_OUTCOME, x),
        Row(EVENT, 1, 1, 0, math.nan, NO_OUTCOME, x),
        Row(LABEL, 1, 0, 1, 1.0, SET, x),
        Row(LABEL, 1, 0, 2, 0.0, AMENDED, x),
        Row(LABEL, 1, 1, 3, 1.0, SET, x),
    ]
    learn = LearnTask("m", make_learner(MODEL, COLUMNS), COLUMNS, keep_us=KEEP, is_relearned=True)
    found = []
    for row in rows:
        learn.process(Batch(table([row]), np.zeros(1, np.int64), np.zeros(1, np.int64)))
        found.append((learn.version, learn.is_at_example))

    assert found == [((0, 0), True), ((0, 0), True), ((0, 1), True), ((0, 1), False), ((0, 2), True)]
    again = LearnTask("m", make_learner(MODEL, COLUMNS), COLUMNS, keep_us=KEEP, is_relearned=True)
    learn.is_at_example = False
    again.restore(learn.state())
    assert not again.is_at_example
