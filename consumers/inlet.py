"""How frames become rows: decode by schema, drop repeats, run the clocks.

Columns are known by their names. Frames that were written under another list of fields or features give the reader's
columns all the same; those that they lack are missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from consumers.role import Decoded, Inlet, Pieces
from streams.building import Located, locate, read
from streams.control import Control
from streams.errors import FrameError
from streams.fitting import fit
from streams.frames import SCHEMA_HEADER, Batch, FrameSchema
from streams.records import Records, RecordsSpan
from streams.snapshots import State
from streams.sources import SourceMemory
from streams.tables import Table, join

Int64s = npt.NDArray[np.int64]


def locate_each(found: Sequence[tuple[Inlet, Records]]) -> list[Pieces]:
    """Find the rows of frames, each partition's by themselves: how a role that reads frames decodes."""
    pieces: list[Pieces] = []
    for inlet, records in found:
        assert isinstance(inlet, FrameInlet)  # noqa: S101 - the role has made it
        pieces.append(inlet.locate(records))
    return pieces


def _decoded(rows: Table, counts: Int64s, records: Records) -> Decoded[Table]:
    """Give rows of which each record has so many."""
    return Decoded(rows, np.repeat(records.offsets, counts), np.repeat(records.stamps, counts))


def _repeated(numbers: Int64s, i: int, times: int) -> Int64s:
    """Give one of some numbers many times, as a view."""
    return np.ndarray(times, np.int64, numbers, i * numbers.itemsize, (0,))


class FrameInlet:
    """The inlet of every role that reads frames."""

    def __init__(self, schema: FrameSchema, control: Control, memory: SourceMemory) -> None:
        self.memory = memory
        self._schema = schema
        self._fingerprint = schema.fingerprint.encode()
        self._control = control

    def decode(self, records: Records) -> Decoded[Table]:
        """Copy the frames of one poll into one table."""
        others = self._headers_of_others(records)
        rows, counts = self._read_each(records, others) if others else read(self._schema.layout, records)
        return _decoded(rows, counts, records)

    def locate(self, records: Records) -> list[Decoded[Located]] | list[Decoded[Table]]:
        """Find the rows of the frames of one poll; they are copied when they are taken, those to be fitted now."""
        if others := self._headers_of_others(records):
            decoded = _decoded(*self._read_each(records, others), records)
            records.release()
            return [decoded]
        found = []
        for i, rows in enumerate(locate(self._schema.layout, records)):
            offsets, stamps = (_repeated(numbers, i, rows.num_rows) for numbers in (records.offsets, records.stamps))
            found.append(Decoded(rows, offsets, stamps))
        return found

    def _headers_of_others(self, records: Records) -> list[bytes]:
        """Give the fingerprint of each frame if some are of another list of columns, else nothing."""
        headers = [records.header(i, SCHEMA_HEADER) or b"" for i in range(records.offsets.size)]
        return [] if all(header == self._fingerprint for header in headers) else headers

    def _read_each(self, records: Records, headers: list[bytes]) -> tuple[Table, Int64s]:
        """Read frames of several lists of columns: what was written before the pipeline file was changed."""
        tables, counts, start = [], [], 0
        for fingerprint, same in itertools.groupby(headers):
            stop = start + len(list(same))
            schema = self._schema
            if fingerprint != self._fingerprint:
                schema = self._schema_of(records, start, fingerprint.decode(errors="replace"))
            table, rows = read(schema.layout, RecordsSpan(records, start, stop))
            tables.append(fit(table, schema, self._schema))
            counts.append(rows)
            start = stop
        return join(tables), np.concatenate(counts)

    def _schema_of(self, records: Records, i: int, fingerprint: str) -> FrameSchema:
        where = f"{records.topic} partition {records.partition} offset {records.offsets[i]}"
        if not fingerprint:
            raise FrameError(f"{where}: not a frame (no {SCHEMA_HEADER} header); only Millrace may write to this topic")
        found = self._control.schema(fingerprint)
        if found.topic != self._schema.topic:
            raise FrameError(
                f"{where}: a frame of {found.topic}, not of {self._schema.topic}; who has written it here?"
            )
        return found

    def bind(self, schema: FrameSchema) -> None:
        """Give all rows the columns of this schema from now on: those of a model that goes on under another list."""
        self._schema, self._fingerprint = schema, schema.fingerprint.encode()

    def admit(self, rows: Table) -> tuple[Batch, npt.NDArray[np.int64] | None]:
        """Drop what was seen; see SourceMemory."""
        return self.memory.admit(rows)

    def mark(self) -> int:
        """The smallest mark over the partition's sources."""
        return self.memory.clock

    def state(self) -> State:
        """The memory per source."""
        return self.memory.state()

    def restore(self, state: State) -> None:
        """Take back the memory per source."""
        self.memory.restore(state)
