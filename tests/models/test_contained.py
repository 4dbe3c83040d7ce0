"""A learner that raises: what it was before the failing row remains, whatever batches the rows came in."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import contained
from models.contained import Contained, Failure
from models.learner import LEARN, PREDICT, Learner, make_learner
from models.own_learner import OwnLearner
from models.river_learner import RiverLearner
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Model, Task

KEY = b"k" * 32
COLUMNS = (Column("a", False), Column("b", False))
SCALER = {"use": "preprocessing.StandardScaler"}
STEPS = [SCALER, {"use": "compose.Select", "keys": ["a", "b"]}, {"use": "linear_model.LogisticRegression"}]
MODELS = {
    "river, whose scaler has learned when the next step fails": Model("m", "river:compose.Pipeline", {"steps": STEPS}),
    "own, half done": Model("m", "tests.own_learners:Fragile", {"limit": 90.0}),
    "own, in predict": Model("m", "tests.own_learners:Fragile", {"limit": 90.0, "verb": "predict"}),
}
FAILING = 130  # the row that makes each of them raise, a label except for the last


def bare(model: Model) -> Learner:
    return RiverLearner(model, COLUMNS, KEY) if model.kind.startswith("river:") else OwnLearner(model, COLUMNS)


def stream(model: Model) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Give rows predicted and learned in turn, one of which is too much."""
    rng = np.random.default_rng(9)
    X = rng.normal(size=(240, 2))
    y = (X[:, 0] > 0).astype(float)
    action = np.where(np.arange(240) % 3 == 0, PREDICT, LEARN).astype(np.int8)
    action[FAILING] = PREDICT if model.params.get("verb") == "predict" else LEARN
    X[FAILING] = [99.0, np.nan]
    return X, y, action


def fed(learner: Learner, rows: tuple[npt.NDArray[Any], ...], cuts: list[int]) -> npt.NDArray[Any]:
    """Give the answers to rows that come in batches."""
    bounds = [0, *cuts, len(rows[1])]
    said = [learner.step(*(part[a:b] for part in rows)) for a, b in pairwise(bounds)]
    return np.concatenate(said)


def contained_of(model: Model) -> Contained:
    found = make_learner(model, COLUMNS, KEY)
    assert isinstance(found, Contained)
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cuts", [[], [FAILING], [FAILING + 1], [40, 90, 131, 200], list(range(1, 240))], ids=len)
def test_what_remains_is_the_model_before_the_failing_row(name: str, cuts: list[int]) -> None:
    model = MODELS[name]
    rows, before = stream(model), bare(model)
    expected = before.step(*(part[:FAILING] for part in rows))
    found = contained_of(model)
    said = fed(found, rows, cuts)

    assert found.is_halted
    assert np.array_equal(said[:FAILING], expected, equal_nan=True)
    behind = [i for i in range(FAILING + 1, 240) if rows[2][i] == PREDICT]
    assert np.array_equal(said[behind], before.predict(rows[0][behind]))
    assert said[FAILING] == 0.5 or np.isnan(said[FAILING])
    ours, theirs = found.state(), before.state()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours if key != "sealed")
    again = bare(model)
    again.restore(ours)
    assert np.array_equal(again.predict(rows[0][behind]), said[behind])


def test_the_failure_names_the_row_and_the_reason_in_one_line() -> None:
    model = MODELS["own, half done"]
    rows, found = stream(model), contained_of(model)
    found.step(*(part[:100] for part in rows))
    assert found.failure is None
    found.step(*(part[100:] for part in rows))

    name = "the model m (tests.own_learners:Fragile)"
    assert found.failure == Failure(30, f"{name} failed in learn: ValueError: it is beyond what I know")


