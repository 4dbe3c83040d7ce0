"""The routes of the Open Inference Protocol, version 2 (https://github.com/kserve/open-inference-protocol)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as release
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from models.version import ORDER
from serving.api_doors import ModelShelf
from serving.inference import (
    BadTensorError,
    InferRequest,
    InferResponse,
    TensorMetadata,
    answer_of,
    inputs_of,
    matrix_of,
    outputs_of,
)
from streams import features
from streams.pipeline import Pipeline

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such candidate or version."}}
BAD: dict[int | str, dict[str, Any]] = {400: {"description": "A tensor does not fit."}, **NOT_FOUND}


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """What a candidate takes and says."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """Whether the server lives."""

    live: bool


class Ready(BaseModel):
    """Whether all candidates can be asked."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a candidate can be asked."""

    name: str
    ready: bool


def add_inference(app: FastAPI, pipeline: Pipeline, shelf: ModelShelf, champion: Callable[[], str]) -> None:
    """Add the routes; `champion` names the one that reigns now."""
    columns = features.columns(pipeline)

    def known(model: str, number: str | None = None) -> str:
        """Give the version that answers now; only that one is at hand."""
        if model not in shelf.names:
            raise HTTPException(404, f"{model[:100]!r} is no candidate; there are {', '.join(shelf.names)}")
        found = shelf.version(model)
        if number is not None and (not ORDER.fullmatch(number) or number != found):
            raise HTTPException(404, f"{model} answers with version {found}, not {number[:40]!r}")
        return found

    @app.get("/v2", tags=["inference"])
    async def server() -> ServerMetadata:
        """Describe the server."""
        return ServerMetadata(name="millrace", version=release("millrace"), extensions=[])

    @app.get("/v2/health/live", tags=["inference"])
    async def live() -> Live:
        """Say that the server lives."""
        return Live(live=True)

    @app.get("/v2/health/ready", tags=["inference"])
    def ready() -> Ready:
        """Say that the reigning champion can be asked."""
        known(champion())
        return Ready(ready=True)

    @app.get("/v2/models/{model}/ready", tags=["inference"], responses=NOT_FOUND)
    def model_ready(model: str) -> ModelReady:
        """Say that a candidate can be asked."""
        known(model)
        return ModelReady(name=model, ready=True)

    @app.get("/v2/models/{model}/versions/{number}/ready", tags=["inference"], responses=NOT_FOUND)
    def version_ready(model: str, number: str) -> ModelReady:
        """Say that a version can be asked."""
        known(model, number)
        return ModelReady(name=model, ready=True)

    @app.get("/v2/models/{model}", tags=["inference"], responses=NOT_FOUND)
    def metadata(model: str) -> ModelMetadata:
        """Describe a candidate's tensors."""
        return _metadata(model, known(model))

    @app.get("/v2/models/{model}/versions/{number}", tags=["inference"], responses=NOT_FOUND)
    def version_metadata(model: str, number: str) -> ModelMetadata:
        """Describe a version's tensors."""
        return _metadata(model, known(model, number))

    def _metadata(model: str, number: str) -> ModelMetadata:
        kind = next(one.kind for one in pipeline.models if one.name == model)
        inputs, outputs = inputs_of(columns), outputs_of(pipeline.task)
        return ModelMetadata(name=model, versions=[number], platform=f"millrace_{kind}", inputs=inputs, outputs=outputs)

    @app.post("/v2/models/{model}/infer", tags=["inference"], responses=BAD, response_model_exclude_none=True)
    def infer(model: str, request: InferRequest) -> InferResponse:
        """Ask a candidate's newest version about given features; nothing is published or learned."""
        return _infer(model, None, request)

    @app.post(
        "/v2/models/{model}/versions/{number}/infer",
        tags=["inference"],
        responses=BAD,
        response_model_exclude_none=True,
    )
    def infer_version(model: str, number: str, request: InferRequest) -> InferResponse:
        """Ask a version about given features, if it is the one that answers now."""
        return _infer(model, number, request)

    def _infer(model: str, number: str | None, request: InferRequest) -> InferResponse:
        known(model, number)
        try:
            score_BS, answering = shelf.predict(model, matrix_of(request, columns))
            outputs = answer_of(score_BS, pipeline.task, request.outputs)
        except BadTensorError as error:
            raise HTTPException(400, str(error)) from None
        return InferResponse(model_name=model, model_version=answering, id=request.id, outputs=outputs)
