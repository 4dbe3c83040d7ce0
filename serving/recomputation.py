"""What one stage of features puts out for one partition, computed again by the code of the stream itself.

A stage is a pure function of its partition's rows, so its inlet and task over the same records give the same rows, with
the same numbers, whatever batches the stream took them in. Backfill writes them down, the audit compares.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from consumers.chain_tasks import make_task
from consumers.inlet import FrameInlet
from serving.hop import Hop, hops
from streams.control import Control
from streams.frames import MARK, Batch, Rows, build
from streams.pipeline import Pipeline
from streams.records import Records
from streams.sources import SourceMemory
from streams.tables import Table

NO_SOURCE = -1  # what is computed here is numbered for nobody to read


class Recomputation:
    """The inlet and task of one stage over one partition, from an empty state.

    Args:
        pipeline: the pipeline.
        partition: of the topic that the stage reads.
        control: resolves sources.
        hop: the stage; the first, which is the only one where there is no chain, if left out.

    Example:
        >>> again = Recomputation(pipeline, partition=0, control=control)
        >>> outputs = again.take(records)
    """

    def __init__(self, pipeline: Pipeline, partition: int, control: Control, hop: Hop | None = None) -> None:
        self._hop = hop or hops(pipeline)[0]
        number = self._hop.spec.number
        memory = SourceMemory(control, is_log=number == 1, has_labels=pipeline.labels.is_declared)
        memory.is_from_start = False  # what is missing between stages is counted by the audit of the stage before
        self._inlet = FrameInlet(self._hop.input, control, memory)
        self._task = make_task(pipeline, number, partition, NO_SOURCE)

    def take(self, records: Records) -> list[Rows]:
        """Take the next records and give what they cause, as the role would put it out."""
        batch, _ = self._inlet.admit(self._inlet.decode(records).rows)
        return self._task.process(batch)

    def written(self, records: Records) -> Iterator[tuple[int, Table]]:
        """Take the next records and give only what is compared, each part with the partition it goes to."""
        for output in self.take(records):
            if output.topic == self._hop.writes:
                yield output.partition, output.table.take(output.picked)

    def settle(self, clock_us: int) -> list[Rows]:
        """Let the clocks stand at `clock_us`: what waits for a label until before then leaves as missing."""
        clock = np.array([clock_us])
        return self._task.process(Batch(build(self._hop.input, {"kind": np.array([MARK], np.int8)}, 1), clock, clock))
