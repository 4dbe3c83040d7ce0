"""River objects from tables: equal to the same objects made in Python, and refused in one line where that cannot be."""

from __future__ import annotations

import math
import numbers
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from river import (
    compose,
    ensemble,
    feature_selection,
    forest,
    linear_model,
    multiclass,
    naive_bayes,
    optim,
    preprocessing,
    stats,
    tree,
)

from models.learner import LEARN, PREDICT
from models.river_learner import RiverLearner
from models.river_parts import make_part
from models.version import Version, decode_record, encode_record
from streams.errors import PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task

COLUMNS = (Column("a", False), Column("b", False), Column("c", True))
CLASSES = Task("multiclass", ("red", "green", "blue"))
NUMBER = Task("regression")
bayes: Any = naive_bayes.GaussianNB  # River leaves it unannotated
ROWS, DELAY = 150, 20

Case = tuple[str, Task, Callable[[], Any]]


def _routed() -> Any:
    scaled = compose.SelectType(numbers.Number) | preprocessing.StandardScaler()
    hot = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (scaled + hot) | linear_model.LogisticRegression(optim.SGD(0.05), l2=0.01)


def _scaled_logistic() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def _half_routed() -> Any:
    scaled = compose.SelectType(numbers.Number) | preprocessing.MinMaxScaler()
    return (scaled + compose.SelectType(str)) | tree.HoeffdingTreeClassifier(grace_period=20)


CASES: dict[str, Case] = {
    "numbers scaled beside categories encoded": (
        """
        kind = "river:compose.Pipeline"
        steps = [
            { use = "preprocessing.StandardScaler", only = "numbers" },
            { use = "preprocessing.OneHotEncoder", only = "categories" },
            { use = "linear_model.LogisticRegression", l2 = 0.01, optimizer = { use = "optim.SGD", lr = 0.05 } },
        ]
        """,
        Task(),
        _routed,
    ),
    "what no step is for goes on": (
        """
        kind = "river:compose.Pipeline"
        [[steps]]
        use = "preprocessing.MinMaxScaler"
        only = "numbers"
        [[steps]]
        use = "tree.HoeffdingTreeClassifier"
        grace_period = 20
        """,
        Task(),
        _half_routed,
    ),
    "bagging": (
        """
        kind = "river:ensemble.BaggingClassifier"
        model = { use = "tree.HoeffdingTreeClassifier", grace_period = 20 }
        n_models = 3
        seed = 42
        """,
        Task(),
        lambda: ensemble.BaggingClassifier(tree.HoeffdingTreeClassifier(grace_period=20), 3, seed=42),
    ),
    "boosting": (
        """
        kind = "river:ensemble.ADWINBoostingClassifier"
        model = { use = "naive_bayes.GaussianNB" }
        n_models = 3
        categories = "drop"
        """,
        Task(),
        lambda: compose.SelectType(numbers.Number) | ensemble.ADWINBoostingClassifier(bayes(), n_models=3, seed=0),
    ),
    "adaptive random forest": (
        """
        kind = "river:forest.ARFClassifier"
        n_models = 3
        grace_period = 20
        leaf_prediction = "mc"
        """,
        CLASSES,
        lambda: forest.ARFClassifier(n_models=3, grace_period=20, leaf_prediction="mc", seed=0),
    ),
    "stacking": (
        """
        kind = "river:ensemble.StackingClassifier"
        categories = "drop"
        meta_classifier = { use = "linear_model.LogisticRegression" }
        models = [
            { use = "compose.Pipeline", steps = [
                { use = "preprocessing.StandardScaler" },
                { use = "linear_model.LogisticRegression" },
            ] },
            { use = "naive_bayes.GaussianNB" },
        ]
        """,
        Task(),
        lambda: (
            compose.SelectType(numbers.Number)
            | ensemble.StackingClassifier(
                [_scaled_logistic(), bayes()],
                meta_classifier=linear_model.LogisticRegression(),
            )
        ),
    ),
    "one against the rest": (
        """
        kind = "river:compose.Pipeline"
        categories = "drop"
        steps = [
            { use = "preprocessing.StandardScaler" },
            { use = "multiclass.OneVsRestClassifier", classifier = { use = "linear_model.LogisticRegression" } },
        ]
        """,
        CLASSES,
        lambda: (
            compose.SelectType(numbers.Number)
            | preprocessing.StandardScaler()
            | multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
        ),
    ),
    "a union of transformers and a choice of names": (
        """
        kind = "river:compose.Pipeline"
        steps = [
            { use = "compose.Discard", keys = ["c"] },
            { use = "compose.TransformerUnion", transformers = [
                { use = "preprocessing.StandardScaler" },
                { use = "feature_selection.SelectKBest", k = 1, similarity = { use = "stats.PearsonCorr" } },
            ] },
            { use = "linear_model.LinearRegression", optimizer = { use = "optim.Adam", lr = 0.02 } },
        ]
        """,
        NUMBER,
        lambda: (
            compose.Discard("c")
            | (preprocessing.StandardScaler() + feature_selection.SelectKBest(stats.PearsonCorr(), k=1))
            | linear_model.LinearRegression(optim.Adam(0.02))
        ),
    ),
    "a scaled target": (
        """
        kind = "river:preprocessing.TargetStandardScaler"
        categories = "drop"
        regressor = { use = "linear_model.LinearRegression", loss = { use = "optim.losses.Huber", epsilon = 0.2 } }
        """,
        NUMBER,
        lambda: (
            compose.SelectType(numbers.Number)
            | preprocessing.TargetStandardScaler(linear_model.LinearRegression(loss=optim.losses.Huber(0.2)))
        ),
    ),
}


