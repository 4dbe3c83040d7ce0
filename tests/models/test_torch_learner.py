"""A trained network answers as itself, whatever the batch, learns nothing, and takes no state that is not its own."""

from __future__ import annotations

import doctest
import sys
from functools import cache
from subprocess import run
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models import contract, torch_learner
from models.contract import check_contract
from models.learner import LEARN, PREDICT, SKIP, State, make_learner
from models.torch_learner import ONLINE, TorchLearner, as_online, state_of
from models.weights_file import decode, encode
from streams.errors import ModelError, PipelineError
from streams.frames import Column
from streams.pipeline import Model, Task
from streams.retraining import Retrain
from tests.models.learner_rules import assert_absurd_is_missing, assert_cuts_change_no_bit, repeated
from tests.network_training import ANOMALY, BINARY, CLASSES, COLUMNS, NUMBERS, SMALL, made, rows_of, trained

Floats = npt.NDArray[np.float64]

CASES = {
    "logistic": ("torch:logistic", CLASSES),
    "mlp": ("torch:mlp", BINARY),
    "mlp of numbers": ("torch:mlp", NUMBERS),
    "resmlp": ("torch:resmlp", NUMBERS),
    "ft_transformer": ("torch:ft_transformer", CLASSES),
    "autoencoder": ("torch:autoencoder", ANOMALY),
}


@cache
def state_for(name: str) -> tuple[Model, Task, State]:
    """Give the state of a network after one epoch; it is never written to."""
    kind, task = CASES[name]
    X, y = rows_of(task, 600)
    model, network, preparation = trained(kind, task, X, y, epochs=1)
    return model, task, state_of(network, preparation)


def make(name: str) -> TorchLearner:
    model, task, state = state_for(name)
    learner = TorchLearner(model, COLUMNS, task)
    learner.restore(state)
    return learner


@pytest.mark.parametrize("name", CASES)
def test_cutting_rows_into_other_batches_changes_no_bit(name: str) -> None:
    _, task, _ = state_for(name)
    X, y = rows_of(task, 1_100, seed=5)
    for cuts in ([1, 2, 3, 16, 17, 64, 100], [511, 12], [550]):
        assert_cuts_change_no_bit(make(name), make(name), X, y, repeated(cuts, 1_100))


@pytest.mark.parametrize("name", CASES)
def test_its_answers_are_the_networks(name: str) -> None:
    kind, task = CASES[name]
    X, y = rows_of(task, 300)
    _, network, preparation = trained(kind, task, X, y, epochs=1)
    learner = TorchLearner(Model("net", kind, SMALL[kind]), COLUMNS, task)
    learner.restore(state_of(network, preparation))
    with torch.no_grad():
        outputs = network(*(torch.from_numpy(array) for array in preparation.apply(X)))
    expected = network.answers(outputs)

    np.testing.assert_allclose(learner.predict(X).reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_a_frozen_network_keeps_the_contract_but_for_learning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "TIMED_S", 0.0)
    _, task, _ = state_for(name)
    task = Task("multiclass", ("one", "two", "three")) if task is CLASSES else task
    found = check_contract(lambda: make(name), task, COLUMNS, rows=400)

    assert [finding.check for finding in found if not finding.passed] == ["learns"]


@pytest.mark.parametrize("kind", SMALL)
def test_before_its_first_training_it_answers_as_one_that_knows_nothing(kind: str) -> None:
    task = ANOMALY if kind == "torch:autoencoder" else CLASSES
    learner = make_learner(Model("net", kind, SMALL[kind]), COLUMNS, None, task)
    X, y = rows_of(task, 5)
    learner.learn(X, y)
    wanted = np.zeros(5) if task is ANOMALY else np.full((5, 3), 1 / 3)

    assert np.array_equal(learner.predict(X), wanted)
    assert learner.step(X[:0], y[:0], np.empty(0, np.int8)).shape == wanted[:0].shape
    assert learner.state() == {}
    assert learner.is_finite()
    assert learner.size_bytes() == 0
    learner.restore({})
    assert np.array_equal(learner.predict(X), wanted)


def test_learning_and_skipping_change_nothing_and_are_answered_by_nan() -> None:
    learner = make("mlp")
    X, y = rows_of(BINARY, 30)
    before, said = learner.state(), learner.predict(X)
    action = np.tile([PREDICT, LEARN, SKIP], 10).astype(np.int8)
    stepped = learner.step(X, y, action)
    learner.learn(X, y)

    assert np.array_equal(stepped[action == PREDICT], said[action == PREDICT])
    assert np.isnan(stepped[action != PREDICT]).all()
    assert all(np.array_equal(array, learner.state()[name]) for name, array in before.items())
    assert np.array_equal(learner.predict(X), said)


