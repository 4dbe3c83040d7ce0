"""Networks equal plain NumPy, learn what can be learned, and are as large as they say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from models.networks import Network, loss_of, make_network
from models.preparation import Sizes
from models.torch_learner import TorchLearner, state_of
from streams.errors import PipelineError
from streams.model_kinds import KINDS
from streams.pipeline import Model, Task
from tests.network_training import ANOMALY, BINARY, CLASSES, COLUMNS, NUMBERS, SMALL, made, rows_of, trained

Floats = npt.NDArray[np.float64]

LABELLED = [kind for kind in SMALL if kind != "torch:autoencoder"]
TASKS = {"binary": BINARY, "multiclass": CLASSES, "regression": NUMBERS}
SIZES = Sizes(3, (5, 4), 0)


def weights_of(module: nn.Module) -> dict[str, Floats]:
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def stirred(network: Network) -> Network:
    """Give every weight another value than its first, so that none is 0 or 1 by chance of its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return network.eval()


def inputs(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(rows, 3)).astype(np.float32)
    categories = np.column_stack([rng.integers(0, 5, rows), rng.integers(0, 4, rows)]).astype(np.int32)
    return torch.from_numpy(numbers), torch.from_numpy(categories)


def norm(x: Floats, w: dict[str, Floats], name: str) -> Floats:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])


def linear(x: Floats, w: dict[str, Floats], name: str) -> Floats:
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def rows_of_categories(w: dict[str, Floats], name: str, categories: npt.NDArray[np.int32]) -> Floats:
    """Look each column up in its own part of the table: 5 rows, then 4."""
    return np.stack([w[name][:5][categories[:, 0]], w[name][5:][categories[:, 1]]], axis=1)


def said(network: Network) -> tuple[Floats, Floats, npt.NDArray[np.int32], dict[str, Floats]]:
    """Give what a network says of made-up rows, the rows, and its weights."""
    numbers, categories = inputs()
    with torch.no_grad():
        output = network(numbers, categories).double().numpy()
    return output, numbers.double().numpy(), categories.numpy(), weights_of(network)


