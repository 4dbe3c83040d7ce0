"""Linear models with every optimiser, penalty and loss equal River's on every prediction, and stay finite."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import compose, datasets, linear_model, optim, preprocessing

from models.adaptive_linear import AdaptiveLinearLearner, linear_learner
from models.learner import LEARN, PREDICT, Learner, make_learner
from models.linear import LinearLearner
from models.registry import read_version, write_version
from models.softmax import SoftmaxLearner
from streams.errors import PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.snapshots import Manifest, SnapshotStore

Floats = npt.NDArray[np.float64]
Params = dict[str, bool | int | float | str]

YES_NO, NUMBERS = Task(), Task("regression")
CLASSES = Task("multiclass", ("on time", "late", "cancelled"))
SEGMENTS = Task("multiclass", ("brickface", "sky", "foliage", "cement", "window", "path", "grass"))
FLIGHTS = (Column("delay", False), Column("carrier", True), Column("distance", False), Column("origin", True))

STREAMS: dict[str, tuple[Any, Task]] = {
    "Phishing": (datasets.Phishing, YES_NO),
    "Bananas": (datasets.Bananas, YES_NO),
    "TrumpApproval": (datasets.TrumpApproval, NUMBERS),
    "ImageSegments": (datasets.ImageSegments, SEGMENTS),
}
OPTIMIZERS: tuple[tuple[str, Params], ...] = (
    ("adagrad", {}),
    ("adagrad", {"lr": 0.3, "eps": 1e-4, "l2": 0.01}),
    ("adam", {"lr": 0.02}),
    ("adam", {"lr": 0.01, "beta_1": 0.8, "beta_2": 0.99, "eps": 1e-5, "l2": 0.01}),
    ("ftrl", {}),
    ("ftrl", {"alpha": 0.2, "beta": 0.5, "l1": 0.3, "l2": 0.0}),
)
PENALTIES: tuple[tuple[str, Params], ...] = (
    ("sgd", {"lr": 0.02, "l1": 0.01}),
    ("adagrad", {"l1": 0.001}),
    ("adam", {"lr": 0.01, "l1": 0.001}),
)
EVERYTHING = [
    *((task, optimizer, params) for task in (YES_NO, CLASSES, NUMBERS) for optimizer, params in OPTIMIZERS),
    # River's softmax has no L1 penalty, nor has ours.
    *((task, optimizer, params) for task in (YES_NO, NUMBERS) for optimizer, params in PENALTIES),
]


def river_optimizer(name: str, params: Params) -> Any:
    """Make River's with what is set, or else with River's defaults."""
    makers: dict[str, tuple[Any, tuple[str, ...]]] = {
        "sgd": (optim.SGD, ("lr",)),
        "adagrad": (optim.AdaGrad, ("lr", "eps")),
        "adam": (optim.Adam, ("lr", "beta_1", "beta_2", "eps")),
        "ftrl": (optim.FTRLProximal, ("alpha", "beta", "l1", "l2")),
    }
    made, names = makers[name]
    return made(**{key: value for key, value in params.items() if key in names})


def river_model(task: Task, optimizer: str, params: Params, loss: Any = None) -> Any:
    penalties: Any = {} if optimizer == "ftrl" else {key: params[key] for key in ("l1", "l2") if key in params}
    made = river_optimizer(optimizer, params)
    if task.kind == "regression":
        return linear_model.LinearRegression(made, loss, **penalties)
    if task.kind == "binary":
        return linear_model.LogisticRegression(made, loss, **penalties)
    softmax = linear_model.SoftmaxRegression(made, **penalties)
    for name in task.classes:
        _ = softmax.weights[name]  # River meets a class with its first label; the file names them all
    return softmax


def river_pipeline(last: Any, *, drop_zeros: bool) -> Any:
    number = compose.SelectType(numbers.Number) | preprocessing.StandardScaler()
    category = compose.SelectType(str) | preprocessing.OneHotEncoder(drop_zeros=drop_zeros)
    return number + category | last


def river_says(model: Any, task: Task, x: dict[str, Any]) -> list[float]:
    if task.kind == "regression":
        return [model.predict_one(x)]
    said = model.predict_proba_one(x)
    return [said[name] for name in task.classes] if task.kind == "multiclass" else [said[True]]


def river_label(task: Task, y: float) -> Any:
    if task.kind == "multiclass":
        return task.classes[int(y)]
    return y if task.kind == "regression" else bool(y)


def ours(task: Task, columns: tuple[Column, ...], optimizer: str, params: Params) -> Learner:
    as_river: Params = {"intercept_lr": 0.0} if task.kind == "multiclass" else {}  # River's softmax has no intercept
    return make_learner(Model("m", "linear", {"optimizer": optimizer, **as_river, **params}), columns, None, task)


def stream(name: str) -> tuple[tuple[Column, ...], Floats, Floats, Task]:
    """Read one of River's streams: columns, rows and labels as learners are given them."""
    made, task = STREAMS[name]
    rows = list(made())
    columns = tuple(Column(key, False) for key in rows[0][0])
    X = np.array([[float(x[column.name]) for column in columns] for x, _ in rows])
    place = {label: at for at, label in enumerate(task.classes)}
    return columns, X, np.array([float(place[y] if task.kind == "multiclass" else y) for _, y in rows]), task


