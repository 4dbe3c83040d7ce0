"""Users' own learners: found by import path, given clean rows, asked only for arrays, refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.contained import Contained
from models.learner import LEARN, PREDICT, SKIP, make_learner
from models.model_check import check_models, find_mistakes
from models.own_learner import OwnLearner
from models.registry import read_version, write_version
from models.river_learner import FOR_NUMBERS
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.pipeline_file import read_pipeline
from tests import own_learners

COLUMNS = (Column("a", False), Column("c", True))
HERE = "tests.own_learners"


def make(name: str, task: Task | None = None, **params: Any) -> OwnLearner:
    return OwnLearner(Model("m", f"{HERE}:{name}", params), COLUMNS, task)


def test_it_is_made_with_columns_task_and_settings_and_contained() -> None:
    found = make_learner(Model("m", f"{HERE}:Running", {"rate": 0.5}), COLUMNS, None, Task("regression"))
    assert isinstance(found, Contained)
    assert isinstance(found.learner, OwnLearner)
    inner = found.learner._learner

    assert isinstance(inner, own_learners.Running)
    assert (inner.columns, inner.task, inner.rate) == (COLUMNS, Task("regression"), 0.5)


@pytest.mark.parametrize("name", ["Running", "Stepping"])
def test_mixed_rows_are_taken_in_order_with_or_without_a_step_of_its_own(name: str) -> None:
    """Equal to the same class driven by hand, row by row."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(200, 2)), (rng.random(200) < 0.4).astype(float)
    action = rng.choice([SKIP, PREDICT, LEARN], 200).astype(np.int8)
    y[::9] = np.nan
    alone, expected = own_learners.Running(COLUMNS, Task()), np.full(200, np.nan)
    for i, what in enumerate(action.tolist()):
        if what == PREDICT:
            expected[i] = alone.predict(X[i : i + 1])[0]
        elif what == LEARN and not np.isnan(y[i]):
            alone.learn(X[i : i + 1], y[i : i + 1])

    assert np.array_equal(make(name).step(X, y, action), expected, equal_nan=True)


def test_what_it_is_given_is_clean_and_its_own() -> None:
    """Absurd numbers are NaN, broken categories too, rows without a label do not come, and the caller's rows stay."""
    X = np.array([[np.inf, 1.0], [1e308, -1.0], [2.0, 0.5], [3.0, 4.0]])
    kept = X.copy()
    learner = make("Outside")
    learner.learn(X, np.array([1.0, np.nan, 0.0, 1.0]))
    learner.step(X, np.full(4, np.nan), np.full(4, LEARN, np.int8))

    assert learner.state()["rows"] == 3
    assert np.array_equal(X, kept)


def test_answers_that_are_none_are_replaced_and_counted() -> None:
    learner = make("Endless")
    assert learner.predict(np.array([[1.0, 1.0], [np.nan, 1.0]])).tolist() == [0.5, 0.5]
    assert learner.replaced_predictions == 2
    many = make("Shares", Task("multiclass", ("x", "y")))
    many._learner.predict = lambda X: np.full((len(X), 2), 0.7)

    assert many.predict(np.zeros((1, 2))).tolist() == [[0.5, 0.5]]
    assert many.replaced_predictions == 1


def test_its_size_is_what_it_says_or_that_of_its_last_state() -> None:
    """It is asked with every block of scores, which must not cost a copy of the model."""
    said, silent = make("Stepping"), make("Running")
    before = silent.size_bytes()
    state = silent.state()
    taken = make("Running")
    taken.restore(state)

    assert said.size_bytes() == 16
    assert (before, silent.size_bytes(), taken.size_bytes()) == (0, 24, 24)


def test_a_learner_that_does_not_say_is_finite_if_its_arrays_are() -> None:
    learner = make("Running", Task("regression"))
    assert learner.is_finite()
    learner.learn(np.ones((1, 2)), np.array([np.inf]))

    assert not learner.is_finite()


@pytest.mark.parametrize(
    ("name", "verb", "message"),
    [
        ("Misshapen", "predict", r"answers an array of shape \(1,\) for 3 rows; needed: \(3,\)"),
        ("Pickled", "state", r"state gives object values as 'mean'; allowed: arrays of numbers or texts"),
    ],
)
def test_what_is_no_answer_and_no_state_is_refused(name: str, verb: str, message: str) -> None:
    learner = make(name)
    with pytest.raises(ModelError, match=message):
        learner.predict(np.zeros((3, 2))) if verb == "predict" else learner.state()


def test_states_of_objects_and_odd_names_are_refused() -> None:
    learner = make("Running")
    for state, message in (
        ([1], "state gives a list; allowed: a dict"),
        ({"a": {}}, "state gives a dict as 'a'"),
        ({"a": "text"}, "state gives a str as 'a'"),
        ({"../a": 1}, r"state names an array '../a'"),
        ({1: 1}, "state names an array 1"),
    ):
        learner._learner.state = lambda found=state: found
        with pytest.raises(ModelError, match=message):
            learner.state()


