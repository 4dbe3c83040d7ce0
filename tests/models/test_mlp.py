"""The compiled multi-layer perceptron equals one in plain NumPy on real streams, and cannot be driven to NaN."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river import datasets

from models import mlp
from models.learner import LEARN, PREDICT, SKIP, make_learner
from models.mlp import MlpLearner
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.model_setting import Value
from streams.pipeline import Model, Task
from tests.mlp_reference import Reference
from tests.models.learner_rules import assert_absurd_is_missing, assert_cuts_change_no_bit, repeated

Floats = npt.NDArray[np.float64]

COLUMNS = (Column("delay", False), Column("carrier", True), Column("distance", False), Column("origin", True))
BINARY, NUMBERS, CLASSES = Task(), Task("regression"), Task("multiclass", ("a", "b", "c"))
TASKS = {"binary": BINARY, "multiclass": CLASSES, "regression": NUMBERS}
LABELS: dict[str, Callable[[Floats], Floats]] = {
    "binary": lambda s: (s > 0.0).astype(float),
    "multiclass": lambda s: (s > 0.0).astype(float) + (s > 2.0),
    "regression": lambda s: 1_000.0 + 30.0 * s,
}
PYTHONS_FIRST = [0.8444218515250481, 0.7579544029403025, 0.420571580830845]  # random.Random(0).random(), in any release
USUAL: dict[str, Any] = {"activation": "relu", "optimizer": "sgd", "lr": 0.05, "clip": 5.0}


def make(task: Task = BINARY, columns: tuple[Column, ...] = COLUMNS, **params: Value) -> MlpLearner:
    return MlpLearner(Model("net", "mlp", params), columns, task)


def rows_of(task: Task, rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Give rows of COLUMNS with holes, and labels that depend on both numbers together and on a category."""
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [rng.normal(10, 40, rows), rng.integers(0, 9, rows), rng.lognormal(6, 1, rows), rng.integers(0, 3, rows)]
    ).astype(float)
    signal = (X[:, 0] - 10) / 40 * np.sign(np.log(X[:, 2]) - 6) + 2.0 * (X[:, 1] > 5) - 1.0 + rng.normal(0, 0.3, rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, LABELS[task.kind](signal)


@cache
def published(name: str, rows: int) -> tuple[tuple[Column, ...], Floats, Floats, Task]:
    """Give the numbers of a stream that River ships."""
    made: Any = getattr(datasets, name)
    pairs = [pair for pair, _ in zip(made(), range(rows), strict=False)]
    names = [key for key, value in pairs[0][0].items() if isinstance(value, int | float)]
    X = np.array([[x[key] for key in names] for x, _ in pairs], float)
    found = [y for _, y in pairs]
    task = NUMBERS if name == "TrumpApproval" else BINARY
    if name == "ImageSegments":
        task = Task("multiclass", tuple(sorted(set(found))))
        found = [task.classes.index(y) for y in found]
    return tuple(Column(key, False) for key in names), X, np.array(found, float), task


def delayed(rows: int) -> npt.NDArray[np.int64]:
    """Give an order of events (i) and labels (-1 - i) where each label comes 1 to 50 events later."""
    due = np.arange(rows) + np.random.default_rng(1).integers(1, 50, rows)
    order = np.concatenate([np.arange(rows), -1 - np.arange(rows)])
    return order[np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")]


def compare(learner: MlpLearner, reference: Reference, X: Floats, y: Floats, scale: float = 1.0) -> Floats:
    """Give all answers, when each is the reference's within 1e-9, and so is each weight in the end."""
    order = delayed(len(X))
    event = np.where(order >= 0, order, -1 - order)
    ours = learner.step(X[event], y[event], np.where(order >= 0, PREDICT, LEARN).astype(np.int8))
    said = []
    for at, i in enumerate(event.tolist()):
        if order[at] >= 0:
            said.append(reference.predict(X[i]))
        else:
            reference.learn(X[i], y[i])

    found = ours[order >= 0].reshape(len(X), -1)
    np.testing.assert_allclose(found, np.array(said), rtol=0, atol=1e-9 * scale)
    for name, array in learner.torch_weights().items():
        np.testing.assert_allclose(array, reference.weights[name], rtol=0, atol=1e-9, err_msg=name)
    return found


@pytest.mark.parametrize(
    ("stream", "params"),
    [
        ("Bananas", {}),
        ("Bananas", {"optimizer": "adam", "lr": 0.003}),
        ("ImageSegments", {}),
        ("ImageSegments", {"activation": "tanh", "clip": 0.5}),
        ("ImageSegments", {"optimizer": "adam", "lr": 0.001, "activation": "tanh"}),
        ("TrumpApproval", {}),
        ("TrumpApproval", {"optimizer": "adam", "lr": 0.003}),
    ],
)
def test_every_prediction_on_a_published_stream_equals_plain_numpys(stream: str, params: dict[str, Any]) -> None:
    columns, X, y, task = published(stream, 400)
    learner = make(task, columns, **{**USUAL, **params})
    reference = Reference(columns, task.kind, learner.torch_weights(), {**USUAL, **params})

    found = compare(learner, reference, X, y, scale=10.0 if task is NUMBERS else 1.0)

    assert found[100:].std(axis=0).max() > 0.02


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("bits", "hidden"), [(10, (9, 5, 3)), (2, (7,))])
def test_categories_and_missing_numbers_equal_plain_numpys_even_where_categories_collide(
    task: Task, optimizer: str, bits: int, hidden: tuple[int, ...]
) -> None:
    X, y = rows_of(task, 300)
    learner = make(task, optimizer=optimizer, lr=0.02, bits=bits, hidden=hidden, clip=2.0)
    changed = {**USUAL, "optimizer": optimizer, "lr": 0.02, "clip": 2.0}
    reference = Reference(COLUMNS, task.kind, learner.torch_weights(), changed)

    compare(learner, reference, X, y, scale=1e4 if task is NUMBERS else 1.0)

    assert np.abs(learner.torch_weights()["categories.weight"]).max() > 0.01


def test_it_learns_what_no_line_can_divide() -> None:
    columns, X, y, task = published("Bananas", 5_300)
    rows, action = np.repeat(np.arange(len(X)), 2), np.tile([PREDICT, LEARN], len(X)).astype(np.int8)
    right = {
        kind: ((make_learner(Model("m", kind, {}), columns, None, task).step(X[rows], y[rows], action)[::2] > 0.5) == y)
        for kind in ("mlp", "linear")
    }

    assert right["linear"].mean() < 0.56
    assert right["mlp"].mean() > 0.79
    assert right["mlp"][-1_000:].mean() > 0.85


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("cuts", [[1], [7, 7, 300]])
def test_cutting_rows_into_other_batches_changes_no_bit(cuts: list[int], optimizer: str) -> None:
    X, y = rows_of(CLASSES, 1_000)
    assert_cuts_change_no_bit(
        make(CLASSES, optimizer=optimizer), make(CLASSES, optimizer=optimizer), X, y, repeated(cuts, 1_000)
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_restored_model_goes_on_bit_for_bit(task: Task, optimizer: str) -> None:
    X, y = rows_of(task, 600)
    first, whole, second = (make(task, optimizer=optimizer) for _ in range(3))
    first.learn(X[:300], y[:300])
    state = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in first.state().items()}
    second.restore(state)
    second.learn(X[300:], y[300:])
    whole.learn(X, y)

    assert np.array_equal(second.predict(X), whole.predict(X))


def test_predicting_changes_nothing_and_skipped_or_unlabelled_rows_are_not_learned() -> None:
    X, y = rows_of(NUMBERS, 200)
    learner = make(NUMBERS, optimizer="adam")
    learner.learn(X, y)
    before = learner.state()
    learner.predict(X)
    learner.inputs(X)
    learner.step(X, y, np.full(200, SKIP, np.int8))
    for label in (np.nan, np.inf, -np.inf, 1e31):
        learner.learn(X, np.full(200, label))

    assert all(np.array_equal(a, learner.state()[name]) for name, a in before.items())


@given(
    st.tuples(st.sampled_from(sorted(TASKS)), st.sampled_from(["sgd", "adam"])),
    hnp.arrays(np.float64, (40, len(COLUMNS)), elements=st.floats(allow_nan=True, allow_infinity=True)),
    hnp.arrays(np.float64, 40, elements=st.floats(-1e30, 1e30)),
)
@settings(max_examples=80, deadline=None)
def test_no_input_makes_the_model_not_finite(net: tuple[str, str], X: Floats, y: Floats) -> None:
    task = TASKS[net[0]]
    label = y if task is NUMBERS else (y > 0.0).astype(float)
    learner = make(task, optimizer=net[1], lr=1.0, clip=1_000.0)
    learner.learn(X, label)
    score = learner.predict(X)

    assert learner.is_finite()
    assert np.isfinite(score).all()
    assert task is NUMBERS or ((score >= 0) & (score <= 1)).all()


def test_a_label_of_1e30_among_usual_ones_leaves_a_model_that_learns_on() -> None:
    X, y = rows_of(NUMBERS, 2_000)
    learner = make(NUMBERS)
    learner.learn(X[:1_000], y[:1_000])
    learner.learn(X[:1], np.array([1e30]))
    learner.learn(X[1_000:], y[1_000:])

    assert learner.is_finite()
    assert np.isfinite(learner.predict(X)).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_endless_new_categories_take_no_memory_and_leave_it_right(optimizer: str) -> None:
    rng = np.random.default_rng(5)
    X = np.column_stack([rng.normal(size=10_000), np.arange(10_000.0)])
    y = (X[:, 0] > 0.0).astype(float)
    learner = make(columns=COLUMNS[:2], optimizer=optimizer)
    size = learner.size_bytes()
    learner.learn(X[:9_000], y[:9_000])

    assert learner.size_bytes() == size
    assert learner.is_finite()
    assert ((learner.predict(X[9_000:]) > 0.5) == y[9_000:]).mean() > 0.95


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e31, -1e31])
def test_an_absurd_number_is_a_missing_number(bad: float) -> None:
    X, y = rows_of(BINARY, 100)
    assert_absurd_is_missing(make(), make(), X, y, 0, bad)