def flights(rows: int, seed: int = 0) -> tuple[Floats, dict[str, Floats]]:
    """Give features with missing values and categories, and the label of each task."""
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [
            rng.normal(10, 40, rows),
            rng.integers(0, 16, rows).astype(float),
            rng.lognormal(6, 1, rows),
            rng.zipf(1.5, rows) % 60.0,  # most airports are rare
        ]
    )
    late = (rng.random(rows) < 1 / (1 + np.exp(-X[:, 0] / 40 - (X[:, 1] > 10)))).astype(float)
    minutes = 0.3 * X[:, 0] + 5 * (X[:, 1] > 10) + rng.normal(0, 5, rows)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, {"binary": late, "multiclass": late + (rng.random(rows) < 0.1), "regression": minutes}


def delayed(rows: int, seed: int = 1) -> npt.NDArray[np.int64]:
    """Give an order of events (i) and labels (-1 - i) where each label comes 1 to 200 events later."""
    due = np.arange(rows) + np.random.default_rng(seed).integers(1, 200, rows)
    order = np.concatenate([np.arange(rows), -1 - np.arange(rows)])
    return order[np.argsort(np.concatenate([np.arange(rows), due]), kind="stable")]


def in_turn(rows: int) -> npt.NDArray[np.int64]:
    """Give the order in which each event is predicted and learned at once."""
    return np.column_stack([np.arange(rows), -1 - np.arange(rows)]).reshape(-1)


def agree(
    learner: Learner, reference: Any, columns: tuple[Column, ...], X: Floats, y: Floats, task: Task, order: Any
) -> None:
    """Drive both through the same order and compare every prediction."""
    event = np.where(order >= 0, order, -1 - order)
    said = learner.step(X[event], y[event], np.where(order >= 0, PREDICT, LEARN).astype(np.int8))
    rows = [
        {c.name: str(int(v)) if c.is_category else v for c, v in zip(columns, row, strict=True) if not np.isnan(v)}
        for row in X.tolist()
    ]
    expected = []
    for i in order.tolist():
        if i >= 0:
            expected.append(river_says(reference, task, rows[i]))
        else:
            reference.learn_one(rows[-1 - i], river_label(task, float(y[-1 - i])))
    found = said[order >= 0].reshape(-1, task.outputs)

    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert found.std(axis=0).min() > 0.01, "nothing was learned, nothing compared"


@pytest.mark.parametrize(("optimizer", "params"), OPTIMIZERS)
@pytest.mark.parametrize("name", STREAMS)
def test_every_prediction_equals_rivers_on_its_streams(name: str, optimizer: str, params: Params) -> None:
    columns, X, y, task = stream(name)
    reference = river_pipeline(river_model(task, optimizer, params), drop_zeros=True)

    agree(ours(task, columns, optimizer, params), reference, columns, X, y, task, in_turn(len(X)))


