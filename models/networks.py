"""Networks over scaled numbers and categories, one class a kind, and the loss they are trained by.

A network gets what a Preparation makes of rows (preparation.py) and gives *outputs*: a logit, one for each class, a
number on the scale of the training's labels, or an error. `answers` turns outputs into the task's scores. Two things
are taken from the training rows beside the weights, and lie among its buffers: `label`, the scale of a regression's
labels, and `error`, by which an autoencoder's errors are ranked.

    torch:logistic        a weight for each number and category
    torch:mlp             exactly models/mlp.py, whose weights it can give and take: hashed categories, hidden layers
    torch:resmlp          ResNet of Gorishniy et al. 2021
    torch:ft_transformer  FT-Transformer of the same paper
    torch:autoencoder     the error of rebuilding a row from few numbers (Hawkins et al. 2002)

Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021. Hawkins, He,
Williams, Baxter: Outlier Detection Using Replicator Neural Networks, DaWaK 2002.

Letters of shapes: B rows, N numbers, C category columns, O outputs, W width, T tokens.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.error_ranks import LEVELS, quantiles_of, rank
from models.learner import MAX_MAGNITUDE, Matrix, Vector, settings_of
from models.network_parts import (
    CategoryRows,
    HashedRows,
    Linear,
    ResidualBlock,
    Tokenizer,
    TransformerBlock,
    activation_of,
    dropped,
)
from models.preparation import HASHED, Sizes
from streams.errors import PipelineError
from streams.pipeline import Model, Task


class Network(nn.Module):
    """What all kinds have in common: taking scales from the training rows, and turning outputs into scores."""

    label: Tensor  # float64 [3]: how many labels of a regression, their mean and variance, as models/mlp.py has them
    error: Tensor  # float64 [K]: quantiles of the training's errors

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.outputs = max(1, len(task.classes))
        is_number, is_anomaly = task.kind == "regression", task.kind == "anomaly"
        self.register_buffer("label", torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), persistent=is_number)
        self.register_buffer("error", torch.zeros(len(LEVELS), dtype=torch.float64), persistent=is_anomaly)

    def __call__(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give the outputs, [B, O]."""
        return cast("Tensor", super().__call__(numbers_BN, categories_BC))

    def fit_labels(self, y_N: Vector) -> None:
        """Take the scale of a regression's labels from the training rows; called once, before training."""
        y_N = y_N[np.abs(y_N) <= MAX_MAGNITUDE]
        if self.task.kind == "regression" and len(y_N):
            self.label.copy_(torch.tensor([len(y_N), y_N.mean(), y_N.var()]))

    def fit_outputs(self, outputs_NO: Matrix) -> None:
        """Take the quantiles of the training rows' errors; called once, behind training."""
        if self.task.kind == "anomaly":
            self.error.copy_(torch.from_numpy(quantiles_of(outputs_NO[:, 0].astype(np.float64))))

    def targets(self, y_B: Tensor) -> Tensor:
        """Give labels on the scale of the outputs: a regression's in deviations from the mean, others as they are."""
        if self.task.kind != "regression":
            return y_B.float()
        deviation = self.label[2].sqrt()
        return ((y_B.double() - self.label[1]) / torch.where(deviation > 0.0, deviation, 1.0)).float()

    def answers(self, outputs_BO: Tensor) -> Matrix:
        """Give the scores [B, O] of outputs: probabilities, the number, or how unusual the row is."""
        outputs = outputs_BO.double()
        if self.task.kind == "binary":
            return cast("Matrix", outputs.sigmoid().numpy())
        if self.task.kind == "multiclass":
            return cast("Matrix", outputs.softmax(dim=1).numpy())
        if self.task.kind == "anomaly":
            return rank(outputs.numpy(), self.error.numpy())
        number = outputs * self.label[2].sqrt() + self.label[1]
        return cast("Matrix", number.clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE).numpy())


class Logistic(Network):
    """A weight for each number and each category, and a bias."""

    def __init__(self, settings: dict[str, Any], sizes: Sizes, task: Task) -> None:
        super().__init__(task)
        self.linear = Linear(sizes.numbers, self.outputs)
        self.categories = CategoryRows(sizes.vocabularies, self.outputs, std=0.0)

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give the outputs, [B, O]."""
        return self.linear(numbers_BN) + self.categories.summed(categories_BC)


class Mlp(Network):
    """Linear layers with an activation between them; a category adds its row of a hashed table to the first."""

    def __init__(self, settings: dict[str, Any], sizes: Sizes, task: Task) -> None:
        super().__init__(task)
        widths = (sizes.numbers, *settings["hidden"], self.outputs)
        self.layers = nn.ModuleList(Linear(inputs, units) for inputs, units in pairwise(widths))
        self.categories = HashedRows(sizes.bits, widths[1]) if sizes.vocabularies else None
        self.activation, self.dropout = activation_of(settings["activation"]), settings["dropout"]

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give the outputs, [B, O]."""
        first, *others = self.layers
        x_BW = first(numbers_BN)
        if self.categories is not None:
            x_BW += self.categories(categories_BC)
        for layer in others:
            x_BW = layer(dropped(self.activation(x_BW), self))
        return cast("Tensor", x_BW)


