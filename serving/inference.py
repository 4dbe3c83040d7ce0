"""The Open Inference Protocol's tensors, to and from matrices: stateless inference on given features.

Source: https://github.com/kserve/open-inference-protocol (version 2, REST). A request has one tensor for each feature
column, of shape [B] or [B, 1], or one named `features` of shape [B, F] with all columns in order. A category is text
(BYTES), which is hashed as in the stream, or its code as a number. What is left out, or null, is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from streams.computed_steps import category_number
from streams.frames import Column
from streams.pipeline import Task

Matrix = npt.NDArray[np.float64]
DataType = Literal["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32",
                   "FP64", "BYTES"]  # fmt: skip
MOST_ROWS = 10_000
ALL_COLUMNS = "features"
LARGEST_INTEGER = 2**53  # beyond it float64 leaves some out


class Tensor(BaseModel):
    """An input: its elements in row-major order, flat or nested."""

    model_config = ConfigDict(extra="ignore")
    name: str = Field(max_length=1_024)
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: DataType
    data: list[Any]
    parameters: dict[str, Any] | None = None


class WantedOutput(BaseModel):
    """An output that is asked for by name."""

    name: str = Field(max_length=1_024)
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """An inference request of the Open Inference Protocol."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"inputs": [{"name": "distance", "shape": [1], "datatype": "FP64", "data": [1416.0]}]}
        }
    )
    id: str | None = Field(default=None, max_length=1_024)
    inputs: list[Tensor] = Field(min_length=1)
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(BaseModel):
    """An output."""

    name: str
    shape: list[int]
    datatype: DataType
    data: list[Any]