@pytest.mark.parametrize("name", CASES)
def test_a_state_goes_through_a_file_of_weights_bit_for_bit(name: str) -> None:
    model, task, state = state_for(name)
    learner = TorchLearner(model, COLUMNS, task)
    learner.restore(decode(encode(state, {}))[0])
    X, _ = rows_of(task, 50)

    assert np.array_equal(learner.predict(X), make(name).predict(X))
    assert learner.state().keys() == state.keys()
    assert all(array.tobytes() == learner.state()[key].tobytes() for key, array in state.items())
    assert learner.size_bytes() > sum(array.nbytes for key, array in state.items() if key.startswith("network."))


@pytest.mark.parametrize("name", CASES)
def test_absurd_rows_are_answered_finitely(name: str) -> None:
    learner = make(name)
    rows = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e30, 0.5, -1.0, 2.0**53, 12345.0]
    said = learner.predict(np.array([[value] * 4 for value in rows]))

    assert np.isfinite(said).all()
    assert learner.replaced_predictions == 0


@pytest.mark.parametrize("name", ["mlp", "ft_transformer"])
@pytest.mark.parametrize(("column", "bad"), [(0, np.inf), (0, -1e31), (1, 0.5), (1, -1.0), (3, 2.0**53)])
def test_an_absurd_value_is_a_missing_one(name: str, column: int, bad: float) -> None:
    X, y = rows_of(state_for(name)[1], 100)
    assert_absurd_is_missing(make(name), make(name), X, y, column, bad)


def test_sums_beyond_float32_are_answered_as_if_nothing_was_learned_and_counted() -> None:
    task = BINARY
    model, network, preparation = made("torch:mlp", task, rows_of(task, 100)[0], hidden=(32, 32, 32, 32, 32))
    with torch.no_grad():
        for place, layer in enumerate(network.get_submodule("layers").children()):
            for parameter in layer.parameters():
                parameter.fill_(9e8 if place < 5 else 0.0)
    learner = TorchLearner(model, COLUMNS, task)
    learner.restore(state_of(network, preparation))

    assert np.array_equal(learner.predict(rows_of(task, 3)[0]), np.full(3, 0.5))
    assert learner.replaced_predictions == 3


def changed(state: State, name: str, value: Any) -> State:
    return {**state, name: value}


BIAS = "network.layers.0.bias"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda s: changed(s, BIAS, s[BIAS][:-1]),
            r"layers.0.bias is float32 of shape \(31,\), float32 of shape \(32,\)",
        ),
        (lambda s: changed(s, BIAS, s[BIAS].astype(np.float64)), "layers.0.bias is float64 of shape"),
        (lambda s: changed(s, BIAS, np.full_like(s[BIAS], np.nan)), "a weight that is not finite or beyond 1e"),
        (lambda s: changed(s, BIAS, np.full_like(s[BIAS], 2e9)), "a weight that is not finite or beyond 1e"),
        (lambda s: changed(s, BIAS, np.array(["x"] * 32)), "layers.0.bias is str"),
        (lambda s: {k: v for k, v in s.items() if k != BIAS}, "layers.0.bias is none"),
        (lambda s: changed(s, "network.more", s[BIAS]), "another kind: more found"),
        (lambda s: changed(s, "more", s[BIAS]), "another kind: more found"),
        (lambda s: {k: v for k, v in s.items() if k.startswith("network.")}, "preparation is not whole"),
        (lambda s: changed(s, "preparation.mean", s["preparation.mean"] * np.nan), "preparation is damaged"),
    ],
)
def test_a_state_that_is_not_its_own_is_refused_and_changes_nothing(damage: Any, reason: str) -> None:
    learner, state = make("mlp"), state_for("mlp")[2]
    X, _ = rows_of(BINARY, 20)
    said = learner.predict(X)
    with pytest.raises(ModelError, match=reason) as caught:
        learner.restore(damage(state))

    assert "\n" not in str(caught.value)
    assert np.array_equal(learner.predict(X), said)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_of_labels_that_no_labels_give_is_refused(scale: float) -> None:
    learner, state = make("mlp of numbers"), state_for("mlp of numbers")[2]
    with pytest.raises(ModelError, match="label is no scale"):
        learner.restore(changed(state, "network.label", np.array([10.0, 0.0, scale])))


@pytest.mark.parametrize("quantiles", [np.linspace(1.0, 0.0, 241), np.full(241, np.nan), np.full(241, -1.0)])
def test_quantiles_of_errors_that_do_not_ascend_are_refused(quantiles: Floats) -> None:
    learner, state = make("autoencoder"), state_for("autoencoder")[2]
    with pytest.raises(ModelError, match="error is no list of quantiles"):
        learner.restore(changed(state, "network.error", quantiles))


