"""The compiled linear model equals River's pipeline on every prediction, and cannot be driven to NaN."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import compose, linear_model, optim, preprocessing

from models.learner import LEARN, PREDICT, SKIP
from models.linear import LinearLearner
from models.linear_kernels import category_slot
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model
from tests.models.learner_rules import assert_absurd_is_missing, assert_cuts_change_no_bit, repeated

COLUMNS = (
    Column("delay", False),
    Column("carrier", True),
    Column("distance", False),
    Column("origin", True),
    Column("constant", False),
    Column("late", False),
)
BITS = 18
GOLDEN = [  # River 0.26.1's answers, too
    0.5154868719787162,
    0.487124803622436,
    0.5301034553182297,
    0.46743886904071236,
    0.5183581625186305,
    0.47568626270737036,
]


def make(**params: float) -> LinearLearner:
    return LinearLearner(Model("logistic", "linear", {"lr": 0.05, **params}), COLUMNS)


def flights(rows: int, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    X = np.empty((rows, len(COLUMNS)))
    X[:, 0] = rng.normal(10, 40, rows)
    X[:, 1] = rng.integers(0, 16, rows) * 2**40 + 12_345
    X[:, 2] = rng.lognormal(6, 1, rows)
    X[:, 3] = rng.integers(0, 30, rows)
    X[:, 4] = 7.0
    X[:, 5] = rng.random(rows) < 0.3
    y = (rng.random(rows) < 1 / (1 + np.exp(-X[:, 0] / 40 - (X[:, 3] > 20)))).astype(float)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, y


def river_rows(X: npt.NDArray[np.float64]) -> list[dict[str, float | str]]:
    return [
        {c.name: str(int(v)) if c.is_category else v for c, v in zip(COLUMNS, row, strict=True) if not np.isnan(v)}
        for row in X.tolist()
    ]


def river_pipeline(lr: float, **params: Any) -> Any:
    number = compose.SelectType(numbers.Number) | preprocessing.StandardScaler()
    category = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return number + category | linear_model.LogisticRegression(optim.SGD(lr), **params)


def delayed(rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Give an order of events (i) and labels (-1 - i) where each label comes 1 to 400 events later."""
    due = np.arange(rows) + np.random.default_rng(seed).integers(1, 400, rows)
    order = np.concatenate([np.arange(rows), -1 - np.arange(rows)])
    return order[np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")]


@pytest.mark.parametrize(
    ("rows", "params"),
    [
        (21_000, {}),
        (3_000, {"intercept_lr": 0.2}),
        (2_000, {"l2": 0.01}),
        (1_500, {"l2": 15.0}),
    ],
)
def test_every_prediction_equals_river_with_missing_values_categories_and_delayed_labels(
    rows: int, params: dict[str, float]
) -> None:
    X, y = flights(rows)
    places = {(c, v): category_slot(c, v, 2**BITS) for c in (1, 3) for v in np.unique(X[:, c]) if not np.isnan(v)}
    assert len(set(places.values())) == len(places), "choose another seed: two categories collide"

    order = delayed(rows, seed=1)
    event = np.where(order >= 0, order, -1 - order)
    action = np.where(order >= 0, PREDICT, LEARN).astype(np.int8)
    ours = make(**params).step(X[event], y[event], action)
    reference, river_x = river_pipeline(0.05, **params), river_rows(X)
    theirs = np.full(len(order), np.nan)
    for at, i in enumerate(event.tolist()):
        if action[at] == PREDICT:
            theirs[at] = reference.predict_proba_one(river_x[i])[True]
        else:
            reference.learn_one(river_x[i], bool(y[i]))

    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert np.nanstd(ours) > 0.02


def test_a_small_learning_history_gives_these_numbers() -> None:
    X, y = flights(6, seed=3)
    learner = make()
    learner.learn(X, y)

    np.testing.assert_allclose(learner.predict(X), GOLDEN, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cuts", [[1], [7, 7, 300], [1000]])
def test_cutting_rows_into_other_batches_changes_no_bit(cuts: list[int]) -> None:
    X, y = flights(1000)
    assert_cuts_change_no_bit(make(), make(), X, y, repeated(cuts, 1000))


def test_a_restored_model_goes_on_bit_for_bit() -> None:
    X, y = flights(600)
    first, whole, second = make(l2=0.1), make(l2=0.1), make(l2=0.1)
    first.learn(X[:300], y[:300])
    state = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in first.state().items()}
    second.restore(state)
    second.learn(X[300:], y[300:])
    whole.learn(X, y)

    assert np.array_equal(second.predict(X), whole.predict(X))


def test_predicting_changes_nothing_and_skipped_or_unlabelled_rows_are_not_learned() -> None:
    X, y = flights(200)
    learner = make()
    learner.learn(X, y)
    before = learner.state()
    learner.predict(X)
    learner.step(X, y, np.full(200, SKIP, np.int8))
    learner.learn(X, np.full(200, np.nan))

    assert all(np.array_equal(a, learner.state()[name]) for name, a in before.items())


def test_decayed_categories_survive_more_steps_than_a_float_has_exponents() -> None:
    column = (Column("c", True),)
    learner = LinearLearner(Model("m", "linear", {"lr": 0.5, "l2": 1.9}), column)
    X = np.tile([[1.0], [2.0]], (600, 1))
    learner.learn(X, np.tile([0.0, 1.0], 600))

    assert learner.is_finite()
    assert learner.predict(np.array([[1.0]]))[0] < 0.5 < learner.predict(np.array([[2.0]]))[0]


@given(
    hnp.arrays(np.float64, (40, len(COLUMNS)), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=40, max_size=40),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_no_input_makes_the_model_not_finite(X: npt.NDArray[np.float64], y: list[float], l2: float) -> None:
    learner = make(l2=l2)
    learner.learn(X, np.array(y))
    score = learner.predict(X)

    assert learner.is_finite()
    assert ((score >= 0) & (score <= 1)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e31, -1e31])
def test_an_absurd_number_is_a_missing_number(bad: float) -> None:
    X, y = flights(100)
    assert_absurd_is_missing(make(), make(), X, y, 0, bad)


@pytest.mark.parametrize("bad", [-1.0, 0.5, 2.0**53, np.inf])
def test_a_category_that_is_no_exact_integer_is_missing(bad: float) -> None:
    X, y = flights(100)
    assert_absurd_is_missing(make(), make(), X, y, 1, bad)


def test_a_category_keeps_its_place_for_ever() -> None:
    places = [category_slot(c, v, 2**18) for c, v in ((0, 0.0), (0, 1.0), (1, 0.0), (5, 2.0**52))]

    assert places == [118191, 154817, 91636, 36621]
    assert category_slot(0, 1.0, 2**10) == places[1] % 2**10


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"rate": 1.0},
            "rate: unknown key; allowed: bits, intercept_lr, l1, l2, lr, optimizer, weight_neg, weight_pos",
        ),
        ({"lr": "fast"}, 'lr: "fast" is not right; allowed: a number above 0 up to 1000'),
        ({"lr": float("nan")}, "lr: NaN is not right"),
        ({"bits": 40}, "bits: 40 is not right; allowed: a whole number from 1 to 28"),
        ({"bits": 3.5}, "bits: 3.5 is not right"),
        ({"lr": 1.0, "l2": 1.0}, "l2: lr * l2 is 1 or more"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(params: dict[str, float | str], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        LinearLearner(Model("m", "linear", params), COLUMNS)

    assert message in str(caught.value)


def test_a_state_of_another_shape_is_refused() -> None:
    other = LinearLearner(Model("m", "linear", {"bits": 4}), COLUMNS).state()
    with pytest.raises(ModelError, match="table is not whole"):
        make().restore(other)
    with pytest.raises(ModelError, match="seen is not whole"):
        make().restore({})