def test_a_version_is_written_and_read_without_a_pickle(tmp_path: Path) -> None:
    model = Model("m", f"{HERE}:Running", {"rate": 0.5})
    learner = make_learner(model, COLUMNS)
    learner.learn(np.ones((9, 2)), np.ones(9))
    version = write_version(tmp_path, model, COLUMNS, learner, (0, 9), 1)
    assert version is not None
    found = read_version(tmp_path, version, kind=model.kind)

    assert np.array_equal(found.predict(np.ones((1, 2))), learner.predict(np.ones((1, 2))))
    with pytest.raises(ModelError, match="is of a learner that is not declared"):
        read_version(tmp_path, version, kind="linear")


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("no_module:Thing", {}, r"\[models.m\] kind: 'no_module:Thing' cannot be imported: ModuleNotFound.*PYTHON"),
        (f"{HERE}:Runing", {}, f'is no class of {HERE}; did you mean "Running"'),
        (f"{HERE}:Lacking", {}, "has no learn, state, restore; see docs/own-learners.md"),
        (f"{HERE}:Running", {"rat": 1}, r"\[models.m\] rat: unknown key; allowed: rate; did you mean \"rate\""),
        (f"{HERE}:Shares", {"rate": 1}, r"\[models.m\] rate: unknown key; allowed: none"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_told_in_one_line(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        make_learner(Model("m", kind, params), COLUMNS)

    assert len(caught.value.mistakes) == 1


FILE = """
[pipeline]
name = "shop"
[events]
topic = "visits"
[events.fields]
price = "number"
shop = "category"
[labels]
topic = "orders"
id = "visit"
value = "bought"
wait = "1h"
"""


def checked(folder: Path, models: str) -> list[str]:
    """Read a pipeline file and try its models, as `millrace check` does; gives the mistakes."""
    path = folder / "shop.toml"
    path.write_text(FILE + models, encoding="utf-8")
    try:
        check_models(read_pipeline(path, {}))
    except PipelineError as error:
        return error.mistakes
    return []


def test_check_builds_and_tries_every_model(tmp_path: Path) -> None:
    """All that are wrong are told of at once, also those that only fail when they learn."""
    good = """
[models.linear]
kind = "linear"
[models.mine]
kind = "tests.own_learners:Running"
rate = 0.2
[models.bag]
kind = "river:ensemble.BaggingClassifier"
n_models = 2
model = { use = "tree.HoeffdingTreeClassifier" }
"""
    bad = """
[models.bag]
kind = "river:ensemble.BaggingClassifier"
model = { use = "tree.HoefdingTreeClassifier" }
[models.bayes]
kind = "river:naive_bayes.GaussianNB"
[models.mine]
kind = "tests.own_learners:Fragile"
limit = 2.0
[models.number]
kind = "river:linear_model.LinearRegression"
"""
    bag, bayes, mine, number = checked(tmp_path, bad)

    assert checked(tmp_path, good) == []
    assert bag.startswith("[models.bag] model.use: ")
    assert bayes.startswith("[models.bayes] kind: the model bayes (river:naive_bayes.GaussianNB) failed: ")
    assert bayes.endswith(FOR_NUMBERS)
    assert mine.startswith(
        "[models.mine] kind: the model mine (tests.own_learners:Fragile) failed in learn: ValueError"
    )
    assert number.startswith("[models.number] kind: 'river:linear_model.LinearRegression' is no classifier")


def test_mistakes_of_rivers_models_come_with_all_others_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Also where the rest of the file cannot be used; what may follow from another mistake is not told."""
    path = tmp_path / "shop.toml"
    models = """
[models.tree]
kind = "river:tree.HoeffdingTreeClassifier"
grace_perod = 50
[models.linear]
kind = "linear"
lr = -1
[models.late]
kind = "river:tree.NoTree"
on_drift = "sometimes"
[run]
snapshot_evry = "1s"
"""
    path.write_text(FILE.replace('name = "shop"', 'nam = "shop"') + models, encoding="utf-8")
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path, {}, find_mistakes)
    told = [line.partition(":")[0] for line in caught.value.mistakes]
    path.write_text(FILE + '[task]\nkind = "regresion"' + models, encoding="utf-8")
    with pytest.raises(PipelineError) as follows:
        read_pipeline(path, {}, find_mistakes)

    assert told == [
        "[pipeline] name",
        "[pipeline] nam",
        "[models.tree] grace_perod",
        "[models.linear] lr",
        "[models.late] on_drift",
        "[run] snapshot_evry",
    ]
    assert "grace_perod" not in str(follows.value)
