"""The HTTP API: publish an event and wait for its prediction, ask what is known of a key, or ask a model directly.

No state is kept here that another process would need: any number of these may run, on any machines.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

from serving.answer_board import LOST, AnswerBoard, AnswerTail
from serving.api_doors import Decisions, KeyStore, League, ModelShelf, Throne
from serving.api_inference import add_inference
from serving.event_door import EventDoor, RefusedError
from streams.durations import SECOND_US, duration_us
from streams.errors import MillraceError, StoreError, UnavailableError
from streams.kafka_publisher import Acknowledged, KafkaPublisher
from streams.metrics import RoleMetrics
from streams.metrics_server import exposition
from streams.pipeline import Pipeline
from streams.pipeline_description import describe

LONGEST_WAIT_S = 30.0
JSON = "application/json"
WAIT = Query(
    description=f'Wait so long for the prediction, as "2s" or "500ms"; at most {LONGEST_WAIT_S:g}s.', max_length=20
)
DESCRIPTION = "Publish events, wait for predictions, look up keys and models. Tensors: the Open Inference Protocol, v2."


class Doors(NamedTuple):
    """What the API reaches."""

    events: EventDoor
    publisher: KafkaPublisher
    models: ModelShelf
    league: League
    decisions: Decisions
    keys: KeyStore
    throne: Throne


def make_app(pipeline: Pipeline, doors: Doors, metrics: RoleMetrics) -> FastAPI:
    """Make the application; it follows the predictions as long as it runs."""
    board = AnswerBoard()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        tail = AnswerTail(pipeline, board, asyncio.get_running_loop())
        app.state.tail = tail
        tail.start()
        yield
        tail.close()
        await doors.keys.close()

    title = f"Millrace: {pipeline.name}"
    app = FastAPI(
        title=title,
        description=DESCRIPTION,
        version=version("millrace"),
        lifespan=life,
        redoc_url=None,
    )
    _add_health(app, metrics)
    _add_events(app, pipeline, doors, board)
    _add_keys(app, doors)
    _add_knowledge(app, pipeline, doors)
    add_inference(app, pipeline, doors.models, doors.throne.champion)
    app.add_exception_handler(MillraceError, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


async def _unavailable(_request: Request, error: Exception) -> Response:
    return _json({"detail": str(error)}, 503)


async def _invalid(_request: Request, error: Exception) -> Response:
    """Say where and why, without what was sent: that may be NaN or half a character, which no JSON can hold."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    found = [{part: one[part] for part in ("loc", "msg", "type")} for one in error.errors()]
    return Response(json.dumps({"detail": found}), 422, media_type=JSON)  # ASCII, for a place may be named by a client


def _json(found: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(found), status, media_type=JSON)


def _add_health(app: FastAPI, metrics: RoleMetrics) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        """Lead to the documentation."""
        return RedirectResponse("/docs")

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["health"], responses={503: {"description": "Not yet, or not any more."}})
    async def readyz() -> Response:
        """Say whether predictions are followed, so that a wait can be answered."""
        is_ready = app.state.tail.is_reading
        return _json({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics_text() -> Response:
        """Give this process's metrics as Prometheus reads them."""
        return Response(exposition(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_events(app: FastAPI, pipeline: Pipeline, doors: Doors, board: AnswerBoard) -> None:
    @app.post(
        "/events",
        status_code=202,
        tags=["events"],
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}},
        responses={
            200: {"description": "The prediction, as on the predictions topic."},
            422: {"description": "The record is no event of this pipeline; nothing was published."},
            503: {"description": "Kafka does not take it."},
            504: {"description": "Published, but not predicted within the wait."},
        },
    )
    async def publish(request: Request, wait: Annotated[str | None, WAIT] = None) -> Response:
        """Publish one event: the JSON object as the events topic has it."""
        wait_s = _wait_s(wait)
        payload = await request.body()
        try:
            name = doors.events.check(payload)
        except RefusedError as refused:
            return _json({"detail": str(refused), "error": refused.error}, 422)
        event = name.id or ""
        waiting = board.expect(event) if wait_s is not None and name.id is not None else None
        try:
            where = await _published(doors.publisher, pipeline.events.topic, payload, name.key)
            event = event if name.id is not None else f"{where.topic}-{where.partition}-{where.offset}"
            if wait_s is None:
                return _json({"id": event, **where._asdict()}, 202)
            waiting = waiting or board.expect(event, is_late=True)
            try:
                return Response(await asyncio.wait_for(asyncio.shield(waiting), wait_s), media_type=JSON)
            except TimeoutError:
                late = f"published, but not predicted within {wait}; a second event of the same id never is"
                return _json({"detail": late, "id": event, **where._asdict()}, 504)
        finally:
            if waiting is not None:
                board.forget(event, waiting)

    @app.get(
        "/predictions",
        tags=["events"],
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {}}, "description": "One JSON object a line."}},
    )
    async def predictions() -> Response:
        """Stream all predictions from now on. One that reads too slowly ends with `{"lost": why}`."""
        listener = board.listen()

        async def lines() -> AsyncIterator[bytes]:
            try:
                while values := await listener.take():
                    yield b"\n".join(values) + b"\n"
                yield msgspec.json.encode({"lost": LOST}) + b"\n"
            finally:
                listener.close()

        return StreamingResponse(lines(), media_type="application/x-ndjson")