def test_logistic_equals_numpy() -> None:
    output, x, categories, w = said(stirred(make_network(Model("m", "torch:logistic", {}), SIZES, CLASSES)))
    wanted = linear(x, w, "linear") + rows_of_categories(w, "categories.weight", categories).sum(axis=1)

    np.testing.assert_allclose(output, wanted, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_mlp_equals_numpy_and_a_category_that_is_missing_adds_nothing(activation: str) -> None:
    model = Model("m", "torch:mlp", {"hidden": (7, 5), "bits": 4, "activation": activation})
    network = stirred(make_network(model, Sizes(3, (16, 16), 4), BINARY))
    with torch.no_grad():
        network.get_parameter("categories.weight")[-1] = 0.0
    numbers, slots = inputs()
    slots = slots.clone()
    slots[0] = -1
    slots[1, 0] = -1
    w, above = weights_of(network), np.tanh if activation == "tanh" else lambda x: np.maximum(x, 0.0)
    table = w["categories.weight"][:-1]
    hot = np.array([sum((table[slot] for slot in row if slot >= 0), np.zeros(7)) for row in slots.tolist()])
    hidden = above(linear(numbers.double().numpy(), w, "layers.0") + hot)
    wanted = linear(above(linear(hidden, w, "layers.1")), w, "layers.2")

    for network_then in (network.eval(), network.train()):
        np.testing.assert_allclose(network_then(numbers, slots).detach().numpy(), wanted, atol=1e-5)


def test_resmlp_equals_numpys_resnet() -> None:
    params = {"width": 6, "blocks": 2, "embedding": 3}
    output, x, categories, w = said(stirred(make_network(Model("m", "torch:resmlp", params), SIZES, BINARY)))
    embedded = rows_of_categories(w, "categories.weight", categories).reshape(6, 6)
    hidden = linear(np.concatenate([x, embedded], axis=1), w, "first")
    for block in ("blocks.0", "blocks.1"):
        inner = np.maximum(linear(norm(hidden, w, f"{block}.norm"), w, f"{block}.up"), 0.0)
        hidden = hidden + linear(inner, w, f"{block}.down")
    wanted = linear(np.maximum(norm(hidden, w, "norm"), 0.0), w, "head")

    np.testing.assert_allclose(output, wanted, atol=1e-4)


def attended(x: Floats, w: dict[str, Floats], name: str, heads: int) -> Floats:
    """Give multi-head attention as its paper writes it, one head after the other."""
    query, key, value = (linear(x, w, f"{name}.{part}") for part in ("query", "key", "value"))
    width = x.shape[2] // heads
    taken = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logit = query[:, :, part] @ key[:, :, part].transpose(0, 2, 1) / np.sqrt(width)
        share = np.exp(logit - logit.max(axis=2, keepdims=True))
        taken.append(share / share.sum(axis=2, keepdims=True) @ value[:, :, part])
    return linear(np.concatenate(taken, axis=2), w, f"{name}.out")


def test_the_ft_transformer_equals_numpy_with_its_attention_over_all_tokens() -> None:
    params = {"width": 12, "blocks": 2, "heads": 3}
    output, x, categories, w = said(stirred(make_network(Model("m", "torch:ft_transformer", params), SIZES, CLASSES)))
    numbers = x[:, :, None] * w["tokenizer.weight"]
    embedded = rows_of_categories(w, "tokenizer.categories.weight", categories)
    tokens = np.concatenate([numbers, embedded], axis=1) + w["tokenizer.bias"]
    tokens = np.concatenate([np.broadcast_to(w["tokenizer.answer"], (6, 1, 12)), tokens], axis=1)
    for block in ("blocks.0", "blocks.1"):
        before = tokens if block == "blocks.0" else norm(tokens, w, f"{block}.attention_norm")
        tokens = tokens + attended(before, w, f"{block}.attention", 3)
        up = linear(norm(tokens, w, f"{block}.forward_norm"), w, f"{block}.up")
        tokens = tokens + linear(up[..., :16] * np.maximum(up[..., 16:], 0.0), w, f"{block}.down")
    wanted = linear(np.maximum(norm(tokens[:, 0], w, "norm"), 0.0), w, "head")

    np.testing.assert_allclose(output, wanted, atol=1e-4)


def test_the_autoencoder_gives_the_mean_squared_error_of_rebuilding_each_row() -> None:
    params = {"hidden": (7, 2), "embedding": 3}
    network = stirred(make_network(Model("m", "torch:autoencoder", params), SIZES, ANOMALY))
    output, x, categories, w = said(network)
    row = np.concatenate([x, rows_of_categories(w, "categories.weight", categories).reshape(6, 6)], axis=1)
    found = linear(row, w, "layers.0")
    for layer in ("layers.1", "layers.2", "layers.3"):
        found = linear(np.maximum(found, 0.0), w, layer)

    np.testing.assert_allclose(output[:, 0], ((found - row) ** 2).sum(axis=1) / 5, rtol=1e-5)
    assert not network.get_parameter("categories.weight").requires_grad


@pytest.mark.parametrize(
    ("kind", "params", "weights"),
    [
        ("torch:logistic", {}, 3 + 1 + 9),
        ("torch:mlp", {"hidden": (7, 5), "bits": 4}, (3 + 1) * 7 + 17 * 7 + (7 + 1) * 5 + 6),
        ("torch:resmlp", {"width": 6, "blocks": 2, "embedding": 3}, 9 * 3 + 10 * 6 + 2 * (12 + 84 + 78) + 12 + 7),
        (
            "torch:ft_transformer",
            {"width": 12, "blocks": 2, "heads": 3},
            (3 + 5 + 1 + 9) * 12 + 2 * (4 * 156 + 24 + 13 * 32 + 17 * 12) + 24 + 24 + 13,
        ),
    ],
)
def test_parameters_are_counted(kind: str, params: dict[str, Any], weights: int) -> None:
    network = make_network(Model("m", kind, params), Sizes(3, (5, 4), 4 if kind == "torch:mlp" else 0), BINARY)

    assert sum(parameter.numel() for parameter in network.parameters()) == weights


@pytest.mark.parametrize(("kind", "task"), list(itertools.product(LABELLED, TASKS.values())), ids=str)
def test_each_network_learns_far_more_than_the_prior(kind: str, task: Task) -> None:
    X, y = rows_of(task, 1_500)
    model, network, preparation = trained(kind, task, X, y, epochs=5)
    learner = TorchLearner(model, COLUMNS, task)
    learner.restore(state_of(network, preparation))
    X, y = rows_of(task, 1_000, seed=1)
    score = learner.predict(X)

    if task.kind == "regression":
        assert np.mean((score - y) ** 2) < 0.35 * y.var()
    elif task.kind == "multiclass":
        assert np.mean(score.argmax(axis=1) == y) > np.bincount(y.astype(int)).max() / len(y) + 0.25
    else:
        loss = -np.mean(np.log(np.where(y > 0.5, score, 1.0 - score)))
        assert loss < 0.55 * np.log(2)


def test_the_autoencoder_ranks_rows_unlike_those_it_was_trained_on_above_them() -> None:
    rng = np.random.default_rng(0)
    usual = rng.normal(size=2_000)
    X = np.column_stack([usual, rng.integers(0, 3, 2_000), 2.0 * usual + 0.1 * rng.normal(size=2_000), usual > 0])
    y = np.full(2_000, np.nan)
    model, network, preparation = trained("torch:autoencoder", ANOMALY, X, y, epochs=14)
    learner = TorchLearner(model, COLUMNS, ANOMALY)
    learner.restore(state_of(network, preparation))
    odd = X[:200].copy()
    odd[:, 2] = -odd[:, 2] + 3.0  # each number is a usual one; together they are not
    score, odd_score = learner.predict(X), learner.predict(odd)

    assert abs(np.mean(score) - 0.5) < 0.01
    assert abs(np.mean(score > 0.95) - 0.05) < 0.005
    assert np.mean(odd_score > 0.95) > 0.8
    assert odd_score.max() < 1.0


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_are_finite_and_reach_every_weight_that_is_learned(kind: str) -> None:
    task = ANOMALY if kind == "torch:autoencoder" else CLASSES
    X, y = rows_of(task, 256)
    _, network, preparation = made(kind, task, X, **({"dropout": 0.0} if kind == "torch:resmlp" else {}))
    numbers, categories = (torch.from_numpy(array) for array in preparation.apply(X))
    y_B = torch.full((256,), torch.nan) if task is ANOMALY else torch.from_numpy(y)
    loss_of(task, network(numbers, categories), network.targets(y_B)).backward()  # type: ignore[no-untyped-call]  # torch's own

    learned = {name: one.grad for name, one in network.named_parameters() if one.requires_grad}
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in learned.values())
    keys = {name for name in learned if name.endswith("attention.key.bias")}  # it moves all logits of a query alike
    assert all(
        bool((gradient != 0).any()) for name, gradient in learned.items() if name not in keys and gradient is not None
    )


