"""The other compiled learners alone, in memory: rows a second, each predicted, then learned, against River and torch.

River takes a tenth of the rows, for it is that much slower; of those, both must answer the same. Its rows are dicts
that were made beforehand. Torch's are tensors that were scaled beforehand, while the compiled network scales its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from models.learner import make_learner
from models.mlp import MlpLearner
from streams.frames import Column
from streams.model_setting import Value
from streams.pipeline import Model, Task
from tests.bench.compiled_speed import Floats, compiled_speed
from tests.bench.figure import Figure, Ratio
from tests.bench.kafka import BenchError
from tests.bench.workplace import FULL, Workplace

NUMBERS = 12
WITHIN = 1e-9  # of every answer, as the tests of each learner require it
LR = 0.01

NEAR = ("kmeans",)  # no bound: River's has as little to do for a row
RIVER = ("logistic_alone", "adagrad", "adam", "ftrl", "linear_regression", "softmax", "naive_bayes", "kmeans")

FIGURES = (
    *(Figure(name, "rows/s") for ours in RIVER for name in (ours, f"river_{ours}")),
    Figure("mlp_alone", "rows/s"),
    Figure("torch_alone", "rows/s"),
)
RATIOS = (
    *(Ratio(f"{name}_vs_river", name, f"river_{name}", None if name in NEAR else 20.0) for name in RIVER),
    Ratio("mlp_vs_torch", "mlp_alone", "torch_alone", bound=20.0),
)
COLUMNS = tuple(Column(f"n{place:02}", False) for place in range(NUMBERS))
CLASSES = Task("multiclass", ("low", "middle", "high"))


class Pair(NamedTuple):
    """A compiled learner, and River's for the same task."""

    kind: str
    params: dict[str, Value]
    task: Task
    river: Any
    says: Callable[[Any, dict[Any, float]], list[float]]


def measure(workplace: Workplace) -> dict[str, float]:
    """Drive every pair over the same rows; that they answer the same is checked."""
    size = 40_000 if workplace.size == FULL else 10_000
    X, score = _rows(size)
    speeds: dict[str, float] = {}
    for name, pair in _pairs().items():
        ours, theirs, said, expected = _drive(pair, X, _labels(pair.task, score))
        _check(name, said, expected)
        speeds |= {name: ours, f"river_{name}": theirs}
    ours, theirs, said, expected = _networks(X, _labels(Task(), score))
    _check("mlp_alone", said, expected)
    return speeds | {"mlp_alone": ours, "torch_alone": theirs}


def _pairs() -> dict[str, Pair]:
    from river import cluster, linear_model, naive_bayes, optim

    models: Any = linear_model  # untyped
    bayes: Any = naive_bayes.GaussianNB  # untyped
    yes_no, number, groups = Task(), Task("regression"), Task("clustering")
    softmax = models.SoftmaxRegression(optim.SGD(LR))
    for name in CLASSES.classes:
        _ = softmax.weights[name]  # River meets a class with its first label; a pipeline file names them all
    lr: dict[str, Value] = {"lr": LR}
    no_intercept: dict[str, Value] = {"intercept_lr": 0.0}  # River's softmax has none

    def logistic(optimizer: Any) -> Any:
        return _scaled(models.LogisticRegression(optimizer))

    found = {
        "logistic_alone": Pair("linear", lr, yes_no, logistic(optim.SGD(LR)), _says_yes),
        "adagrad": Pair("linear", {"optimizer": "adagrad"}, yes_no, logistic(optim.AdaGrad()), _says_yes),
        "adam": Pair("linear", {"optimizer": "adam", **lr}, yes_no, logistic(optim.Adam(LR)), _says_yes),
        "ftrl": Pair("linear", {"optimizer": "ftrl"}, yes_no, logistic(optim.FTRLProximal()), _says_yes),
        "linear_regression": Pair("linear", lr, number, _scaled(models.LinearRegression(optim.SGD(LR))), _says_one),
        "softmax": Pair("linear", {**lr, **no_intercept}, CLASSES, _scaled(softmax), _says_each),
        "naive_bayes": Pair("naive_bayes", {}, yes_no, bayes(), _says_yes),
        "kmeans": Pair("kmeans", {}, groups, cluster.KMeans(seed=0), _says_one),
    }
    return {name: found[name] for name in RIVER}


def _scaled(model: Any) -> Any:
    from river import preprocessing

    return preprocessing.StandardScaler() | model


def _says_yes(model: Any, row: dict[Any, float]) -> list[float]:
    said = model.predict_proba_one(row)
    return [float(said.get(True, 0.0)) if said else 0.5]


def _says_each(model: Any, row: dict[Any, float]) -> list[float]:
    said = model.predict_proba_one(row)
    return [said[name] for name in CLASSES.classes]


def _says_one(model: Any, row: dict[Any, float]) -> list[float]:
    return [float(model.predict_one(row))]