@pytest.mark.parametrize("bad", [-1.0, 0.5, 2.0**53, np.inf])
def test_a_category_that_is_no_exact_integer_is_missing(bad: float) -> None:
    X, y = rows_of(BINARY, 100)
    assert_absurd_is_missing(make(), make(), X, y, 1, bad)


def test_a_number_far_from_all_others_counts_as_ten_deviations() -> None:
    X, y = rows_of(BINARY, 300)
    learner = make()
    learner.learn(X, y)
    far = X[:1].copy()
    far[0, 0] = 1e29

    assert learner.inputs(far)[0][0, 0] == 10.0
    assert learner.inputs(-far)[0][0, 0] == -10.0


def test_adams_moments_end_in_nothing_instead_of_in_subnormal_numbers() -> None:
    learner = make(columns=COLUMNS[:1], optimizer="adam", hidden=(8,))
    X = np.full((60_000, 1), np.nan)  # after the first rows the column is missing, and the gradient of its weights 0
    X[:50, 0] = np.arange(50)
    learner.learn(X, np.tile([0.0, 1.0], 30_000))
    first, second = (learner.state()[name][:8].astype(float) for name in ("first", "second"))

    assert (first == 0.0).all()
    assert ((second == 0.0) | (second > 1e-200)).all()
    assert (second > 0.0).any()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_exported_weights_and_inputs_are_all_that_an_answer_is_made_of(task: Task) -> None:
    X, y = rows_of(task, 300)
    learner = make(task, bits=6)
    learner.learn(X, y)
    weights, (z, slot) = learner.torch_weights(), learner.inputs(X)
    width, outputs = len(COLUMNS) - 2, task.outputs
    shapes = {name: array.shape for name, array in weights.items()}
    hot = np.array([np.bincount(row[row >= 0], minlength=64) for row in slot])
    above = z @ weights["0.weight"].T + weights["0.bias"] + hot @ weights["categories.weight"]
    for layer in ("2", "4"):
        above = np.maximum(above, 0.0) @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    label = learner.state()["label"].astype(float)
    expected = {
        "binary": 1 / (1 + np.exp(-above[:, 0])),
        "multiclass": np.exp(above) / np.exp(above).sum(axis=1, keepdims=True),
        "regression": above[:, 0] * np.sqrt(label[2]) + label[1],
    }[task.kind]

    assert shapes == {
        "0.weight": (64, width),
        "0.bias": (64,),
        "2.weight": (32, 64),
        "2.bias": (32,),
        "4.weight": (outputs, 32),
        "4.bias": (outputs,),
        "categories.weight": (64, 64),
    }
    np.testing.assert_allclose(learner.predict(X), expected, rtol=1e-12, atol=1e-12)