class ResMlp(Network):
    """Numbers beside the embeddings of categories, through residual blocks, norm and ReLU to a linear head."""

    def __init__(self, settings: dict[str, Any], sizes: Sizes, task: Task) -> None:
        super().__init__(task)
        width, embedding = settings["width"], settings["embedding"]
        self.categories = CategoryRows(sizes.vocabularies, embedding, std=embedding**-0.5)
        self.first = Linear(sizes.numbers + len(sizes.vocabularies) * embedding, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, settings["dropout"]) for _ in range(settings["blocks"]))
        self.norm, self.head = nn.LayerNorm(width), Linear(width, self.outputs)

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give the outputs, [B, O]."""
        x_BW = self.first(torch.cat([numbers_BN, self.categories(categories_BC).flatten(1)], dim=1))
        for block in self.blocks:
            x_BW = block(x_BW)
        return self.head(functional.relu(self.norm(x_BW)))


class FtTransformer(Network):
    """A token for each column, transformer blocks over them, and a head on the token in front."""

    def __init__(self, settings: dict[str, Any], sizes: Sizes, task: Task) -> None:
        super().__init__(task)
        width, count = settings["width"], settings["blocks"]
        self.tokenizer = Tokenizer(sizes.numbers, sizes.vocabularies, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, settings["heads"], settings["dropout"], is_first=place == 0)
            for place in range(count)
        )
        self.norm, self.head = nn.LayerNorm(width), Linear(width, self.outputs)

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give the outputs, [B, O]; the last block is asked for the token in front only, which spares most of it."""
        x_BTW = self.tokenizer(numbers_BN, categories_BC)
        for place, block in enumerate(self.blocks):
            x_BTW = block(x_BTW, 1 if place == len(self.blocks) - 1 else x_BTW.shape[1])
        return self.head(functional.relu(self.norm(x_BTW[:, 0])))


class Autoencoder(Network):
    """Rebuilds a row from the few numbers of its narrowest layer; the output is the error, [B, 1].

    A category is stood for by a random point that is never learned, else all points would fall together and be easy
    to rebuild. Its squared length is about 1, so that a column of categories weighs as much as a scaled number.
    """

    def __init__(self, settings: dict[str, Any], sizes: Sizes, task: Task) -> None:
        super().__init__(task)
        hidden, embedding = settings["hidden"], settings["embedding"]
        self.categories = CategoryRows(sizes.vocabularies, embedding, std=embedding**-0.5)
        self.categories.weight.requires_grad_(False)
        width = sizes.numbers + len(sizes.vocabularies) * embedding
        self.columns = max(1, sizes.numbers + len(sizes.vocabularies))
        widths = (width, *hidden, *hidden[-2::-1], width)
        self.layers = nn.ModuleList(Linear(inputs, units) for inputs, units in pairwise(widths))

    def forward(self, numbers_BN: Tensor, categories_BC: Tensor) -> Tensor:
        """Give each row's mean squared error over its columns, [B, 1]."""
        row_BW = torch.cat([numbers_BN, self.categories(categories_BC).flatten(1)], dim=1)
        first, *others = self.layers
        x_BW = first(row_BW)
        for layer in others:
            x_BW = layer(functional.relu(x_BW))
        error_BW: Tensor = x_BW - row_BW
        return error_BW.square().sum(dim=1, keepdim=True) / self.columns


_NETWORKS: dict[str, type[Network]] = {
    "torch:logistic": Logistic,
    HASHED: Mlp,
    "torch:resmlp": ResMlp,
    "torch:ft_transformer": FtTransformer,
    "torch:autoencoder": Autoencoder,
}


def make_network(model: Model, sizes: Sizes, task: Task | None = None) -> Network:
    """Make an untrained network; its first weights are drawn from torch's own generator, so seed that before.

    Raises:
        PipelineError: when a setting is not known or does not fit another.
    """
    task = task or Task()
    settings = settings_of(model, task)
    width, heads = settings.get("width"), settings.get("heads")
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        text = f"{heads} do not divide the width of {width}; allowed: a divisor of it"
        raise PipelineError([f"[models.{model.name}] heads: {text}"])
    make: Any = _NETWORKS[model.kind]
    return cast("Network", make(settings, sizes, task))


def loss_of(
    task: Task, outputs_BO: Tensor, target_B: Tensor, weight_C: Tensor | None = None, rows: int | None = None
) -> Tensor:
    """Give the loss of a batch: log loss, the squared error of a regression, or the error of rebuilding.

    Args:
        task: what the network answers.
        outputs_BO: that it gave.
        target_B: `Network.targets` of the labels. A row without a label counts nothing; to rebuild, all rows count but
            those whose label says that they are unusual.
        weight_C: of each class, of a binary task that of no and of yes.
        rows: what the sum is divided by, B if left out; processes that share a batch divide by all of its rows.
    """
    if task.kind == "anomaly":
        loss_B = outputs_BO[:, 0].masked_fill(target_B > 0.5, 0.0)
        return loss_B.sum() / (rows or len(loss_B))
    is_known = torch.isfinite(target_B)
    target_B = target_B.masked_fill(~is_known, 0.0)
    if task.kind == "regression":
        loss_B = (outputs_BO[:, 0] - target_B).square()
    elif task.kind == "binary":
        loss_B = functional.binary_cross_entropy_with_logits(outputs_BO[:, 0], target_B, reduction="none")
    else:
        loss_B = functional.cross_entropy(outputs_BO, target_B.long(), reduction="none")
    if weight_C is not None and task.kind != "regression":
        loss_B = loss_B * weight_C[target_B.long()]
    return loss_B.masked_fill(~is_known, 0.0).sum() / (rows or len(loss_B))
