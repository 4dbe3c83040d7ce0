"""The baseline follows the share of positives among the labels learned so far."""

from __future__ import annotations

import numpy as np
import pytest

from models.learner import LEARN, PREDICT, SKIP, make_learner
from models.prior import PriorLearner
from streams.errors import ModelError, PipelineError
from streams.pipeline import Model

MODEL = Model("base", "prior", {})


def test_each_row_sees_the_labels_before_it_and_no_later_one() -> None:
    learner = PriorLearner(MODEL, ())
    action = np.array([PREDICT, LEARN, PREDICT, LEARN, LEARN, PREDICT, SKIP], np.int8)
    y = np.array([np.nan, 1.0, np.nan, 0.0, np.nan, 1.0, 1.0])

    score = learner.step(np.empty((7, 0)), y, action)

    assert score[[0, 2, 5]].tolist() == [1 / 2, 2 / 3, 2 / 4]
    assert np.isnan(score[[1, 3, 4, 6]]).all()
    assert learner.predict(np.empty((2, 0))).tolist() == [0.5, 0.5]


def test_a_restored_baseline_goes_on() -> None:
    first, second = PriorLearner(MODEL, ()), PriorLearner(MODEL, ())
    first.learn(np.empty((3, 0)), np.array([1.0, 1.0, 0.0]))
    second.restore(first.state())

    assert second.predict(np.empty((1, 0))).tolist() == [3 / 5]
    assert second.is_finite()
    assert second.size_bytes() == 16


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(ModelError, match="not whole"):
        PriorLearner(MODEL, ()).restore({"counts": np.array([3, 2])})
    with pytest.raises(ModelError, match="not whole"):
        PriorLearner(MODEL, ()).restore({})


def test_it_takes_no_parameters_and_an_unknown_kind_is_named() -> None:
    with pytest.raises(PipelineError, match="allowed: none"):
        make_learner(Model("base", "prior", {"rate": 1.0}), ())
    with pytest.raises(
        PipelineError, match=r"\[models.m\] kind: 'linaer' is not known; allowed: linear, prior, river:"
    ):
        make_learner(Model("m", "linaer", {}), ())
