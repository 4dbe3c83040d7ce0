"""The features of one partition of the log, computed again by the code of the stream itself.

The features role is a pure function of its partition's rows, so its inlet and task over the same records give the same
rows, with the same numbers, whatever batches the stream took them in. Backfill writes them down, the audit compares.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from consumers.featurize import FeatureTask
from consumers.inlet import FrameInlet
from streams.control import Control
from streams.frames import MARK, Batch, Rows, build, log_schema
from streams.pipeline import Pipeline
from streams.records import Records
from streams.sources import SourceMemory
from streams.tables import Table

NO_SOURCE = -1  # what is computed here is numbered for nobody to read


class Recomputation:
    """The inlet and task of the features role over one partition, from an empty state.

    Example:
        >>> again = Recomputation(pipeline, partition=0, control=control)
        >>> outputs = again.take(records)
    """

    def __init__(self, pipeline: Pipeline, partition: int, control: Control) -> None:
        self._schema = log_schema(pipeline)
        self._inlet = FrameInlet(self._schema, control, SourceMemory(control, is_log=True))
        self._task = FeatureTask(pipeline, partition, NO_SOURCE)

    def take(self, records: Records) -> list[Rows]:
        """Take the next records of the log and give what they cause, as the role would put it out."""
        batch, _ = self._inlet.admit(self._inlet.decode(records).rows)
        return self._task.process(batch)

    def vectors(self, records: Records) -> Iterator[Table]:
        """Take the next records and give only their rows of P.features."""
        for output in self.take(records):
            if output.topic == "features":
                yield output.table.take(output.picked)

    def settle(self, clock_us: int) -> list[Rows]:
        """Let the clocks stand at `clock_us`: what waits for a label until before then leaves as missing."""
        clock = np.array([clock_us])
        return self._task.process(Batch(build(self._schema, {"kind": np.array([MARK], np.int8)}, 1), clock, clock))
