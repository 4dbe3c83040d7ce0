"""How frames become rows: decode by schema, drop repeats, run the clocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from consumers.role import Decoded
from streams.building import read
from streams.control import Control
from streams.errors import FrameError
from streams.frames import SCHEMA_HEADER, Batch, FrameSchema
from streams.records import Records
from streams.snapshots import State
from streams.sources import SourceMemory
from streams.tables import Table


class FrameInlet:
    """The inlet of every role that reads frames."""

    def __init__(self, schema: FrameSchema, control: Control, memory: SourceMemory) -> None:
        self.memory = memory
        self._schema = schema
        self._fingerprint = schema.fingerprint.encode()
        self._control = control

    def decode(self, records: Records) -> Decoded:
        """Join the frames of one poll into one table, so that kernels run once."""
        for i in range(records.offsets.size):
            header = records.header(i, SCHEMA_HEADER) or b""
            if header != self._fingerprint:
                self._refuse(records, i, header.decode(errors="replace"))
        rows, counts = read(self._schema.layout, records)
        return Decoded(rows, np.repeat(records.offsets, counts), np.repeat(records.stamps, counts))

    def _refuse(self, records: Records, i: int, fingerprint: str) -> None:
        where = f"{records.topic} partition {records.partition} offset {records.offsets[i]}"
        if not fingerprint:
            raise FrameError(f"{where}: not a frame (no {SCHEMA_HEADER} header); only Millrace may write to this topic")
        found = self._control.schema(fingerprint)
        theirs, ours = {c.name for c in found.columns}, {c.name for c in self._schema.columns}
        text = f"missing {sorted(ours - theirs)}, unexpected {sorted(theirs - ours)}"
        raise FrameError(f"{where}: written with another feature list ({text}); changing the list is not available yet")

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
