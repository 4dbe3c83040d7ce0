"""Tensors of the Open Inference Protocol, to matrices and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from serving.inference import BadTensorError, InferRequest, WantedOutput, answer_of, matrix_of, outputs_of
from streams.computed_steps import category_number
from streams.frames import Column
from streams.pipeline import Task

COLUMNS = (Column("x", is_category=False), Column("shop", is_category=True))


def tensor(name: str, data: list[Any], shape: list[int] | None = None, datatype: str = "FP64") -> dict[str, Any]:
    """An input as JSON has it."""
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def matrix(*tensors: dict[str, Any]) -> list[list[float]]:
    """The matrix of a request."""
    found: list[list[float]] = matrix_of(InferRequest.model_validate({"inputs": list(tensors)}), COLUMNS).tolist()
    return found


def test_columns_are_found_by_their_names() -> None:
    """In any order; a category is text or its code, and null is missing."""
    code = category_number("köln")
    found = matrix(tensor("shop", ["köln", None], datatype="BYTES"), tensor("x", [[1.5], [None]], [2, 1]))

    assert found[0] == [1.5, code]
    assert all(math.isnan(value) for value in found[1])
    assert matrix(tensor("shop", [code]))[0][1] == code
    assert math.isnan(matrix(tensor("shop", [code]))[0][0])


def test_all_columns_may_come_as_one_tensor() -> None:
    assert matrix(tensor("features", [1.0, 2.0, 3.0, 4.0], [2, 2])) == [[1.0, 2.0], [3.0, 4.0]]
    assert matrix(tensor("features", [[1.0, 2.0], [3.0, 4.0]], [2, 2])) == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("tensors", "wrong"),
    [
        ([tensor("y", [1.0])], "'y' is no feature; allowed: x, shop, or 'features' alone"),
        ([tensor("x", [1.0]), tensor("x", [1.0])], "'x' is there twice"),
        ([tensor("x", [1.0]), tensor("shop", [1.0, 2.0])], "'shop' has 2 rows, the first tensor has 1"),
        ([tensor("x", [1.0, 2.0], [1])], "'x' has 2 values, its shape is [1]"),
        ([tensor("x", [1.0, 2.0], [1, 2])], "'x' has shape [1, 2]; allowed: [B] or [B, 1]"),
        ([tensor("x", ["1"], datatype="BYTES")], "'x' is a number; BYTES is for categories"),
        ([tensor("x", ["1"])], "'x' holds '1', which is no number that a float64 holds"),
        ([tensor("x", [2**60])], f"'x' holds '{2**60}', which is no number that a float64 holds"),
        ([tensor("shop", [7], datatype="BYTES")], "'shop' holds '7', which is no text"),
        ([tensor("features", [1.0], [1, 1])], "'features' has shape [1, 1]; allowed: [B, 2] numbers"),
        ([tensor("x", [], [0])], "0 rows; allowed are 1 to 10000"),
        ([tensor("x", [], [-1])], "-1 rows; allowed are 1 to 10000"),
        ([tensor("x", [1.0] * 10_001)], "10001 rows; allowed are 1 to 10000"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(tensors: list[dict[str, Any]], wrong: str) -> None:
    with pytest.raises(BadTensorError) as refused:
        matrix(*tensors)

    assert str(refused.value) == wrong


@pytest.mark.parametrize(
    ("task", "scores", "said", "beside"),
    [
        (Task(threshold=0.4), [[0.4], [0.3]], [1, 0], [0.4, 0.3]),
        (Task("regression"), [[2.5], [-1.0]], [2.5, -1.0], None),
        (Task("multiclass", ("a", "b")), [[0.2, 0.8], [0.5, 0.5]], ["b", "a"], [0.2, 0.8, 0.5, 0.5]),
        (Task("anomaly"), [[0.9], [0.1]], [1, 0], [0.9, 0.1]),
        (Task("anomaly", alert=0.1), [[0.9, 0.95], [0.8, 0.7]], [0, 1], [0.9, 0.8]),
        (Task("clustering"), [[3.0, 4.0, 0.5], [0.0, 9.0, 0.1]], [3, 0], [2.0, 3.0]),
    ],
)
def test_scores_become_the_predictions_that_serve_publishes(
    task: Task, scores: list[list[float]], said: list[Any], beside: list[float] | None
) -> None:
    found = answer_of(np.array(scores), task, None)

    assert found[0].data == said
    assert [tensor.name for tensor in found] == [tensor.name for tensor in outputs_of(task)]
    assert [tensor.data for tensor in found[1:]] == ([] if beside is None else [beside])
    for made, described in zip(found, outputs_of(task), strict=True):
        assert made.datatype == described.datatype
        assert len(made.data) == math.prod(made.shape)


def test_outputs_may_be_picked() -> None:
    wanted = [WantedOutput(name="probability")]

    assert [tensor.name for tensor in answer_of(np.array([[0.5]]), Task(), wanted)] == ["probability"]
    with pytest.raises(BadTensorError, match="'score' is no output; allowed: prediction, probability"):
        answer_of(np.array([[0.5]]), Task(), [WantedOutput(name="score")])