def model_of(text: str) -> Model:
    values = tomllib.loads(text)
    return Model("m", values.pop("kind"), values)


def rows(task: Task) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """Give events, each with its label 20 rows later; a few features are missing."""
    rng = np.random.default_rng(5)
    X = rng.normal(2.0, 1.0, (ROWS, 3))
    X[:, 2] = rng.integers(0, 4, ROWS)
    y = X[:, 0] + X[:, 2] if task.kind == "regression" else (X[:, 0] + X[:, 2] > 3.0).astype(float)
    y = y + (X[:, 1] > 2.5) if task.classes else y
    X[rng.random(X.shape) < 0.03] = np.nan
    order = np.argsort(np.concatenate([np.arange(ROWS), np.arange(ROWS) + DELAY + 0.5]), kind="stable")
    event = np.concatenate([np.arange(ROWS), np.arange(ROWS)])[order]
    return X[event], y[event], np.where(order < ROWS, PREDICT, LEARN).astype(np.int8)


def alone(made: Any, task: Task) -> list[list[float]]:
    """Give what River says by itself, event by event."""
    said, is_trained = [], False
    for row, label, action in zip(*(part.tolist() for part in rows(task)), strict=True):
        x = {
            c.name: str(int(v)) if c.is_category else v for c, v in zip(COLUMNS, row, strict=True) if not math.isnan(v)
        }
        if action == LEARN:
            made.learn_one(x, _told(label, task))
            is_trained = True
        elif task.kind == "regression":
            said.append([made.predict_one(x) if is_trained else 0.0])
        else:
            shares = made.predict_proba_one(x) if is_trained else {}
            names: list[Any] = list(task.classes or (True,))
            found = [shares.get(name, 0.0) for name in names]
            blank = 1 / len(names) if task.classes else 0.5
            total = sum(found) if task.classes else 1.0
            said.append([one / total for one in found] if shares and total else [blank] * len(names))
    return said


def _told(label: float, task: Task) -> Any:
    return task.classes[int(label)] if task.classes else label if task.kind == "regression" else label > 0.5


