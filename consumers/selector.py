"""Select: the selector as a Faust application, the only door to Faust.

Two agents hand records to the desk (selection_desk.py), which decides everything; a Table with one value keeps its
state in a changelog. Faust is only the shell:

- a handler that raises loses its record, so nothing raises inside: the first failure is kept, and ends the process;
- a Table is in memory and comes back from its changelog; values are untyped JSON, for typed ones break recovery;
- one agent at a time, one partition, and offsets are Faust's to commit: the desk goes by its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import faust
import msgspec

from consumers.selection_desk import Desk, Doors
from consumers.standings import standings_of
from streams.errors import PipelineError
from streams.kafka import KafkaOutbox, Reader, read_all
from streams.metrics_server import open_metrics
from streams.pipeline import Pipeline
from streams.state_folder import state_of
from streams.topic_specs import selection_topic

LOG = logging.getLogger("consumers.selector")
STATE = "state"  # the Table's only key
SESSION_S, HEARTBEAT_S = 15.0, 3.0  # as the broker's usual bounds allow; a dead selector's place is free after 15 s
MOST_RECORD_BYTES = 16 * 2**20
LOOK_EVERY_S = 0.5
_SECURITY = {"security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password",
             "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"}  # fmt: skip


def run_selector(pipeline: Pipeline, metrics_address: str | None = None) -> None:
    """Select until SIGTERM or SIGINT.

    Raises:
        MillraceError: whatever ends the process; its exit code is the process's.
    """
    metrics, _ = open_metrics("select", pipeline.name, version("millrace"), metrics_address)
    decisions = KafkaTopic(pipeline.kafka, f"{pipeline.name}.decisions")
    doors = Doors(KafkaTopic(pipeline.kafka, f"{pipeline.name}.scores"), decisions, state_of(pipeline), metrics)
    try:
        asyncio.run(Shell(pipeline, Desk(pipeline, doors)).run(metrics.ready))
    finally:
        decisions.close()


class KafkaTopic:
    """The only partition of a topic, read from anywhere and appended to."""

    def __init__(self, settings: dict[str, str], topic: str) -> None:
        self._settings, self._topic = settings, topic
        self._reader: Reader | None = None
        self._outbox: KafkaOutbox | None = None

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Give what there is from `start` on; what retention has cut is left out."""
        if stop is not None and start >= stop:
            return
        if self._reader is None:
            self._reader = Reader(self._settings)
        start = max(start, self._reader.start_offsets(self._topic, [0])[0])
        for message in read_all(self._settings, self._topic, 0, start):
            if stop is not None and message.offset() >= stop:
                return
            yield message.offset(), message.value() or b""

    def append(self, value: bytes) -> None:
        """Write a record and wait for its acknowledgement."""
        if self._outbox is None:
            self._outbox = KafkaOutbox(self._settings, linger_ms=0)
        self._outbox.produce(self._topic, 0, value)
        self._outbox.flush()

    def close(self) -> None:
        """Let go of the connections."""
        for door in (self._reader, self._outbox):
            if door is not None:
                door.close()