async def _published(publisher: KafkaPublisher, topic: str, payload: bytes, key: str | None) -> Acknowledged:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Acknowledged] = loop.create_future()

    def tell(result: Acknowledged | MillraceError) -> None:
        if told.done():
            return  # who asked has gone
        if isinstance(result, MillraceError):
            told.set_exception(UnavailableError(str(result)))
        else:
            told.set_result(result)

    def delivered(result: Acknowledged | MillraceError) -> None:
        loop.call_soon_threadsafe(tell, result)

    publisher.publish(topic, payload, None if key is None else key.encode(), delivered)
    return await told


def _wait_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        wait_s = duration_us(text) / SECOND_US
    except ValueError:
        wait_s = -1.0
    if not 0 < wait_s <= LONGEST_WAIT_S:
        raise HTTPException(422, f'wait {text[:40]!r} is not right; allowed: up to {LONGEST_WAIT_S:g}s, as "2s"')
    return wait_s


def _add_keys(app: FastAPI, doors: Doors) -> None:
    @app.get(
        "/keys/{key:path}",
        tags=["keys"],
        responses={
            404: {"description": "Nothing is stored for the key, or there is no online store."},
            409: {"description": "What is stored is older than asked."},
            503: {"description": "The store cannot be asked."},
        },
    )
    async def key(
        key: str,
        min_number: Annotated[int | None, Query(ge=0, description="The event's number, or a later one's.")] = None,
    ) -> Response:
        """Give the features and the prediction of a key's last event."""
        if not doors.keys.is_there:
            return _json({"detail": "the pipeline has no online store: [serve] redis is not declared"}, 404)
        try:
            stored = await doors.keys.read(key)
        except StoreError as error:
            return _json({"detail": str(error)}, 503)
        if stored is None:
            return _json({"detail": "nothing is stored for this key"}, 404)
        number = stored.number
        if min_number is not None and number < min_number:
            return _json({"detail": f"number {number} is stored, {min_number} was asked for", "number": number}, 409)
        age_s = round(max(0.0, time.time() - stored.time_us / SECOND_US), 3)
        return _json({"key": key, **stored._asdict(), "age_s": age_s})


def _add_knowledge(app: FastAPI, pipeline: Pipeline, doors: Doors) -> None:
    @app.get("/models", tags=["knowledge"])
    def models() -> Response:
        """Give the league: who reigns, each candidate's newest version, the answers' figures; null: none yet."""
        champion, (versions, served) = doors.throne.champion(), doors.league.look()
        found = [{"candidate": name, "is_champion": name == champion, "version": one} for name, one in versions.items()]
        return _json({"pipeline": pipeline.name, "models": found, "served": served})

    @app.get("/decisions", tags=["knowledge"])
    def decisions(most: Annotated[int, Query(ge=1, le=1_000)] = 100) -> Response:
        """Give the newest records of the decisions topic, the newest first."""
        return _json({"pipeline": pipeline.name, "decisions": doors.decisions.newest(most)})

    @app.get("/pipeline", tags=["knowledge"])
    def described() -> Response:
        """Give what the pipeline file stands for: topics, stages, features, models."""
        return _json(describe(pipeline))
