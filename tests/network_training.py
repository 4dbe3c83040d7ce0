"""A network trained in a few seconds on made-up rows, by the plainest loop there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.networks import Network, loss_of, make_network
from models.preparation import Preparation
from streams.frames import Column
from streams.pipeline import Model, Task

Floats = npt.NDArray[np.float64]

COLUMNS = (Column("delay", False), Column("carrier", True), Column("distance", False), Column("origin", True))
BINARY, NUMBERS, CLASSES = Task(), Task("regression"), Task("multiclass", ("a", "b", "c"))
ANOMALY = Task("anomaly")
SMALL: dict[str, dict[str, Any]] = {
    "torch:logistic": {},
    "torch:mlp": {"hidden": (32, 16), "bits": 8},
    "torch:resmlp": {"width": 32, "blocks": 2, "embedding": 4},
    "torch:ft_transformer": {"width": 16, "blocks": 2, "heads": 4, "dropout": 0.0},
    "torch:autoencoder": {"hidden": (16, 2), "embedding": 4},
}


def rows_of(task: Task, rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Give rows of COLUMNS with holes; labels go by a number, by whether two categories agree, and by noise."""
    rng = np.random.default_rng(seed)
    delay, distance = rng.normal(10.0, 40.0, rows), rng.lognormal(6.0, 1.0, rows)
    carrier, origin = rng.integers(0, 4, rows), rng.integers(0, 3, rows)
    signal = (delay - 10.0) / 40.0 + 2.0 * (carrier > 1) - 1.0 + rng.normal(0.0, 0.3, rows)
    X = np.column_stack([delay, carrier * 1e9, distance, origin + 7.0])
    X[rng.random(X.shape) < 0.05] = np.nan
    if task.kind == "regression":
        return X, 1_000.0 + 30.0 * signal
    if task.kind == "multiclass":
        return X, (signal > -0.7).astype(float) + (signal > 0.7)
    return X, (signal > 0.0).astype(float)


def made(kind: str, task: Task, X: Floats, **params: Any) -> tuple[Model, Network, Preparation]:
    """Give an untrained network with its preparation; small settings unless others are named."""
    model = Model("net", kind, {**SMALL[kind], **params})
    preparation = Preparation.fit(X, COLUMNS, model)
    torch.manual_seed(0)
    return model, make_network(model, preparation.sizes, task), preparation


def trained(
    kind: str, task: Task, X: Floats, y: Floats, epochs: int = 12, **params: Any
) -> tuple[Model, Network, Preparation]:
    """Give a network after a few epochs of Adam over batches of 64, in one thread: more wait for each other."""
    torch.set_num_threads(1)
    model, network, preparation = made(kind, task, X, **params)
    network.fit_labels(y)
    numbers, categories = (torch.from_numpy(array) for array in preparation.apply(X))
    target, optimizer = network.targets(torch.from_numpy(y)), torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(X)), 64):
            optimizer.zero_grad()
            loss_of(task, network(numbers[rows], categories[rows]), target[rows]).backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
    network.eval()
    with torch.no_grad():
        network.fit_outputs(network(numbers, categories).numpy())
    return model, network, preparation