class Shell:
    """The Faust application of one pipeline."""

    def __init__(self, pipeline: Pipeline, desk: Desk) -> None:
        self._desk = desk
        self._failure: BaseException | None = None
        self._is_over = asyncio.Event()
        self._app = app = make_app(pipeline)
        scores, decisions = (
            app.topic(f"{pipeline.name}.{name}", value_type=bytes, value_serializer="raw", partitions=1)
            for name in ("scores", "decisions")
        )
        log = app.topic(selection_topic(pipeline), key_serializer="json", value_serializer="json", partitions=1)
        self._table = app.Table("selection", partitions=1, key_type=None, value_type=None, changelog_topic=log)
        app.agent(scores, name="scores", concurrency=1)(self._scores)
        app.agent(decisions, name="decisions", concurrency=1)(self._decisions)
        app.page("/standings/")(self._page)

    async def run(self, tell_ready: Callable[[], None]) -> None:
        """Start, tell so, wait for a signal or a failure, stop; raises the failure."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._is_over.set)
        self._app.finalize()
        await self._app.start()
        tell_ready()
        watching = loop.create_task(self._watch())
        await self._is_over.wait()
        watching.cancel()
        await self._app.stop()
        if self._failure is not None:
            raise self._failure

    async def _watch(self) -> None:
        """Notice that Faust itself has failed, and tell how everybody stands when nothing comes any more."""
        while not self._app.crashed:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._desk.is_open:
                self._guarded(self._desk.tell)
        self._fail(self._app.crash_reason or RuntimeError("Faust has stopped"))

    async def _scores(self, stream: Any) -> None:
        async for event in stream.events():
            self._guarded(partial(self._take, event.message.offset, event.value))

    async def _decisions(self, stream: Any) -> None:
        async for _ in stream.events():
            self._guarded(self._hear)

    @property
    def _page(self) -> Any:
        """Show who reigns and how each challenger stands, as of now; nothing before the first record."""

        async def standings(view: Any, _request: Any) -> Any:  # Faust makes it a method of a class of its own
            found = standings_of(self._desk.selection) if self._desk.is_open else None
            return view.bytes(msgspec.json.encode(found), content_type="application/json")

        return standings

    def _take(self, offset: int, value: bytes) -> None:
        self._open()
        saved = self._desk.take(offset, value)
        if saved is not None:
            self._table[STATE] = saved

    def _hear(self) -> None:
        self._open()
        self._desk.hear()

    def _open(self) -> None:
        """Begin with the Table's value: the first record comes after recovery."""
        if not self._desk.is_open:
            self._desk.open(self._table.get(STATE))

    def _guarded(self, handle: Callable[[], None]) -> None:
        """Handle a record; a failure must not leave, or Faust would count the record as done and go on."""
        if self._failure is not None:
            return
        try:
            handle()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process ends with it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        LOG.debug("the selector ends", exc_info=error)
        self._failure = self._failure or error
        self._is_over.set()


def make_app(pipeline: Pipeline) -> Any:
    """Make the application; nothing is started, and nothing listens unless `[select] web` says where."""
    folder = pipeline.state / "run" / "faust"  # nothing is kept there, yet Faust wants one
    folder.mkdir(parents=True, exist_ok=True)
    web = None if pipeline.select is None else pipeline.select.web
    host, port = web or ("127.0.0.1", 0)
    brokers = ";".join(f"kafka://{one.strip()}" for one in pipeline.kafka["bootstrap.servers"].split(","))
    return faust.App(
        f"{pipeline.name}.select",
        broker=brokers,
        broker_credentials=credentials(pipeline.kafka),
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MOST_RECORD_BYTES,
        producer_max_request_size=MOST_RECORD_BYTES,
        store="memory://",
        topic_allow_declare=False,  # they are made with all others, and the leader's is not needed
        topic_disable_leader=True,
        web_enabled=web is not None,
        web_bind=host,  # Faust's own default is all interfaces
        web_host=host,
        web_port=port,
        key_serializer="json",
        value_serializer="json",
        autodiscover=False,
        datadir=folder,
    )


def credentials(settings: dict[str, str]) -> Any:
    """Give Faust what `[kafka]` says of encryption and passwords; None: neither.

    Raises:
        PipelineError: it says something that only librdkafka knows.
    """
    protocol = settings.get("security.protocol", "plaintext").lower()
    foreign = [key for key in settings if key.startswith(("ssl.", "sasl.", "security.")) and key not in _SECURITY]
    if foreign:
        raise PipelineError([f"[kafka] {key}: the selector cannot use it; remove [select] or this" for key in foreign])
    context = None
    if protocol.endswith("ssl"):
        context = ssl.create_default_context(cafile=settings.get("ssl.ca.location"))
        if "ssl.certificate.location" in settings:
            context.load_cert_chain(
                settings["ssl.certificate.location"],
                settings.get("ssl.key.location"),
                settings.get("ssl.key.password"),
            )
    if protocol.startswith("sasl"):
        mechanism = settings.get("sasl.mechanism", settings.get("sasl.mechanisms", "PLAIN"))
        return faust.SASLCredentials(
            username=settings.get("sasl.username"),
            password=settings.get("sasl.password"),
            ssl_context=context,
            mechanism=mechanism,
        )
    return None if context is None else faust.SSLCredentials(context)