def test_weights_that_were_taken_answer_as_where_they_come_from_and_learn_on() -> None:
    X, y = rows_of(CLASSES, 400)
    taught, taking = make(CLASSES), make(CLASSES, seed=7, optimizer="adam")
    taught.learn(X, y)
    taking.learn(X, y)
    taking.take_torch_weights({name: array.tolist() for name, array in taught.torch_weights().items()})

    assert np.array_equal(taking.predict(X), taught.predict(X))
    assert not taking.state()["first"].any()
    assert taking.state()["steps"] == 0.0

    taking.learn(X, y)

    assert np.abs(taking.predict(X) - taught.predict(X)).max() > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"2.bias": None}, r"2.bias is missing, shape \(32,\) needed"),
        ({"0.weight": np.zeros((2, 64))}, r"0.weight has shape \(2, 64\), \(64, 2\) needed"),
        ({"4.bias": [np.nan]}, "4.bias has one that is not finite or beyond 1e"),
        ({"4.bias": [1e10]}, "4.bias has one that is not finite or beyond 1e"),
        ({"6.bias": [0.0]}, "6.bias found; needed are 0.weight, 0.bias, "),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(change: dict[str, Any], message: str) -> None:
    learner = make()
    before = learner.state()
    with pytest.raises(ModelError, match=message):
        learner.take_torch_weights({**learner.torch_weights(), **change})

    assert all(np.array_equal(a, learner.state()[name]) for name, a in before.items())


