"""Baselines follow the labels learned so far, and see no later one."""

from __future__ import annotations

import numpy as np
import pytest

from models.baselines import BaselineLearner
from models.learner import LEARN, PREDICT, SKIP, make_learner
from streams.errors import ModelError, PipelineError
from streams.pipeline import Model, Task

MODEL = Model("base", "prior", {})


def test_each_row_sees_the_labels_before_it_and_no_later_one() -> None:
    learner = BaselineLearner(MODEL, ())
    action = np.array([PREDICT, LEARN, PREDICT, LEARN, LEARN, PREDICT, SKIP], np.int8)
    y = np.array([np.nan, 1.0, np.nan, 0.0, np.nan, 1.0, 1.0])

    score = learner.step(np.empty((7, 0)), y, action)

    assert score[[0, 2, 5]].tolist() == [1 / 2, 2 / 3, 2 / 4]
    assert np.isnan(score[[1, 3, 4, 6]]).all()
    assert learner.predict(np.empty((2, 0))).tolist() == [0.5, 0.5]


def test_a_restored_baseline_goes_on() -> None:
    first, second = BaselineLearner(MODEL, ()), BaselineLearner(MODEL, ())
    first.learn(np.empty((3, 0)), np.array([1.0, 1.0, 0.0]))
    second.restore(first.state())

    assert second.predict(np.empty((1, 0))).tolist() == [3 / 5]
    assert second.is_finite()
    assert second.size_bytes() == 24


@pytest.mark.parametrize(
    ("kind", "task", "labels", "before", "after"),
    [
        ("last", Task(), [1.0, 0.0], 0.5, 0.0),
        ("last", Task("regression"), [4.0, -2.5], 0.0, -2.5),
        ("prior", Task("regression"), [4.0, -2.5], 0.0, 0.75),
        ("last", Task("multiclass", ("a", "b", "c")), [2.0, 1.0], [1 / 3] * 3, [0.0, 1.0, 0.0]),
        ("prior", Task("multiclass", ("a", "b", "c")), [2.0, 1.0, 1.0], [1 / 3] * 3, [1 / 6, 3 / 6, 2 / 6]),
    ],
)
def test_every_task_has_its_prior_and_its_last_label(
    kind: str, task: Task, labels: list[float], before: float | list[float], after: float | list[float]
) -> None:
    learner = BaselineLearner(Model("base", kind, {}), (), task)
    untrained = learner.predict(np.empty((1, 0)))
    learner.learn(np.empty((len(labels), 0)), np.array(labels))

    assert untrained[0].tolist() == before
    assert learner.predict(np.empty((2, 0))).tolist() == [after, after]


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(ModelError, match="not whole"):
        BaselineLearner(MODEL, ()).restore({"seen": np.array([3.0, 2.0])})
    with pytest.raises(ModelError, match="not whole"):
        BaselineLearner(MODEL, ()).restore({})


def test_it_takes_no_parameters_and_an_unknown_kind_is_named() -> None:
    with pytest.raises(PipelineError, match="allowed: none"):
        make_learner(Model("base", "prior", {"rate": 1.0}), ())
    with pytest.raises(
        PipelineError,
        match=r"\[models.m\] kind: 'linaer' is not known; allowed: linear, .*, prior, last, .*river:",
    ):
        make_learner(Model("m", "linaer", {}), ())