def test_weights_that_are_not_finite_show() -> None:
    learner = make("mlp")
    assert learner.is_finite()
    assert learner._network is not None
    with torch.no_grad():
        learner._network.get_parameter("layers.1.bias")[3] = torch.nan

    assert not learner.is_finite()


def test_asking_leaves_torchs_threads_and_random_numbers_as_they_were() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    make("mlp").predict(rows_of(BINARY, 20)[0])
    try:
        assert torch.equal(torch.rand(3), wanted)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("task", [BINARY, CLASSES, NUMBERS], ids=lambda task: task.kind)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_compiled_twin_has_the_same_weights_and_says_the_same(task: Task, activation: str) -> None:
    X, y = rows_of(task, 800)
    model, network, preparation = trained("torch:mlp", task, X, y, epochs=2, activation=activation)
    frozen = TorchLearner(model, COLUMNS, task)
    frozen.restore(state_of(network, preparation))
    online = as_online(frozen.state(), model, COLUMNS, task)
    X, y = rows_of(task, 400, seed=9)
    scale = 30.0 if task is NUMBERS else 1.0

    np.testing.assert_allclose(online.predict(X), frozen.predict(X), rtol=0, atol=1e-5 * scale)
    weights = online.torch_weights()
    for place in range(3):
        for name in ("weight", "bias"):
            ours = network.get_parameter(f"layers.{place}.{name}").detach().numpy()
            assert np.array_equal(weights[f"{2 * place}.{name}"].astype(np.float32), ours)
    table = network.get_parameter("categories.weight").detach().numpy()
    assert np.array_equal(weights["categories.weight"].astype(np.float32), table[:-1])
    assert not table[-1].any()


def test_the_compiled_twin_learns_on_and_follows_a_change() -> None:
    X, y = rows_of(BINARY, 1_500)
    model, network, preparation = trained("torch:mlp", BINARY, X, y, epochs=3)
    online = as_online(state_of(network, preparation), model, COLUMNS, BINARY)
    seen = preparation.scaler.seen
    X, y = rows_of(BINARY, 3_000, seed=4)
    turned = 1.0 - y
    before = np.mean((online.predict(X[2_000:]) > 0.5) == turned[2_000:])
    online.learn(X[:2_000], turned[:2_000])
    after = np.mean((online.predict(X[2_000:]) > 0.5) == turned[2_000:])

    assert before < 0.25
    assert after > 0.75
    assert (online.state()["seen"] >= seen + 1_500).all()


def test_a_candidate_that_is_not_trained_has_an_untrained_compiled_twin() -> None:
    model = Model("net", "torch:mlp", SMALL["torch:mlp"])
    twin = as_online({}, model, COLUMNS, BINARY)
    params = {**SMALL["torch:mlp"], "activation": "relu", "seed": 0, **ONLINE}
    fresh = make_learner(Model("net", "mlp", params), COLUMNS, None, BINARY)
    X, _ = rows_of(BINARY, 5)

    assert np.array_equal(twin.predict(X), fresh.predict(X))


def test_check_names_what_is_wrong_with_a_networks_settings() -> None:
    models = (
        Model("a", "torch:ft_transformer", {"heads": 7}),
        Model("b", "torch:mlp", {"hidden": (2_048,)}, retrain=Retrain(then="learn")),
        Model("c", "torch:mlp", {"hidden": (2_048,)}, retrain=Retrain()),
        Model("d", "torch:resmlp", {"width": 0, "depth": 3}),
    )
    found = []
    for model in models:
        try:
            make_learner(model, (Column("x", False),))
        except PipelineError as error:
            found += error.mistakes

    assert [mistake.partition(" ")[2].partition(":")[0] for mistake in found] == ["heads", "hidden", "width", "depth"]
    assert 'for retrain.then = "learn"' in found[1]


def test_torch_is_imported_where_pandas_and_scipy_are_kept_out() -> None:
    script = (
        "from streams.lightness import stay_light; stay_light()\n"
        "from models.learner import make_learner\nfrom streams.pipeline import Model\nimport sys, numpy\n"
        "assert 'torch' not in sys.modules\n"
        "print(make_learner(Model('m', 'torch:mlp', {}), ()).predict(numpy.empty((1, 0))))\n"
    )
    done = run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.stdout == "[0.5]\n", done.stderr


def test_the_example_is_right() -> None:
    assert doctest.testmod(torch_learner).failed == 0