def losses(task: Task, outputs: Any, target: Any, weights: Any = None, rows: int | None = None) -> float:
    weight_C = None if weights is None else torch.tensor(weights)
    return float(loss_of(task, torch.tensor(outputs), torch.tensor(target), weight_C, rows))


def test_the_loss_is_the_tasks_and_rows_without_a_label_count_nothing() -> None:
    nan, logits = float("nan"), [[0.5], [-1.0], [2.0]]
    no, yes = np.log1p(np.exp(-1.0)), np.log1p(np.exp(-0.5))

    assert losses(BINARY, logits, [1.0, 0.0, nan]) == pytest.approx((yes + no) / 3, rel=1e-6)
    assert losses(BINARY, logits, [1.0, 0.0, nan], [2.0, 10.0]) == pytest.approx((10 * yes + 2 * no) / 3, rel=1e-6)
    assert losses(BINARY, logits, [1.0, 0.0, nan], rows=30) == pytest.approx((yes + no) / 30, rel=1e-6)
    assert losses(NUMBERS, logits, [1.5, nan, 2.5]) == pytest.approx((1.0 + 0.25) / 3)
    assert losses(ANOMALY, logits, [nan, 0.0, 1.0]) == pytest.approx((0.5 - 1.0) / 3)
    share = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert losses(CLASSES, [[1.0, 2.0, 3.0]], [1.0], [1.0, 3.0, 1.0]) == pytest.approx(-3 * np.log(share[1]), rel=1e-6)


def test_a_regressions_labels_are_scaled_for_training_and_its_answers_scaled_back() -> None:
    network = make_network(Model("m", "torch:logistic", {}), SIZES, NUMBERS)
    y = np.array([900.0, 1_000.0, 1_100.0, np.nan, np.inf])
    network.fit_labels(y)
    target = network.targets(torch.from_numpy(y[:3]))

    np.testing.assert_allclose(target.numpy(), [-1.2247449, 0.0, 1.2247449], rtol=1e-6)
    np.testing.assert_allclose(network.answers(target[:, None])[:, 0], y[:3], rtol=1e-6)
    network.fit_labels(np.full(3, 7.0))
    assert network.answers(network.targets(torch.tensor([7.0, 9.0]))[:, None])[0, 0] == 7.0


@pytest.mark.parametrize("kind", SMALL)
def test_tables_without_numbers_or_without_categories_are_answered(kind: str) -> None:
    task = ANOMALY if kind == "torch:autoencoder" else BINARY
    bits = 4 if kind == "torch:mlp" else 0
    for sizes in (Sizes(0, (5, 4), bits), Sizes(3, (), bits)):
        network = make_network(Model("m", kind, SMALL[kind]), sizes, task).eval()
        numbers, categories = inputs()
        output = network(numbers[:, : sizes.numbers], categories[:, : len(sizes.vocabularies)])

        assert bool(torch.isfinite(output).all())
        assert output.shape == (6, 1)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"\[models\.m\] heads: 5 do not divide the width of 64"):
        make_network(Model("m", "torch:ft_transformer", {"heads": 5}), SIZES, BINARY)


def test_every_kind_of_network_that_a_file_may_name_can_be_made() -> None:
    assert set(SMALL) == {kind for kind in KINDS if kind.startswith("torch:")}