@pytest.mark.parametrize(("optimizer", "params"), PENALTIES)
@pytest.mark.parametrize("name", ["Phishing", "TrumpApproval"])
def test_with_a_cumulative_l1_penalty_every_prediction_equals_rivers(name: str, optimizer: str, params: Params) -> None:
    columns, X, y, task = stream(name)
    reference = river_pipeline(river_model(task, optimizer, params), drop_zeros=True)

    agree(ours(task, columns, optimizer, params), reference, columns, X, y, task, in_turn(len(X)))


@pytest.mark.parametrize(("task", "optimizer", "params"), EVERYTHING)
def test_missing_values_rare_categories_and_late_labels_are_rivers_with_an_encoder_that_drops_zeros(
    task: Task, optimizer: str, params: Params
) -> None:
    X, labels = flights(1_000)
    y = labels[task.kind]
    reference = river_pipeline(river_model(task, optimizer, params), drop_zeros=True)

    agree(ours(task, FLIGHTS, optimizer, params), reference, FLIGHTS, X, y, task, delayed(len(X)))


@pytest.mark.parametrize("task", [YES_NO, CLASSES, NUMBERS], ids=lambda task: str(task.kind))
def test_adagrad_equals_rivers_with_an_encoder_that_keeps_zeros_too(task: Task) -> None:
    X, labels = flights(1_000)
    reference = river_pipeline(river_model(task, "adagrad", {}), drop_zeros=False)

    agree(ours(task, FLIGHTS, "adagrad", {}), reference, FLIGHTS, X, labels[task.kind], task, delayed(len(X)))


def test_softmax_with_l2_equals_rivers() -> None:
    columns, X, y, task = stream("ImageSegments")
    params: Params = {"lr": 0.02, "l2": 0.05}
    reference = river_pipeline(river_model(task, "sgd", params), drop_zeros=True)

    agree(ours(task, columns, "sgd", params), reference, columns, X, y, task, in_turn(len(X)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("params", "loss"),
    [
        ({"loss": "huber"}, optim.losses.Huber()),
        ({"loss": "huber", "epsilon": 3.0}, optim.losses.Huber(3.0)),
        ({"loss": "quantile", "quantile": 0.9}, optim.losses.Quantile(0.9)),
    ],
)
def test_other_losses_of_numbers_equal_rivers(optimizer: str, params: Params, loss: Any) -> None:
    columns, X, y, task = stream("TrumpApproval")
    reference = river_pipeline(river_model(task, optimizer, {"lr": 0.05}, loss), drop_zeros=True)

    agree(ours(task, columns, optimizer, {"lr": 0.05, **params}), reference, columns, X, y, task, in_turn(len(X)))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_a_yes_that_counts_more_than_a_no_equals_rivers(optimizer: str) -> None:
    columns, X, y, task = stream("Phishing")
    loss, params = optim.losses.Log(5.0, 0.5), {"lr": 0.05}
    reference = river_pipeline(river_model(task, optimizer, {**params}, loss), drop_zeros=True)
    learner = ours(task, columns, optimizer, {**params, "weight_pos": 5.0, "weight_neg": 0.5})

    agree(learner, reference, columns, X, y, task, in_turn(len(X)))


def test_the_ninth_decile_lies_above_nine_of_ten_labels() -> None:
    rng = np.random.default_rng(6)
    y, X = rng.exponential(1.0, 20_000), np.empty((20_000, 0))
    learner = ours(NUMBERS, (), "sgd", {"loss": "quantile", "quantile": 0.9, "intercept_lr": 0.01})
    learner.learn(X, y)

    assert learner.predict(X[:1])[0] == pytest.approx(np.quantile(y, 0.9), abs=0.2)


def test_l1_of_ftrl_leaves_out_what_says_nothing() -> None:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(4_000, 6))
    y = (X[:, 0] + rng.normal(size=4_000) > 0).astype(float)
    columns = tuple(Column(f"x{at}", False) for at in range(6))
    learner = ours(YES_NO, columns, "ftrl", {"l1": 60.0})
    learner.learn(X, y)
    weight = learner.state()["weight"][0]

    assert weight[0] > 0.1
    assert np.count_nonzero(weight[1:]) == 0


