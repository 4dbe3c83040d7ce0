"""Explanations: what each feature adds, compared with what predictions do without it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.explanation import MOST, contributions, explain
from models.learner import Learner, make_learner
from streams.frames import Column
from streams.pipeline import Model, Task

COLUMNS = tuple(Column(name, is_category=name == "shop") for name in ("amount", "shop", "age", "late", "noise", "rest"))


def rows(count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    x_BF = rng.normal(size=(count, len(COLUMNS)))
    x_BF[:, 1] = rng.integers(0, 4, count)
    x_BF[rng.random((count, len(COLUMNS))) < 0.1] = np.nan
    return x_BF


def learned(kind: str, task: Task | None = None, **params: Any) -> Learner:
    learner, x_BF = make_learner(Model("m", kind, params), COLUMNS, None, task), rows(3_000, 1)
    said = np.nan_to_num(x_BF[:, 0]) + (x_BF[:, 1] == 2) * 2.0 - np.nan_to_num(x_BF[:, 2])
    learner.learn(x_BF, said if task else (said > 0.5).astype(float))
    return learner


@pytest.mark.parametrize("params", [{"l2": 0.01}, {"optimizer": "adagrad"}])
def test_of_a_linear_model_contributions_and_intercept_are_the_logit(params: dict[str, Any]) -> None:
    """The row with nothing in it has the intercept alone; the logit is the prediction's own."""
    learner, x_BF = learned("linear", bits=8, **params), rows(200, 2)
    said_B, bare = learner.predict(x_BF), float(learner.predict(np.full((1, len(COLUMNS)), np.nan))[0])
    added_BF = contributions(learner, x_BF)

    assert added_BF is not None
    logit_B = np.log(said_B / (1 - said_B))
    assert added_BF.sum(axis=1) + math.log(bare / (1 - bare)) == pytest.approx(logit_B, abs=1e-9)
    assert (added_BF[np.isnan(x_BF)] == 0.0).all()


def test_of_a_regression_each_contribution_is_what_the_number_loses_without_the_feature() -> None:
    learner, x_BF = learned("linear", Task("regression"), bits=8), rows(50, 3)
    added_BF = contributions(learner, x_BF)

    assert added_BF is not None
    for f in range(len(COLUMNS)):
        without_BF = x_BF.copy()
        without_BF[:, f] = np.nan
        assert added_BF[:, f] == pytest.approx(learner.predict(x_BF) - learner.predict(without_BF), abs=1e-9)


def test_of_a_tree_contributions_lead_from_the_roots_share_to_the_leafs() -> None:
    """A tree that answers by the majority of its leaf says the leaf's share."""
    learner = learned("hoeffding_tree", grace_period=50, delta=0.1, leaf_prediction="mc")
    x_BF = rows(300, 4)
    x_BF[:5, 1] = 99.0  # a category that no branch knows
    added_BF = contributions(learner, x_BF)
    root = learner.weights.stats[0]  # type: ignore[attr-defined]  # a tree has them

    assert added_BF is not None
    assert learner.weights.counts[0] > 5  # type: ignore[attr-defined]  # it has grown
    shares_B = added_BF.sum(axis=1) + root[1] / root.sum()
    assert shares_B == pytest.approx(learner.predict(x_BF), abs=1e-9)
    assert len({row.tobytes() for row in added_BF}) > 3


def test_the_largest_are_told_first_and_none_that_is_nothing() -> None:
    learner, x_BF = learned("linear", bits=8), rows(100, 5)
    added_BF, told = contributions(learner, x_BF), explain(learner, COLUMNS, x_BF)
    empty = explain(learner, COLUMNS, np.full((1, len(COLUMNS)), np.nan))

    assert added_BF is not None
    assert told is not None
    for explanation, added_F in zip(told, added_BF, strict=True):
        sizes = [abs(value) for _, value in explanation]
        expected = sorted((abs(value) for value in added_F.tolist() if value), reverse=True)[:MOST]
        assert sizes == expected
        assert all(added_F[[c.name for c in COLUMNS].index(name)] == value for name, value in explanation)
    assert empty == [[]]


def test_other_models_are_not_explained() -> None:
    """Nor are several classes, which have a sum for each."""
    classes = Task("multiclass", ("a", "b", "c"))

    assert explain(make_learner(Model("m", "prior", {}), COLUMNS), COLUMNS, rows(2, 6)) is None
    for kind in ("linear", "hoeffding_tree"):
        assert explain(make_learner(Model("m", kind, {}), COLUMNS, None, classes), COLUMNS, rows(2, 6)) is None