@pytest.mark.parametrize("name", MODELS)
def test_the_model_comes_back_from_the_last_state_and_the_rows_since(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot in between, a restart, or too many rows to keep: the same model remains."""
    model, chance = MODELS[name], random.Random(1)
    rows, expected = stream(model), contained_of(model)
    fed(expected, rows, [])
    monkeypatch.setattr(contained, "MOST_KEPT_BYTES", 500)
    found, start = contained_of(model), 0
    while start < len(rows[1]):
        size = chance.randrange(1, 30)
        found.step(*(part[start : start + size] for part in rows))
        start += size
        if chance.random() < 0.2 and not found.is_halted:
            state, found = found.state(), contained_of(model)
            found.restore(state)

    asked = rows[0][:FAILING]
    assert found.is_halted
    assert np.array_equal(found.predict(asked), expected.predict(asked))


def test_rows_that_are_kept_do_not_outgrow_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contained, "MOST_KEPT_BYTES", 1_000)
    found = contained_of(MODELS["own, half done"])
    for _ in range(50):
        found.step(np.zeros((10, 2)), np.ones(10), np.full(10, LEARN, np.int8))
        assert found._since_bytes <= 1_000 + 10 * 25


def test_a_halted_learner_answers_and_learns_nothing() -> None:
    found = contained_of(MODELS["own, half done"])
    found.learn(np.ones((5, 2)), np.ones(5))
    before = found.predict(np.ones((2, 2)))
    found.halt()
    found.learn(np.ones((50, 2)), np.zeros(50))

    assert before[0] > 0.5
    assert np.array_equal(found.predict(np.ones((2, 2))), before)


@pytest.mark.parametrize(("task", "blank"), [(Task(), 0.5), (Task("regression"), 0.0)])
def test_rows_that_cannot_be_answered_get_what_an_untrained_model_says_and_the_others_their_own(
    task: Task, blank: float
) -> None:
    """As in serving, where nothing is learned and every row must be answered."""
    model = Model("m", "tests.own_learners:Fragile", {"limit": 3.0, "verb": "predict"})
    found = make_learner(model, COLUMNS, None, task)
    assert isinstance(found, Contained)
    found.learn(np.ones((20, 2)), np.ones(20))
    said = found.predict(np.array([[1.0, 0.0], [9.0, 0.0], [1.0, 0.0]]))

    assert said[1] == blank
    assert said[0] == said[2] > 0.8
    assert (found.failed_answers, found.is_halted) == (1, False)


def test_a_learner_that_fails_only_now_and_then_is_set_aside_with_that_reason() -> None:
    model = MODELS["own, half done"]
    found = contained_of(model)
    inner: Any = found.learner
    inner._learner.learn = lambda *_: 1 / 0  # this object only: one made anew does not fail
    found.learn(np.ones((3, 2)), np.ones(3))

    assert found.failure is not None
    assert found.failure.row == 0
    assert "not deterministic" in found.failure.reason
    assert found.predict(np.ones((1, 2))).tolist() == [0.5]


def test_a_reason_is_the_same_line_in_every_process_and_no_longer_than_people_read() -> None:
    """Addresses of objects differ from process to process, and some exceptions show whole arrays."""
    found = contained_of(MODELS["own, half done"])
    inner: Any = found.learner

    def fail(*_: Any) -> None:
        raise ValueError(f"{object()} is none\n" + "of these " * 100)

    inner._learner.learn = fail
    found.learn(np.ones((3, 2)), np.ones(3))

    assert found.failure is not None
    assert "<object object> is none of these" in found.failure.reason
    assert len(found.failure.reason) == 500


def test_running_out_of_memory_is_no_failure_of_the_learner() -> None:
    found = contained_of(MODELS["own, half done"])
    inner: Any = found.learner

    def out(*_: Any) -> None:
        raise MemoryError

    inner._learner.learn = out
    with pytest.raises(MemoryError):
        found.learn(np.ones((3, 2)), np.ones(3))


def test_without_a_key_a_river_model_raises_itself() -> None:
    """There would be nothing to come back to."""
    learner = make_learner(MODELS["river, whose scaler has learned when the next step fails"], COLUMNS)
    with pytest.raises(ModelError, match="KeyError"):
        learner.learn(np.array([[np.nan, 1.0]]), np.ones(1))
