"""Every River classifier and regressor that stands here learns, and goes on bit for bit after its bytes were sealed.

The list is checked against River itself: a class that is new in River, or that is not told about here, fails a test.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import river
from river import base

from models.learner import LEARN, PREDICT
from models.river_learner import RiverLearner
from streams.errors import PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
TREE = {"use": "tree.HoeffdingTreeClassifier", "grace_period": 20}
LOGISTIC = {"use": "linear_model.LogisticRegression"}
LINEAR = {"use": "linear_model.LinearRegression"}
MEAN = {"use": "dummy.StatisticRegressor", "statistic": {"use": "stats.Mean"}}
SHARES = {"true": 0.5, "false": 0.5}
SMALL: dict[str, Any] = {"n_models": 2}
LOSS = {"use": "metrics.LogLoss"}
ERROR = {"use": "metrics.MAE"}
GREEDY = {"use": "bandit.EpsilonGreedy", "epsilon": 0.1, "decay": 0.0, "seed": 1}

NEEDING: dict[str, dict[str, Any]] = {  # what those are given that cannot be made without, or are slow
    "conf.RegressionJackknife": {"regressor": LINEAR},
    "drift.DriftRetrainingClassifier": {"model": TREE},
    "dummy.StatisticRegressor": {"statistic": {"use": "stats.Mean"}},
    "ensemble.AdaBoostClassifier": {"model": TREE, **SMALL},
    "ensemble.ADWINBaggingClassifier": {"model": TREE, **SMALL},
    "ensemble.ADWINBoostingClassifier": {"model": TREE, **SMALL},
    "ensemble.BaggingClassifier": {"model": TREE, **SMALL},
    "ensemble.BaggingRegressor": {"model": LINEAR, **SMALL},
    "ensemble.BOLEClassifier": {"model": TREE, **SMALL},
    "ensemble.EWARegressor": {"models": [LINEAR, MEAN]},
    "ensemble.LeveragingBaggingClassifier": {"model": TREE, **SMALL},
    "ensemble.SRPClassifier": SMALL,
    "ensemble.SRPRegressor": SMALL,
    "ensemble.StackingClassifier": {"models": [TREE, LOGISTIC], "meta_classifier": LOGISTIC},
    "ensemble.VotingClassifier": {"models": [TREE, LOGISTIC]},
    "forest.ARFClassifier": SMALL,
    "forest.ARFRegressor": SMALL,
    "imblearn.ChebyshevOverSampler": {"regressor": LINEAR},
    "imblearn.ChebyshevUnderSampler": {"regressor": LINEAR},
    "imblearn.HardSamplingClassifier": {"classifier": LOGISTIC, "size": 20, "p": 0.2},
    "imblearn.HardSamplingRegressor": {"regressor": LINEAR, "size": 20, "p": 0.2},
    "imblearn.RandomOverSampler": {"classifier": LOGISTIC, "desired_dist": SHARES},
    "imblearn.RandomUnderSampler": {"classifier": LOGISTIC, "desired_dist": SHARES},
    "imblearn.RandomSampler": {"classifier": LOGISTIC, "desired_dist": SHARES},
    "model_selection.BanditClassifier": {"models": [TREE, LOGISTIC], "metric": LOSS, "policy": GREEDY},
    "model_selection.BanditRegressor": {"models": [LINEAR, MEAN], "metric": ERROR, "policy": GREEDY},
    "model_selection.GreedyRegressor": {"models": [LINEAR, MEAN], "metric": ERROR},
    "model_selection.SuccessiveHalvingClassifier": {"models": [TREE, LOGISTIC], "metric": LOSS, "budget": 100},
    "model_selection.SuccessiveHalvingRegressor": {"models": [LINEAR, MEAN], "metric": ERROR, "budget": 100},
    "multiclass.OneVsOneClassifier": {"classifier": LOGISTIC},
    "multiclass.OneVsRestClassifier": {"classifier": LOGISTIC},
    "multiclass.OutputCodeClassifier": {"classifier": LOGISTIC, "code_size": 4},
    "preprocessing.PredClipper": {"regressor": LINEAR, "y_min": -1, "y_max": 1},
    "preprocessing.TargetMinMaxScaler": {"regressor": LINEAR},
    "preprocessing.TargetStandardScaler": {"regressor": LINEAR},
}
UNFIT: dict[str, tuple[dict[str, Any], str]] = {  # what cannot be used, and what is said of it
    "compat.SKL2RiverClassifier": ({}, "estimator: missing"),  # `sklearn:` kinds are for those
    "compat.SKL2RiverRegressor": ({}, "estimator: missing"),
    "active.EntropySampler": ({"classifier": LOGISTIC}, "asks for labels, which come here by themselves"),
    "compose.TargetTransformRegressor": ({"regressor": LINEAR}, "func: missing"),
    "misc.ZstdClassifier": ({}, "requires Python 3.14"),
    "tree.ISOUPTreeRegressor": ({}, "is no regressor"),
}


def classes() -> dict[str, Any]:
    """Give every classifier and regressor of River that can be made, by name."""
    found = {}
    for family in pkgutil.iter_modules(river.__path__):
        if family.name.startswith("_") or family.name in {"api", "base", "checks", "datasets", "stream"}:
            continue
        module = importlib.import_module(f"river.{family.name}")
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name, None)
            if inspect.isclass(value) and issubclass(value, base.Classifier | base.Regressor):
                found[f"{family.name}.{name}"] = value
    return found


ALL = classes()


def stream(rows: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """Give rows that are predicted and 20 rows later learned; all values are positive, a few are missing."""
    rng = np.random.default_rng(11)
    X = rng.gamma(2.0, size=(rows, 3))
    X[:, 2] = rng.integers(0, 4, rows)
    y = (X[:, 0] > X[:, 1]).astype(float)
    X[rng.random(X.shape) < 0.02] = np.nan
    order = np.argsort(np.concatenate([np.arange(rows), np.arange(rows) + 20.5]), kind="stable")
    event = np.concatenate([np.arange(rows), np.arange(rows)])[order]
    return X[event], y[event], np.where(order < rows, PREDICT, LEARN).astype(np.int8)


def make(name: str) -> RiverLearner:
    task = Task("regression" if issubclass(ALL[name], base.Regressor) else "binary")
    params = {"categories": "drop", **NEEDING.get(name, UNFIT.get(name, ({}, ""))[0])}
    return RiverLearner(Model("m", f"river:{name}", params), COLUMNS, KEY, task)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(ALL.keys() - UNFIT.keys()))
def test_it_learns_answers_finitely_and_goes_on_equal_after_it_was_sealed(name: str) -> None:
    """The second half comes from an object that was read from bytes; predicting in between changed nothing."""
    X, y, action = stream(150)
    whole, first, second = (make(name) for _ in range(3))
    expected = whole.step(X, y, action)
    before = first.step(X[:170], y[:170], action[:170])
    first.predict(X[170:200])
    second.restore(first.state())
    after = second.step(X[170:], y[170:], action[170:])

    assert np.array_equal(np.concatenate([before, after]), expected, equal_nan=True)
    assert np.isfinite(expected[action == PREDICT]).all()
    assert whole.replaced_predictions == 0


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_a_candidate_is_refused(name: str) -> None:
    with pytest.raises(PipelineError, match=UNFIT[name][1]):
        make(name)


def test_nothing_of_river_is_left_out() -> None:
    """The lists above name only what River has."""
    assert NEEDING.keys() | UNFIT.keys() <= ALL.keys()
    assert len(ALL) > 70