@pytest.mark.parametrize("name", CASES)
def test_a_model_from_a_table_says_what_river_says_when_it_is_driven_alone(name: str) -> None:
    """Within 1e-12, on every event of a stream whose labels come later."""
    text, task, make = CASES[name]
    X, y, action = rows(task)
    found = RiverLearner(model_of(text), COLUMNS, None, task).step(X, y, action)

    expected = np.array(alone(make(), task))
    np.testing.assert_allclose(found[action == PREDICT].reshape(expected.shape), expected, rtol=0, atol=1e-12)
    assert expected[ROWS // 2 :].std(axis=0).min() > 1e-4, "it says something"


@pytest.mark.parametrize("name", CASES)
def test_parameters_travel_in_a_versions_record(name: str) -> None:
    """Numbers stay whole or not, tables and lists stay what they are: a reader builds the same model."""
    model = model_of(CASES[name][0])
    record = Version("m", 0, 1, model.kind, model.params, COLUMNS, "", "", 0)

    found = decode_record(encode_record(record))
    assert found.params == model.params
    assert msgspec.json.encode(found.params) == msgspec.json.encode(model.params)


def test_whatever_takes_a_seed_has_one_however_deep_it_lies() -> None:
    found = make_part(
        "ensemble.BaggingClassifier",
        {"model": {"use": "tree.HoeffdingAdaptiveTreeClassifier"}, "n_models": 2},
        "[models.m]",
    )
    given = make_part("forest.ARFClassifier", {"seed": 7}, "[models.m]")

    assert (found.seed, found.model.seed, given.seed) == (0, 0, 7)


def test_tables_of_true_and_false_have_booleans_as_keys() -> None:
    """Labels of yes or no are True and False for River, and keys of TOML are texts."""
    shares = {"true": 0.4, "false": 0.6}
    params = {"classifier": {"use": "naive_bayes.GaussianNB"}, "desired_dist": shares}
    found = make_part("imblearn.RandomUnderSampler", params, "[models.m]")

    assert found.desired_dist == {True: 0.4, False: 0.6}
    assert make_part("compose.Renamer", {"mapping": {"a": "b"}}, "[models.m]").mapping == {"a": "b"}


TREE = {"use": "tree.HoeffdingTreeClassifier"}
STEP = '{ use = "preprocessing.StandardScaler" }'
ABSENT = f"is not in river {version('river')}"


@pytest.mark.parametrize(
    ("name", "params", "lines"),
    [
        (
            "ensemble.BaggingClassifier",
            {"model": {"use": "tree.HoeffdingTreeClasifier"}},
            [
                f'[models.m] model.use: "tree.HoeffdingTreeClasifier" {ABSENT}; did you mean "{TREE["use"]}"?',
            ],
        ),
        (
            "tre.HoeffdingTreeClassifier",
            {},
            [f'[models.m] kind: "tre.HoeffdingTreeClassifier" {ABSENT}; did you mean "tree"?'],
        ),
        (
            "ensemble.BaggingClassifier",
            {"model": {**TREE, "grace_perod": 3}, "n_models": 2},
            None,
        ),
        (
            "linear_model.LogisticRegression",
            {"optimizer": {"use": "optim.SGD", "lr": "fast", "speed": 1}, "l3": 1.0},
            None,
        ),
        (
            "ensemble.StackingClassifier",
            {"models": [TREE, {"use": 3}]},
            [
                "[models.m] meta_classifier: missing: StackingClassifier needs it",
                "[models.m] models.1.use: 3 is not right; allowed: <module>.<Class> of River",
            ],
        ),
        (
            "compose.Pipeline",
            {"steps": [{"use": "preprocessing.StandardScaler", "only": "number"}, {**TREE, "only": "numbers"}]},
            [
                '[models.m] steps.0.only: "number" is unknown; allowed: numbers, categories',
                "[models.m] steps.1.only: the step changes no columns; allowed: it beside a transformer only",
            ],
        ),
        (
            "compose.Pipeline",
            {"steps": []},
            [
                f"[models.m] steps: is not right; allowed: a list of tables such as {STEP}",
            ],
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_key_and_the_nearest_name(
    name: str, params: dict[str, Any], lines: list[str] | None
) -> None:
    with pytest.raises(PipelineError) as caught:
        make_part(name, params, "[models.m]")

    found = caught.value.mistakes
    if lines is not None:
        assert found == lines
    elif "model" in params:
        assert len(found) == 1
        assert found[0].startswith("[models.m] model.grace_perod: unknown key; allowed: grace_period, max_depth")
        assert found[0].endswith('did you mean "grace_period"?')
    else:
        assert [line.partition(";")[0] for line in found] == [
            "[models.m] l3: unknown key",
            "[models.m] optimizer.speed: unknown key",
        ]


@pytest.mark.parametrize(
    "name",
    ["datasets.Phishing", "stream.Cache", "datasets.base.FileDataset", "checks.check_estimator", "utils.os.system"],
)
def test_a_record_from_the_network_makes_nothing_that_opens_files(name: str) -> None:
    """Whoever can write a version's record may name a class and its parameters."""
    with pytest.raises(PipelineError, match="kind: "):
        make_part(name, {}, "[models.m]")


def test_tables_do_not_lie_deeper_than_anyone_needs() -> None:
    """A record with a million brackets is refused before Python's own limit is met."""
    params: dict[str, Any] = {"model": TREE}
    for _ in range(40):
        params = {"model": {"use": "ensemble.BaggingClassifier", **params}}
    with pytest.raises(PipelineError, match="lies too deep"):
        make_part("ensemble.BaggingClassifier", params, "[models.m]")