@pytest.mark.parametrize(("task", "optimizer", "params"), EVERYTHING)
def test_neither_cutting_rows_into_batches_nor_restoring_nor_predicting_changes_a_bit(
    task: Task, optimizer: str, params: Params
) -> None:
    X, labels = flights(400)
    y, action = labels[task.kind], np.random.default_rng(2).integers(0, 3, 400).astype(np.int8)
    whole, cut = ours(task, FLIGHTS, optimizer, params), ours(task, FLIGHTS, optimizer, params)
    expected, found = whole.step(X, y, action), []
    for start, stop in ((0, 1), (1, 8), (8, 300), (300, 400)):
        found.append(cut.step(X[start:stop], y[start:stop], action[start:stop]))
        again = ours(task, FLIGHTS, optimizer, params)
        again.restore({name: np.array(array) for name, array in cut.state().items()})
        again.predict(X)
        again.learn(X, np.full(400, np.nan))
        cut = again

    assert np.array_equal(np.concatenate(found), expected, equal_nan=True)
    assert all(np.array_equal(array, cut.state()[name]) for name, array in whole.state().items())
    assert np.isnan(expected[action != PREDICT]).all()
    assert np.isfinite(expected[action == PREDICT]).all()


@pytest.mark.parametrize(
    ("optimizer", "params"),
    [
        ("sgd", {"lr": 1e3}),
        ("sgd", {"lr": 1e3, "l1": 1e3}),
        ("sgd", {"lr": 1e3, "l2": 0.0009}),
        ("adagrad", {"lr": 1e3, "eps": 1e-12, "l2": 1e3}),
        ("adam", {"lr": 1e3, "beta_1": 0.9999, "beta_2": 0.0, "eps": 1e-12, "l2": 1e3}),
        ("ftrl", {"alpha": 1e3, "beta": 1e-6, "l1": 0.0, "l2": 0.0}),
    ],
)
@pytest.mark.parametrize("task", [YES_NO, CLASSES, NUMBERS], ids=lambda task: str(task.kind))
def test_no_input_and_no_allowed_setting_makes_a_model_infinite(task: Task, optimizer: str, params: Params) -> None:
    if task is CLASSES:
        params = {name: value for name, value in params.items() if name != "l1" or optimizer == "ftrl"}
    rng = np.random.default_rng(8)
    X, labels = flights(3_000)
    worst = np.array([np.nan, np.inf, -np.inf, 1e308, 1e31, 1e30, -1e30, 1e-300, 5e-324, 0.0, -1.0, 0.5, 2.0**53])
    X = np.where(rng.random(X.shape) < 0.4, rng.choice(worst, X.shape), X)
    y = labels[task.kind]
    if task is NUMBERS:
        y = np.where(rng.random(3_000) < 0.3, rng.choice([1e30, -1e30], 3_000), y)
    learner = ours(task, FLIGHTS, optimizer, {**params, "intercept_lr": 1e3})
    learner.learn(X, y)
    said = np.concatenate([learner.predict(X), learner.predict(-X)])

    assert learner.is_finite()
    assert np.isfinite(said).all()
    assert np.abs(said).max() <= (1e30 if task is NUMBERS else 1.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("task", [YES_NO, CLASSES, NUMBERS], ids=lambda task: str(task.kind))
def test_what_lies_absurdly_far_from_all_that_was_learned_is_still_predicted_within_bounds(
    task: Task, optimizer: str
) -> None:
    X = np.array([[0.0], [1e-150]] * 50)
    learner = ours(task, (Column("x", False),), optimizer, {"lr": 0.1})
    learner.learn(X, np.tile([0.0, 1.0], 50))
    said = learner.predict(np.array([[1e30], [-1e30]]))

    assert np.isfinite(said).all()
    assert np.abs(said).max() == (1e30 if task is NUMBERS else 1.0)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "ftrl"])
