"""A version's record: what is known of a model that was published, and its name.

The record travels on P.control and lies beside the model's blob as JSON, so that a version can be read about, and taken
elsewhere, without Kafka.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from models.training_job import Figures, Training
from streams.errors import ModelError
from streams.frames import Column
from streams.pipeline import Task

FORMAT = 2
ORDER = re.compile(r"(\d{1,6})\.(\d{1,12})")  # of a version, as people write it: lineage.examples


class Costs(msgspec.Struct, frozen=True):
    """What a candidate cost when it was published; None before it was measured."""

    predict_us: float | None = None  # CPU time of one row
    predict_p99_us: float | None = None
    learn_us: float | None = None
    size_bytes: int = 0


class Version(msgspec.Struct, frozen=True):
    """The record of a version, published as JSON under the key `version/<candidate>`.

    `blob` is the file's path below the state; `columns` are those of the matrices the model was made for. `figures` are
    those at publication, since the start and `rolling`; `parent` is the number of the version published before, empty
    for the first; `libraries` are those that made it, by release; `training` is known of what was trained in a batch.
    """

    candidate: str
    lineage: int
    examples: int
    kind: str
    params: Mapping[str, Any]
    columns: tuple[Column, ...]
    blob: str
    digest: str
    created_us: int
    format: int = FORMAT
    task: Task = Task()
    parent: str = ""
    figures: Figures = {}
    rolling: Figures = {}
    costs: Costs = Costs()
    libraries: dict[str, str] = {}
    training: Training | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Give what decides which of two versions is newer: the larger."""
        return self.lineage, self.examples

    @property
    def number(self) -> str:
        """Give the order as people write it: lineage.examples."""
        return f"{self.lineage}.{self.examples}"

    @property
    def name(self) -> str:
        """Give the version as people write it: candidate@lineage.examples."""
        return f"{self.candidate}@{self.number}"

    @property
    def schema(self) -> str:
        """Give a fingerprint of the columns and the task: 16 hex digits."""
        told = msgspec.json.encode((self.columns, self.task))
        return hashlib.blake2b(told, digest_size=8).hexdigest()


class About(msgspec.Struct, frozen=True):
    """What a candidate says of itself when it is published."""

    figures: Figures = {}
    rolling: Figures = {}
    costs: Costs = Costs()
    parent: str = ""


def encode_record(version: Version) -> bytes:
    """Give a record as P.control carries it."""
    return msgspec.json.encode(version)


def decode_record(value: bytes) -> Version:
    """Read a record from P.control, or from beside its blob.

    Raises:
        ModelError: when it is not one.
    """
    try:
        return msgspec.json.decode(value, type=Version)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"a version record cannot be read: {error}; {len(value)} bytes found") from error