def test_the_seed_alone_gives_the_first_weights() -> None:
    first, same, other = make(), make(), make(seed=1)
    weights = first.torch_weights()
    most = {"0.weight": 1 / np.sqrt(2), "2.weight": 1 / 8, "4.bias": 1 / np.sqrt(32)}

    assert np.array_equal(first.state()["weight"], same.state()["weight"])
    assert not np.array_equal(first.state()["weight"], other.state()["weight"])
    assert all(0.6 * bound < np.abs(weights[name]).max() <= bound or name == "4.bias" for name, bound in most.items())
    assert np.allclose(weights["0.weight"][:3, 0], (2 * np.array(PYTHONS_FIRST) - 1) / np.sqrt(2), rtol=1e-15)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hidden": ()}, "hidden: a list of 0 is not right; allowed: a list of 1 to 8 whole numbers from 1 to 1024"),
        ({"hidden": (64, 0)}, "hidden: 0 in the list is not right"),
        ({"hidden": "64,32"}, 'hidden: "64,32" is not right'),
        ({"optimizer": "adagrad"}, 'optimizer: "adagrad" is unknown; allowed: sgd, adam'),
        ({"hidden": (1024,), "bits": 20}, "bits: 1,048,576 categories for 1024 units are more than 16,777,216 weights"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        make(**params)

    assert message in str(caught.value)


def test_the_examples_run() -> None:
    assert doctest.testmod(mlp).failed == 0


def test_a_state_of_other_layers_or_another_optimizer_is_refused() -> None:
    with pytest.raises(ModelError, match="weight is not whole"):
        make().restore(make(hidden=(64, 33)).state())
    with pytest.raises(ModelError, match="first is not whole"):
        make().restore(make(optimizer="adam").state())
