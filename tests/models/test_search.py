"""The search for settings: seeded, never worse than the file's settings, and with layers that the network can have."""

from __future__ import annotations

import math
from typing import Any

import pytest

from models.learner import settings_of
from models.search import search
from streams.errors import PipelineError, TrainingError
from streams.model_setting import Value
from streams.pipeline import Model, Task


def settings(kind: str, **params: Value) -> dict[str, Value]:
    return settings_of(Model("net", kind, params), Task())


def test_it_finds_a_rate_that_is_better_than_the_file_s() -> None:
    found = search(settings("torch:mlp"), 30, 0, lambda tried: abs(math.log10(tried["lr"] / 0.006)))

    assert found["lr"] == pytest.approx(0.006, rel=0.3)
    assert found.keys() == {"lr", "weight_decay", "dropout", "hidden"}


def test_the_first_trial_is_the_file_s_own() -> None:
    tried: list[dict[str, Any]] = []

    def attempt(settings: dict[str, Any]) -> float:
        tried.append(settings)
        return float(len(tried))

    found = search(settings("torch:resmlp", lr=0.004, width=96), 5, 0, attempt)

    assert len(tried) == 5
    assert found == tried[0]
    assert found["lr"] == pytest.approx(0.004)
    assert found["dropout"] == pytest.approx(0.1)
    assert found["weight_decay"] == pytest.approx(0.01)


def test_the_same_seed_tries_the_same_settings() -> None:
    runs: list[list[dict[str, Any]]] = []
    for seed in (1, 1, 2):
        tried: list[dict[str, Any]] = []
        search(settings("torch:mlp"), 8, seed, lambda one, tried=tried: tried.append(one) or one["lr"])  # type: ignore[misc]  # a list takes it and gives nothing
        runs.append(tried)

    assert runs[0] == runs[1]
    assert runs[1] != runs[2]


@pytest.mark.parametrize("width", [8, 40, 64])
def test_every_width_that_is_tried_is_shared_by_the_heads(width: int) -> None:
    widths = set()

    def attempt(tried: dict[str, Any]) -> float:
        widths.add(tried["width"])
        return 1.0

    search(settings("torch:ft_transformer", width=width, heads=8), 20, 0, attempt)

    assert all(one % 8 == 0 and one >= 8 for one in widths)
    assert max(widths) == 2 * width


def test_without_layers_no_size_is_searched() -> None:
    found = search(settings("torch:logistic"), 4, 0, lambda tried: tried["lr"])

    assert found.keys() == {"lr", "weight_decay"}


def test_a_trial_that_fails_is_passed_over() -> None:
    def attempt(tried: dict[str, Any]) -> float:
        if tried["lr"] > 0.001:
            raise TrainingError("the loss is not finite")
        if tried["hidden"] == [512, 256]:
            raise PipelineError(["too large"])
        return -float(tried["lr"])

    found = search(settings("torch:mlp"), 20, 0, attempt)

    assert found["lr"] <= 0.001
    assert found["hidden"] != [512, 256]


def test_where_all_trials_fail_the_last_reason_is_told() -> None:
    def attempt(tried: dict[str, Any]) -> float:
        raise TrainingError("the loss is not finite")

    with pytest.raises(TrainingError, match="all 3 trials of the search failed; the last: the loss is not finite"):
        search(settings("torch:mlp"), 3, 0, attempt)
