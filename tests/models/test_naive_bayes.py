"""The compiled naive Bayes equals River's over numbers, and counts categories as its definition says."""

from __future__ import annotations

import doctest
import math
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import datasets, naive_bayes

import models.naive_bayes
from models.learner import LEARN, PREDICT, SKIP
from models.naive_bayes import NaiveBayesLearner
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from tests.models.learner_rules import assert_cuts_change_no_bit, repeated

Floats = npt.NDArray[np.float64]

gaussian_nb: Any = naive_bayes.GaussianNB  # untyped
COLUMNS = (Column("delay", False), Column("carrier", True), Column("distance", False), Column("origin", True))
CLASSES = Task("multiclass", ("a", "b", "c"))
BINARY = Task()


def make(task: Task = BINARY, columns: tuple[Column, ...] = COLUMNS, **params: float) -> NaiveBayesLearner:
    return NaiveBayesLearner(Model("bayes", "naive_bayes", params), columns, task)


def rows_of(rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Give rows of COLUMNS with holes, and classes 0, 1 and 2 that depend on a number and a category."""
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [rng.normal(10, 40, rows), rng.integers(0, 9, rows), rng.lognormal(6, 1, rows), rng.integers(0, 3, rows)]
    ).astype(float)
    y = np.floor(np.clip(X[:, 0] / 40 + (X[:, 1] > 5) + rng.normal(0, 0.5, rows), 0.0, 2.9))
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, y


@cache
def published(name: str) -> tuple[tuple[Column, ...], Floats, Floats, Task]:
    """Give 1,250 rows of a stream that River ships, as they are and with one number in ten missing."""
    made: Any = getattr(datasets, name)
    pairs = [pair for pair, _ in zip(made(), range(1_250), strict=False)]
    X = np.array([list(x.values()) for x, _ in pairs], float)
    X[600:][np.random.default_rng(0).random(X[600:].shape) < 0.1] = np.nan
    found, task = [y for _, y in pairs], BINARY
    if name == "ImageSegments":
        task = Task("multiclass", tuple(sorted(set(found))))
        found = [task.classes.index(y) for y in found]
    return tuple(Column(key, False) for key in pairs[0][0]), X, np.array(found, float), task


def delayed(rows: int) -> npt.NDArray[np.int64]:
    """Give an order of events (i) and labels (-1 - i) where each label comes 1 to 50 events later."""
    due = np.arange(rows) + np.random.default_rng(1).integers(1, 50, rows)
    order = np.concatenate([np.arange(rows), -1 - np.arange(rows)])
    return order[np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")]


def drive(learner: NaiveBayesLearner, X: Floats, y: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    order = delayed(len(X))
    event = np.where(order >= 0, order, -1 - order)
    return learner.step(X[event], y[event], np.where(order >= 0, PREDICT, LEARN).astype(np.int8)), order


@pytest.mark.parametrize("stream", ["Phishing", "Bananas", "ImageSegments"])
def test_every_probability_on_a_published_stream_equals_rivers(stream: str) -> None:
    """From the first label on, when all but one class are unknown and no number has a variance."""
    columns, X, y, task = published(stream)
    ours, order = drive(make(task, columns), X, y)
    reference = gaussian_nb()
    classes = [float(place) for place in range(max(task.outputs, 2))]
    said, answers = [], []
    for at, i in enumerate(order.tolist()):
        x = {number: value for number, value in enumerate(X[i if i >= 0 else -1 - i].tolist()) if not math.isnan(value)}
        if i < 0:
            reference.learn_one(x, y[-1 - i])
            continue
        found = reference.predict_proba_one(x) or dict.fromkeys(classes, 1 / len(classes))
        said.append([found.get(place, 0.0) for place in classes])
        answers.append(ours[at] if task.outputs > 1 else [1.0 - ours[at], ours[at]])

    np.testing.assert_allclose(np.array(answers), np.array(said), rtol=0, atol=1e-9)
    assert (np.array(said) == 0.0).any(axis=1).sum() > 5
    assert np.std(said, axis=0).max() > 0.05


class Counts:
    """Naive Bayes over categories alone, by its definition, in dictionaries."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.labels: Counter[float] = Counter()
        self.rows: Counter[tuple[int, float, float]] = Counter()
        self.known: dict[int, set[float]] = {}

    def learn(self, x: dict[int, float], y: float) -> None:
        self.labels[y] += 1
        for column, code in x.items():
            self.rows[column, code, y] += 1
            self.known.setdefault(column, set()).add(code)

    def predict(self, x: dict[int, float]) -> dict[float, float]:
        joint = {y: count / self.labels.total() for y, count in self.labels.items()}
        for column, code in x.items():
            known = self.known.get(column, set())
            for y in joint:
                of_class = sum(self.rows[column, other, y] for other in known)
                over = of_class + self.smoothing * (len(known) + 1)
                joint[y] *= (self.rows[column, code, y] + self.smoothing) / over
        return {y: share / sum(joint.values()) for y, share in joint.items()}


@pytest.mark.parametrize("smoothing", [1.0, 0.1])
def test_categories_are_smoothed_counts_with_one_more_for_what_has_not_come(smoothing: float) -> None:
    columns = (COLUMNS[1], COLUMNS[3])
    X, y = rows_of(800)
    X = X[:, [1, 3]]
    X[400:] *= 2.0  # new categories
    ours, order = drive(make(CLASSES, columns, smoothing=smoothing, bits=20), X, y)
    reference = Counts(smoothing)
    for at, i in enumerate(order.tolist()):
        row = X[i if i >= 0 else -1 - i].tolist()
        x = {column: code for column, code in enumerate(row) if not math.isnan(code)}
        if i < 0:
            reference.learn(x, y[-1 - i])
        elif reference.labels:
            said = reference.predict(x)
            np.testing.assert_allclose(ours[at], [said.get(place, 0.0) for place in (0, 1, 2)], rtol=0, atol=1e-9)
    assert np.nanstd(ours[:, 0]) > 0.05


def test_numbers_and_categories_multiply() -> None:
    X, y = rows_of(500)
    both, numbers, categories = make(CLASSES), make(CLASSES, COLUMNS[::2]), make(CLASSES, COLUMNS[1::2])
    both.learn(X, y)
    numbers.learn(X[:, ::2], y)
    categories.learn(X[:, 1::2], y)
    prior = np.bincount(y.astype(int)) / len(y)
    product = numbers.predict(X[:, ::2]) * categories.predict(X[:, 1::2]) / prior

    np.testing.assert_allclose(both.predict(X), product / product.sum(axis=1, keepdims=True), rtol=0, atol=1e-12)


def test_before_the_first_label_all_classes_are_alike() -> None:
    X, _ = rows_of(2)

    assert make().predict(X).tolist() == [0.5, 0.5]
    assert make(CLASSES).predict(X).tolist() == [[1 / 3] * 3] * 2


@pytest.mark.parametrize("cuts", [[1], [7, 7, 300]])
def test_cutting_rows_into_other_batches_changes_no_bit(cuts: list[int]) -> None:
    X, y = rows_of(1_000)
    assert_cuts_change_no_bit(make(CLASSES), make(CLASSES), X, y, repeated(cuts, 1_000))


def test_predicting_changes_nothing_and_skipped_or_unlabelled_rows_are_not_counted() -> None:
    X, y = rows_of(200)
    learner = make(CLASSES)
    learner.learn(X, y)
    before = learner.state()
    learner.predict(X)
    learner.step(X, y, np.full(200, SKIP, np.int8))
    learner.learn(X, np.full(200, np.nan))

    assert all(np.array_equal(a, learner.state()[name]) for name, a in before.items())


def test_a_restored_model_goes_on_bit_for_bit() -> None:
    X, y = rows_of(600)
    first, whole, second = make(CLASSES), make(CLASSES), make(CLASSES)
    first.learn(X[:300], y[:300])
    second.restore(first.state())
    second.learn(X[300:], y[300:])
    whole.learn(X, y)

    assert np.array_equal(second.predict(X), whole.predict(X))
    with pytest.raises(ModelError, match="a naive Bayes model's labels is not whole"):
        make().restore(first.state())


@given(
    hnp.arrays(np.float64, (40, len(COLUMNS)), elements=st.floats(allow_nan=True, allow_infinity=True)),
    hnp.arrays(np.float64, 40, elements=st.sampled_from([0.0, 1.0, 2.0])),
)
@settings(max_examples=60, deadline=None)
def test_no_input_makes_the_model_not_finite(X: Floats, y: Floats) -> None:
    learner = make(CLASSES)
    learner.learn(X, y)
    score = learner.predict(X)

    assert learner.is_finite()
    assert (score >= 0.0).all()
    np.testing.assert_allclose(score.sum(axis=1), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("column", "bad"), [(0, np.inf), (0, 1e31), (1, -1.0), (1, 0.5), (1, 2.0**53)])
def test_what_is_no_number_or_no_category_is_missing(column: int, bad: float) -> None:
    X, y = rows_of(100)
    missing, absurd = X.copy(), X.copy()
    missing[::3, column], absurd[::3, column] = np.nan, bad
    a, b = make(CLASSES), make(CLASSES)
    a.learn(missing, y)
    b.learn(absurd, y)

    assert np.array_equal(a.predict(missing), b.predict(absurd))


def test_the_example_runs() -> None:
    assert doctest.testmod(models.naive_bayes).failed == 0


def test_it_is_for_classes_and_names_a_wrong_parameter() -> None:
    with pytest.raises(PipelineError, match='"naive_bayes" is for a task that is binary or multiclass'):
        make(Task("regression"))
    with pytest.raises(PipelineError, match=r"smoothing: 0\.0 is not right; allowed: a number above 0 up to 1000"):
        make(smoothing=0.0)
