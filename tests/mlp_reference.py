"""A multi-layer perceptron in plain NumPy, as torch writes it: matrices [units, inputs], one row a step."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from models.linear_kernels import category_slot
from streams.frames import Column

Floats = npt.NDArray[np.float64]


class Scale:
    """Mean and population variance so far, by exact sums of fractions, so that no rounding is like the kernel's."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, Fraction(0), Fraction(0)
        self.mean = self.deviation = 0.0

    def add(self, value: float) -> None:
        exact = Fraction(value)
        self.count, self.total, self.squares = self.count + 1, self.total + exact, self.squares + exact * exact
        mean = self.total / self.count
        self.mean, self.deviation = float(mean), float(self.squares / self.count - mean * mean) ** 0.5

    def of(self, value: float) -> float:
        return (value - self.mean) / self.deviation if self.deviation > 0.0 else 0.0


class Reference:
    """Starts from torch-like weights; categories are a one-hot row times a table, as wide as that."""

    def __init__(
        self, columns: tuple[Column, ...], task: str, weights: Mapping[str, Floats], settings: Mapping[str, Any]
    ) -> None:
        self.columns, self.task, self.settings = columns, task, settings
        self.weights = {name: array.copy() for name, array in weights.items()}
        self.layers = sum(name.endswith("bias") for name in weights)
        self.scales = {i: Scale() for i, column in enumerate(columns) if not column.is_category}
        self.label = Scale()
        self.moments = {name: (np.zeros_like(a), np.zeros_like(a)) for name, a in self.weights.items()}
        self.steps = 0

    def inputs(self, x: Floats) -> tuple[Floats, Floats]:
        z = [np.clip(scale.of(x[i]), -10, 10) if not np.isnan(x[i]) else 0.0 for i, scale in self.scales.items()]
        hot = np.zeros(len(self.weights.get("categories.weight", ())))
        for i, column in enumerate(self.columns):
            if column.is_category and not np.isnan(x[i]):
                hot[category_slot(i, x[i], len(hot))] += 1.0
        return np.array(z), hot

    def forward(self, z: Floats, hot: Floats) -> list[Floats]:
        values = [z]
        for layer in range(self.layers):
            above = self.weights[f"{2 * layer}.weight"] @ values[-1] + self.weights[f"{2 * layer}.bias"]
            if layer == 0 and len(hot):
                above += hot @ self.weights["categories.weight"]
            if layer < self.layers - 1:
                above = np.tanh(above) if self.settings["activation"] == "tanh" else np.maximum(above, 0.0)
            values.append(above)
        return values

    def answer(self, logit: Floats) -> Floats:
        if self.task == "regression":
            return np.asarray(logit * self.label.deviation + self.label.mean)
        if self.task == "binary":
            return np.asarray(1.0 / (1.0 + np.exp(-logit)))
        share = np.exp(logit - logit.max())
        return np.asarray(share / share.sum())

    def predict(self, x: Floats) -> Floats:
        return self.answer(self.forward(*self.inputs(x))[-1])

    def learn(self, x: Floats, y: float) -> None:
        for i, scale in self.scales.items():
            if not np.isnan(x[i]):
                scale.add(x[i])
        z, hot = self.inputs(x)
        values = self.forward(z, hot)
        if self.task == "regression":
            self.label.add(y)
            delta = 2.0 * (values[-1] - self.label.of(y))
        else:
            right = np.array([y]) if self.task == "binary" else np.arange(len(values[-1])) == y
            delta = self.answer(values[-1]) - right
        gradients: dict[str, Floats] = {}
        for layer in reversed(range(self.layers)):
            gradients[f"{2 * layer}.weight"] = np.outer(delta, values[layer])
            gradients[f"{2 * layer}.bias"] = delta
            if layer == 0 and len(hot):
                gradients["categories.weight"] = np.outer(hot, delta)
            slope = 1.0 - values[layer] ** 2 if self.settings["activation"] == "tanh" else values[layer] > 0.0
            delta = (self.weights[f"{2 * layer}.weight"].T @ delta) * slope
        length = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        kept = min(self.settings["clip"] / (length + 1e-6), 1.0)
        self.steps += 1
        for name, gradient in gradients.items():
            rows = np.flatnonzero(hot) if name == "categories.weight" else slice(None)
            self.move(name, rows, kept * gradient[rows])

    def move(self, name: str, rows: Any, gradient: Floats) -> None:
        lr = self.settings["lr"]
        if self.settings["optimizer"] == "sgd":
            self.weights[name][rows] -= lr * gradient
            return
        (b1, b2), (first, second) = (0.9, 0.999), self.moments[name]
        first[rows] = b1 * first[rows] + (1 - b1) * gradient
        second[rows] = b2 * second[rows] + (1 - b2) * gradient**2
        unbiased = np.sqrt(second[rows] / (1 - b2**self.steps)) + 1e-8
        self.weights[name][rows] -= lr * first[rows] / (1 - b1**self.steps) / unbiased