class InferResponse(BaseModel):
    """What the model says of each row."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    """What a tensor must look like; -1 is any size."""

    name: str
    datatype: DataType
    shape: list[int]


class BadTensorError(ValueError):
    """A request that cannot be made a matrix; the message says what to change."""


def inputs_of(columns: Sequence[Column]) -> list[TensorMetadata]:
    """Describe what a model takes."""
    return [TensorMetadata(name=c.name, datatype="BYTES" if c.is_category else "FP64", shape=[-1]) for c in columns]


def outputs_of(task: Task) -> list[TensorMetadata]:
    """Describe what a model says."""
    said: DataType = {"multiclass": "BYTES", "regression": "FP64"}.get(task.kind, "INT64")  # type: ignore[assignment]
    found = [TensorMetadata(name="prediction", datatype=said, shape=[-1])]
    if task.kind == "multiclass":
        found.append(TensorMetadata(name="probabilities", datatype="FP64", shape=[-1, len(task.classes)]))
    elif task.kind != "regression":
        beside = {"anomaly": "score", "clustering": "distance"}.get(task.kind, "probability")
        found.append(TensorMetadata(name=beside, datatype="FP64", shape=[-1]))
    return found


def matrix_of(request: InferRequest, columns: Sequence[Column]) -> Matrix:
    """Give the rows of a request as [B, F], NaN where something is missing.

    Raises:
        BadTensorError: a tensor has a name, shape or value that does not fit.
    """
    places = {column.name: place for place, column in enumerate(columns)}
    rows = request.inputs[0].shape[0]
    if not 1 <= rows <= MOST_ROWS:
        raise BadTensorError(f"{rows} rows; allowed are 1 to {MOST_ROWS}")
    X_BF = np.full((rows, len(columns)), np.nan)
    seen: set[str] = set()
    for tensor in request.inputs:
        if tensor.name in seen:
            raise BadTensorError(f"{tensor.name!r} is there twice")
        seen.add(tensor.name)
        if tensor.shape[0] != rows:
            raise BadTensorError(f"{tensor.name!r} has {tensor.shape[0]} rows, the first tensor has {rows}")
        if tensor.name in places:
            place = places[tensor.name]
            X_BF[:, place] = _column(tensor, columns[place])
        elif tensor.name == ALL_COLUMNS and len(request.inputs) == 1:
            X_BF[:] = _all(tensor, columns)
        else:
            names = ", ".join(places)
            raise BadTensorError(f"{tensor.name!r} is no feature; allowed: {names}, or {ALL_COLUMNS!r} alone")
    return X_BF


def answer_of(score_BS: Matrix, task: Task, wanted: Sequence[WantedOutput] | None) -> list[OutputTensor]:
    """Turn a model's scores into tensors, those that are wanted.

    Raises:
        BadTensorError: there is no such output.
    """
    scores_BS = score_BS.reshape(len(score_BS), task.outputs)
    values = {"prediction": _predictions(scores_BS, task)}
    tensors = outputs_of(task)
    if len(tensors) > 1:
        beside = np.sqrt(scores_BS[:, 1]) if task.kind == "clustering" else scores_BS[:, 0]
        values[tensors[1].name] = (scores_BS.ravel() if task.kind == "multiclass" else beside).tolist()
    names = [tensor.name for tensor in tensors]
    if wanted is not None:
        for one in wanted:
            if one.name not in names:
                raise BadTensorError(f"{one.name!r} is no output; allowed: {', '.join(names)}")
        names = [one.name for one in wanted] or names
    return [
        OutputTensor(
            name=tensor.name,
            shape=[len(scores_BS), *tensor.shape[1:]],
            datatype=tensor.datatype,
            data=values[tensor.name],
        )
        for tensor in tensors
        if tensor.name in names
    ]


def _predictions(scores_BS: Matrix, task: Task) -> list[Any]:
    if task.kind == "multiclass":
        return [task.classes[place] for place in scores_BS.argmax(axis=1).tolist()]
    if task.kind == "regression":
        return list(scores_BS[:, 0].tolist())
    if task.kind == "clustering":
        return list(scores_BS[:, 0].astype(np.int64).tolist())
    threshold = scores_BS[:, 1] if scores_BS.shape[1] == 2 else task.threshold
    return list((scores_BS[:, 0] >= threshold).astype(np.int64).tolist())


def _column(tensor: Tensor, column: Column) -> list[float]:
    if len(tensor.shape) == 2 and tensor.shape[1] != 1:
        raise BadTensorError(f"{tensor.name!r} has shape {tensor.shape}; allowed: [B] or [B, 1]")
    values = _flat(tensor)
    is_text = tensor.datatype == "BYTES"
    if is_text and not column.is_category:
        raise BadTensorError(f"{tensor.name!r} is a number; BYTES is for categories")
    return [_code(value, tensor.name) if is_text else _number(value, tensor.name) for value in values]


def _all(tensor: Tensor, columns: Sequence[Column]) -> Matrix:
    if len(tensor.shape) != 2 or tensor.shape[1] != len(columns) or tensor.datatype == "BYTES":
        raise BadTensorError(f"{ALL_COLUMNS!r} has shape {tensor.shape}; allowed: [B, {len(columns)}] numbers")
    return np.array([_number(value, tensor.name) for value in _flat(tensor)]).reshape(tensor.shape)


def _flat(tensor: Tensor) -> list[Any]:
    values = tensor.data
    if len(tensor.shape) == 2 and any(isinstance(value, list) for value in values):
        values = [inner for value in values for inner in (value if isinstance(value, list) else [value])]
    if len(values) != math.prod(tensor.shape):
        raise BadTensorError(f"{tensor.name!r} has {len(values)} values, its shape is {tensor.shape}")
    return values


def _number(value: Any, name: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or (isinstance(value, int) and abs(value) > LARGEST_INTEGER):
        raise BadTensorError(f"{name!r} holds {str(value)[:60]!r}, which is no number that a float64 holds")
    return float(value)


def _code(value: Any, name: str) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, str):
        raise BadTensorError(f"{name!r} holds {str(value)[:60]!r}, which is no text")
    try:
        return category_number(value)
    except UnicodeEncodeError:
        raise BadTensorError(f"{name!r} holds a text that is no Unicode") from None
