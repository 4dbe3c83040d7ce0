"""One process of the HTTP API: what `millrace run api FILE` does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version

import uvicorn

from serving.api import Doors, make_app
from serving.api_doors import Decisions, KeyStore, League, ModelShelf, Throne
from serving.api_guard import Guard
from serving.event_door import EventDoor
from streams.errors import PipelineError, UnavailableError
from streams.kafka_publisher import KafkaPublisher
from streams.metrics_server import open_metrics
from streams.pipeline import Pipeline

MOST_AT_ONCE = 1_000  # connections; more are answered 503, so that those that are open stay quick
KEEP_ALIVE_S = 30
STOP_S = 5


def run_api(pipeline: Pipeline, metrics_address: str | None = None) -> None:
    """Answer over HTTP until told to stop.

    Args:
        pipeline: has `[serve] http`.
        metrics_address: `host:port` for /metrics beside the API's own; a free loopback port if left out.

    Raises:
        PipelineError: the pipeline has no HTTP API.
        UnavailableError: the address is taken.
    """
    if pipeline.serve.http is None:
        hint = 'declare where it answers, such as http = "127.0.0.1:8080"'
        raise PipelineError([f"[serve] http is missing: the pipeline has no HTTP API; {hint}"])
    metrics, _ = open_metrics("api", pipeline.name, version("millrace"), metrics_address)
    with ExitStack() as open_doors:
        doors = Doors(
            EventDoor(pipeline),
            KafkaPublisher(pipeline.kafka),
            ModelShelf(pipeline, metrics),
            League(pipeline),
            Decisions(pipeline),
            KeyStore(pipeline),
            Throne(pipeline),
        )
        for door in (doors.publisher, doors.models, doors.decisions, doors.throne):
            open_doors.callback(door.close)
        app = Guard(make_app(pipeline, doors, metrics), metrics, pipeline.serve.token)
        serve(pipeline, app, metrics.ready)


class _Server(uvicorn.Server):
    """Tells when it answers."""

    def __init__(self, settings: uvicorn.Config, tell_ready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._tell_ready = tell_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell_ready()


def serve(pipeline: Pipeline, app: Guard, tell_ready: Callable[[], None]) -> None:
    """Listen until SIGTERM or SIGINT; requests at hand are answered first. `tell_ready` is called when it answers.

    Raises:
        UnavailableError: the address is taken.
    """
    host, port = pipeline.serve.http or ("127.0.0.1", 0)
    settings = uvicorn.Config(
        app,
        host,
        port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        limit_concurrency=MOST_AT_ONCE,
        lifespan="on",
    )
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UnavailableError(f"[serve] http: {host}:{port} cannot be listened on: {error.strerror}") from error
    _Server(settings, tell_ready).run(sockets=[listening])
