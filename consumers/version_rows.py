"""Version rows: a trained version is announced among the examples, so that all who read them know it at the same row.

A row of kind VERSION in P.examples has the candidate as its id and the version's record, JSON, as its key. It stands
outside the numbering (PROTOCOL 6): announced twice it counts once, for only a larger (lineage, examples) does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.version import Version, encode_record
from streams import frames
from streams.decoding import texts
from streams.frames import SCHEMA_HEADER, VERSION, FrameSchema
from streams.kafka import Outbox
from streams.tables import Table

ORDER_PLACE = -1  # source and sequence: versions have none


class Announced(NamedTuple):
    """A version row: its place in a batch, its candidate, and the record as it stands there."""

    row: int
    candidate: str
    record: bytes
    time_us: int


def version_row(schema: FrameSchema, version: Version, known_us: int) -> Table:
    """Make the row that announces a version; its time is that up to which its training knew labels."""
    columns = {
        "kind": np.array([VERSION], np.int8),
        "source": np.array([ORDER_PLACE], np.int32),
        "sequence": np.array([ORDER_PLACE], np.int64),
        "time": np.array([known_us], np.int64),
        "id": texts([version.candidate]),
        "key": texts([encode_record(version).decode()]),
    }
    return frames.build(schema, columns, 1)


def announce(outbox: Outbox, pipeline: str, schema: FrameSchema, version: Version, known_us: int) -> None:
    """Write a version's row into P.examples and wait until it is there; `schema` is known on P.control."""
    header = [(SCHEMA_HEADER, schema.fingerprint.encode())]
    outbox.produce(f"{pipeline}.examples", 0, version_row(schema, version, known_us).payload(), None, header)
    outbox.flush()


def announced(rows: Table) -> list[Announced]:
    """Give the version rows of a batch, in order."""
    place_N = np.flatnonzero(rows.numbers("kind") == VERSION)
    if not place_N.size:
        return []
    found = rows.take(place_N).to_arrow()
    ids, keys = (found.column(name).to_pylist() for name in ("id", "key"))
    times = rows.numbers("time")[place_N].tolist()
    return [
        Announced(row, candidate or "", (record or "").encode(), time_us)
        for row, candidate, record, time_us in zip(place_N.tolist(), ids, keys, times, strict=True)
    ]
