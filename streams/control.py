"""P.control: claims of source numbers, schemas of frames, and newest versions of models.

One compacted partition, read to its end whenever something unknown turns up. A source's number is the offset of the
earliest claim of its identity, so two workers that claim the same source at once agree without talking (PROTOCOL 3).
Claims and schemas are acknowledged before the first frame that uses them.
"""

from __future__ import annotations

import base64
import threading
import uuid
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from streams.advice import rebuild_of
from streams.errors import FrameError
from streams.frames import Column, FrameSchema
from streams.layouts import Layout


class Claim(msgspec.Struct, frozen=True):
    """Who writes under a source number: a writer stream, for one input partition of one topic, in one generation.

    `kind` tells a raw topic's sources apart (`events`, `labels`); a stage's only source is `rows`. `siblings` is the
    partition count of the input topic: a reader has heard of all sources when it has heard of that many. It is no part
    of the identity: a raw topic that is given more partitions keeps the sources it has.
    """

    stream: str
    topic_id: str
    partition: int
    kind: str
    generation: int
    siblings: int
    is_gapless: bool

    @property
    def identity(self) -> tuple[str, str, int, str, int]:
        """What a source number stands for."""
        return self.stream, self.topic_id, self.partition, self.kind, self.generation


class ControlLog(Protocol):
    """What P.control needs from Kafka; the tests have one in memory."""

    def append(self, key: str, value: bytes) -> None:
        """Write a record and return once it is acknowledged."""

    def read_new(self) -> list[tuple[int, str, bytes | None]]:
        """Give all records not given before, up to the end as it is now: (offset, key, value)."""


class Control:
    """The fold over P.control that every role keeps in memory (a few KB). Threads may share it."""

    def __init__(self, log: ControlLog) -> None:
        self._log = log
        self._turn = threading.RLock()  # one reads or writes the log at a time
        self._numbers: dict[tuple[str, str, int, str, int], int] = {}
        self._claims: dict[int, Claim] = {}
        self._schemas: dict[str, FrameSchema] = {}
        self.versions: dict[str, bytes] = {}  # by candidate, the record of the largest (lineage, examples)
        self.aliases: dict[int, int] = {}  # alias → the source that had numbered events before (event_numbers.py)

    def refresh(self) -> None:
        """Read what is new. Called at start, when something unknown turns up, and by serve about once a second."""
        with self._turn:
            for offset, key, value in self._log.read_new():
                if value is not None:
                    self._take(offset, key, value)

    def _take(self, offset: int, key: str, value: bytes) -> None:
        kind, _, name = key.partition("/")
        if kind == "claim":
            claim = msgspec.json.decode(value, type=Claim)
            self._claims[offset] = claim
            self._numbers.setdefault(claim.identity, offset)
        elif kind == "schema":
            self._schemas[name] = _read_schema(name, value)
        elif kind == "version" and not _is_older(value, self.versions.get(name, b"")):
            self.versions[name] = value
        elif kind == "alias":
            self.aliases[int(name)] = int(value)

    def claim(self, claim: Claim) -> int:
        """Give the source number of `claim`, claiming it first if nobody has."""
        with self._turn:
            self.refresh()
            if claim.identity not in self._numbers:
                self._log.append(f"claim/{uuid.uuid4()}", msgspec.json.encode(claim))
                self.refresh()
        return self._numbers[claim.identity]

    def predecessors(self, claim: Claim) -> set[str]:
        """Give the UUIDs of other topics that were read in this one's place: its name was used before."""
        place = (claim.stream, claim.partition, claim.kind)
        known = {one.topic_id for one in self._claims.values() if (one.stream, one.partition, one.kind) == place}
        return known - {claim.topic_id}

    def generations(self, stream: str) -> set[int]:
        """Give the generations in which a writer stream has ever claimed a source."""
        return {claim.generation for claim in self._claims.values() if claim.stream == stream}

    def source(self, number: int) -> Claim:
        """Resolve a source number met in a frame.

        Raises:
            FrameError: when P.control, read to its end, does not know it.
        """
        if number not in self._claims:
            self.refresh()
        if number not in self._claims:
            message = f"source {number} is not claimed on the control topic; was the topic deleted?"
            raise FrameError(f"{message} run `{rebuild_of()}`")
        return self._claims[number]

    def name_alias(self, alias: int, source: int) -> None:
        """Make an alias known for ever; before the first row that bears it, and before claims of who writes that."""
        with self._turn:
            self.refresh()
            if self.aliases.get(alias) != source:
                self._log.append(f"alias/{alias}", str(source).encode())
                self.refresh()

    def announce(self, schema: FrameSchema) -> None:
        """Make a schema known before its first frame is written."""
        with self._turn:
            self.refresh()
            if schema.fingerprint not in self._schemas:
                self._log.append(f"schema/{schema.fingerprint}", _write_schema(schema))
                self.refresh()

    def schema(self, fingerprint: str) -> FrameSchema:
        """Resolve a frame's schema header.

        Raises:
            FrameError: when P.control, read to its end, does not know it.
        """
        if fingerprint not in self._schemas:
            self.refresh()
        if fingerprint not in self._schemas:
            message = f"schema {fingerprint} is not on the control topic; was the topic deleted?"
            raise FrameError(f"{message} run `{rebuild_of()}`")
        return self._schemas[fingerprint]

    def publish_version(self, candidate: str, record: bytes) -> None:
        """Make a model's newest version known (its blob is already on disk)."""
        with self._turn:
            self._log.append(f"version/{candidate}", record)
            if not _is_older(record, self.versions.get(candidate, b"")):
                self.versions[candidate] = record  # who publishes does not read the log between two versions


class _Order(msgspec.Struct):
    """What decides which of two versions is newer (models/version.py)."""

    lineage: int
    examples: int


def _is_older(record: bytes, known: bytes) -> bool:
    """Whether a version is older than the one that is known; what cannot be read is for those to judge who use it."""
    try:
        new, old = (msgspec.json.decode(one, type=_Order) for one in (record, known))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return (new.lineage, new.examples) < (old.lineage, old.examples)


def _write_schema(schema: FrameSchema) -> bytes:
    arrow = base64.b64encode(schema.arrow.serialize().to_pybytes()).decode()
    return msgspec.json.encode({**schema.describe(), "arrow": arrow})


def _read_schema(fingerprint: str, value: bytes) -> FrameSchema:
    record: dict[str, Any] = msgspec.json.decode(value)
    arrow = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record["arrow"])))
    columns = tuple(Column(name, kind == "category") for name, kind in record["columns"])
    return FrameSchema(record["topic"], arrow, columns, fingerprint, Layout(arrow))