def _rows(rows: int) -> tuple[Floats, Floats]:
    """Give numbers of several sizes, and what the label of every task follows from."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(rows, NUMBERS))
    score = X[:, 0] - 0.7 * X[:, 1] + 0.5 * X[:, 2] + rng.normal(size=rows)
    return X * np.linspace(0.5, 3.0, NUMBERS), score


def _labels(task: Task, score: Floats) -> Floats:
    if task.kind == "multiclass":
        return np.digitize(score, (-0.5, 0.5)).astype(np.float64)
    return (score > 0.0).astype(np.float64) if task.kind == "binary" else score


def _drive(pair: Pair, X: Floats, y: Floats) -> tuple[float, float, Floats, Floats]:
    """Give rows a second of both, and what both said of the rows that River got."""
    river_rows = len(X) // 10
    model = Model("m", pair.kind, pair.params)
    ours, said = compiled_speed(lambda: make_learner(model, COLUMNS, None, pair.task), X, y)
    theirs, expected = _river_speed(pair, X[:river_rows], y[:river_rows])
    return ours, theirs, said[:river_rows, : expected.shape[1]], expected


def _river_speed(pair: Pair, X: Floats, y: Floats) -> tuple[float, Floats]:
    """Give rows a second of a model of River's, its dicts and labels made beforehand, and what it said of each row."""
    rows = [dict(enumerate(row)) for row in X.tolist()]  # its k-means goes through columns in their order
    words: dict[str, Callable[[float], Any]] = {"binary": bool, "multiclass": lambda y: CLASSES.classes[int(y)]}
    labels = [words.get(pair.task.kind, float)(label) for label in y.tolist()]
    learn = (lambda row, _: pair.river.learn_one(row)) if pair.task.kind == "clustering" else pair.river.learn_one
    said, began_s = [], time.perf_counter()
    for row, label in zip(rows, labels, strict=True):
        said.append(pair.says(pair.river, row))
        learn(row, label)
    return len(X) / (time.perf_counter() - began_s), np.array(said)


def _networks(X: Floats, y: Floats) -> tuple[float, float, Floats, Floats]:
    """Give the same of the online network and of torch, one row a step, from the same first weights."""
    model, torch_rows = Model("m", "mlp", {}), len(X) // 10
    ours, said = compiled_speed(lambda: MlpLearner(model, COLUMNS), X, y)
    weights = MlpLearner(model, COLUMNS).torch_weights()
    _torch_speed(weights, X[:10], y[:10])  # its first step imports what steps need, for seconds
    theirs, expected = _torch_speed(weights, X[:torch_rows], y[:torch_rows])
    return ours, theirs, said[:torch_rows], expected


def _torch_speed(weights: dict[str, Floats], X: Floats, y: Floats) -> tuple[float, Floats]:
    """Give rows a second of a loop of torch on one thread, as its documentation would write it."""
    import torch
    from torch import nn

    wide, narrow, last = (nn.Linear(*weights[f"{place}.weight"].shape[::-1]) for place in (0, 2, 4))
    network = nn.Sequential(wide, nn.ReLU(), narrow, nn.ReLU(), last).double()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    optimizer, entropy = torch.optim.SGD(network.parameters(), 0.05), nn.BCEWithLogitsLoss()
    before, after = (torch.from_numpy(z) for z in _scaled_rows(X))
    said, labels, threads = [], torch.from_numpy(y), torch.get_num_threads()
    torch.set_num_threads(1)  # as the compiled one has it
    began_s = time.perf_counter()
    for row in range(len(X)):
        with torch.inference_mode():
            said.append(torch.sigmoid(network(before[row])).item())
        optimizer.zero_grad()
        entropy(network(after[row])[0], labels[row]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    speed = len(X) / (time.perf_counter() - began_s)
    torch.set_num_threads(threads)
    return speed, np.array(said)[:, None]


def _scaled_rows(X: Floats) -> tuple[Floats, Floats]:
    """Scale each row by the rows before it, to predict, and by those and itself, to learn; cut at 10 deviations."""
    rows = np.arange(1, len(X) + 1)[:, None]
    mean = X.cumsum(axis=0) / rows
    variance = (X**2).cumsum(axis=0) / rows - mean**2
    variance[0] = 0.0  # of one row; what rounding leaves of it is none
    before = np.vstack([np.zeros(NUMBERS), mean[:-1]]), np.vstack([np.zeros(NUMBERS), variance[:-1]])
    return _cut(X, *before), _cut(X, mean, variance)


def _cut(X: Floats, mean: Floats, variance: Floats) -> Floats:
    z = np.divide(X - mean, np.sqrt(variance), out=np.zeros_like(X), where=variance > 0.0)
    return np.clip(z, -10.0, 10.0)


def _check(name: str, said: Floats, expected: Floats) -> None:
    apart = float(np.abs(said - expected).max())
    if not apart <= WITHIN:
        raise BenchError(f"{name}: compiled and not, they answer differently, by {apart:g}; allowed is {WITHIN:g}")