@pytest.mark.parametrize("task", [YES_NO, CLASSES, NUMBERS], ids=lambda task: str(task.kind))
def test_a_version_and_a_snapshot_bring_back_the_moments(task: Task, optimizer: str, tmp_path: Path) -> None:
    X, labels = flights(300)
    model = Model("m", "linear", {"optimizer": optimizer, "bits": 6})
    learner, restored = (make_learner(model, FLIGHTS, None, task) for _ in range(2))
    learner.learn(X[:200], labels[task.kind][:200])
    version = write_version(tmp_path, model, FLIGHTS, learner, (0, 200), created_us=5, task=task)
    assert version is not None
    SnapshotStore(tmp_path / "snapshots").save(Manifest(0, "m", "", 0, {}, 0, 0, "", "", "", (), {}), learner.state())
    state = SnapshotStore(tmp_path / "snapshots").find().state
    assert state is not None
    restored.restore(state)
    published = read_version(tmp_path, version)
    for one in (learner, restored, published):
        one.learn(X[200:], labels[task.kind][200:])

    assert np.array_equal(published.predict(X), learner.predict(X))
    assert np.array_equal(restored.predict(X), learner.predict(X))


def test_plain_settings_keep_the_plain_kernels() -> None:
    cases: tuple[tuple[Task, Params, type], ...] = (
        (YES_NO, {}, LinearLearner),
        (NUMBERS, {"loss": "huber", "l2": 0.1}, LinearLearner),
        (CLASSES, {}, SoftmaxLearner),
        (CLASSES, {"l2": 0.1}, AdaptiveLinearLearner),
        (YES_NO, {"l1": 0.1}, AdaptiveLinearLearner),
        (YES_NO, {"optimizer": "adam"}, AdaptiveLinearLearner),
    )
    for task, params, expected in cases:
        assert type(linear_learner(Model("m", "linear", params), FLIGHTS, task)) is expected


def test_only_the_moments_that_an_optimizer_has_take_memory() -> None:
    sizes = {
        name: ours(YES_NO, FLIGHTS, name, {"bits": 10, **params}).size_bytes() // 2**13
        for name, params in (("sgd", {"l1": 0.1}), ("adagrad", {}), ("adam", {}), ("ftrl", {}))
    }

    assert sizes == {"sgd": 2, "adagrad": 2, "adam": 3, "ftrl": 3}


@pytest.mark.parametrize(
    ("task", "params", "message"),
    [
        (YES_NO, {"optimizer": "adm"}, '"adm" is unknown; allowed: sgd, adagrad, adam, ftrl; did you mean "adam"?'),
        (YES_NO, {"beta_1": 0.5}, "beta_1: is for adam, not for binary and sgd"),
        (
            YES_NO,
            {"optimizer": "ftrl", "lr": 0.5},
            "lr: is for sgd or adagrad or adam, not for binary and ftrl",
        ),
        (YES_NO, {"loss": "huber"}, "loss: is for regression, not for binary and sgd"),
        (NUMBERS, {"quantile": 0.9}, "quantile: is for quantile, not for regression and sgd and squared"),
        (CLASSES, {"l1": 0.1}, "l1: is for binary or regression or ftrl, not for multiclass and sgd"),
        (
            YES_NO,
            {"l1": 0.1, "l2": 0.1},
            "l1: cannot be used together with l2; allowed: one of the two, or optimizer =",
        ),
        (
            YES_NO,
            {"optimizer": "adam", "beta_2": 1.0},
            "beta_2: 1.0 is not right; allowed: a number from 0 to 0.999999",
        ),
    ],
)
def test_a_setting_that_is_not_of_the_optimizer_or_task_is_named_with_what_it_is_of(
    task: Task, params: Params, message: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        linear_learner(Model("m", "linear", params), FLIGHTS, task)

    assert message in str(caught.value)
