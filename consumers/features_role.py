"""The role features: rows of the log in, feature vectors and examples out, in one stage or several."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from consumers.chain_tasks import make_task
from consumers.inlet import FrameInlet, locate_each
from consumers.role import Inlet, OpenPartition, Pieces, Task
from streams import features, frames
from streams.control import Claim, Control
from streams.frames import Column, FrameSchema
from streams.pipeline import Pipeline
from streams.planning import make_plan
from streams.records import Records
from streams.snapshots import State
from streams.sources import SourceMemory
from streams.stage import load_growth_kernels
from streams.stages import StageSpec, stage_specs, stage_topic

LOG = logging.getLogger("consumers.roles")


class FeaturesRole:
    """Rows of the log in, feature vectors and examples out; one stage of several where features have several entities.

    Args:
        pipeline: the pipeline.
        control: resolves sources.
        number: of the stage (streams/stages.py); 1 is the only one, or the first.
    """

    has_state = True
    start = "earliest"
    is_renewable = False
    gathers = 1 / 3  # what ingest sends to all partitions at once does not arrive at once
    ahead_kib = 512
    most_rows = 8_000
    is_full = False
    answers_to: str | None = None

    def __init__(self, pipeline: Pipeline, control: Control, number: int = 1) -> None:
        self._pipeline = pipeline
        self._control = control
        specs = stage_specs(pipeline)
        self._spec = specs[number - 1]
        self.name = self._spec.name
        self.inputs: tuple[str, ...] = (f"{pipeline.name}.{self._spec.reads}",)
        self.writes: Mapping[str, FrameSchema] = _stage_writes(self._spec, features.columns(pipeline))
        self._schema = frames.log_schema(pipeline)
        if number > 1:
            self._schema = frames.stage_schema(specs[number - 2], features.columns(pipeline))
        self.reads: FrameSchema | None = self._schema
        self._told: set[str] = set()
        load_growth_kernels(make_plan(pipeline, number))

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        """One gapless source per input partition."""
        return [Claim(self.name, topic_id, partition, "rows", generation, siblings, is_gapless=True)]

    def inlet(self, topic: str, partition: int, sources: list[int]) -> FrameInlet:
        """The log is written by every raw partition's sources, a topic between stages by every partition's before."""
        has_labels = self._pipeline.labels.is_declared
        memory = SourceMemory(self._control, is_log=self._spec.number == 1, has_labels=has_labels)
        return FrameInlet(self._schema, self._control, memory)

    def decode(self, found: Sequence[tuple[Inlet, Records]]) -> list[Pieces]:
        """Frames stay in their records until their rows are taken."""
        return locate_each(found)

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> Task:
        """Ledger, windows and pending rows of one partition, or what of them belongs to this stage."""
        return make_task(self._pipeline, self._spec.number, partition, sources[0], self._tell)

    def _tell(self, line: str) -> None:
        """Say what a change of the feature list did; once, though every partition comes to it."""
        if line not in self._told:
            self._told.add(line)
            LOG.warning("%s: %s", self.name, line)

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Never: rows that are not there any more would be missing in windows and ledger."""

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        """A partition's marks follow its rows: to the next stage into all partitions."""
        if self._spec.is_last:
            return [("features", partition), ("examples", 0)]
        return [(stage_topic(self._spec.number), to) for to in range(self._pipeline.partitions)]

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Nothing goes by the wall clock."""


def _stage_writes(spec: StageSpec, columns: tuple[Column, ...]) -> dict[str, FrameSchema]:
    if not spec.is_last:
        return {stage_topic(spec.number): frames.stage_schema(spec, columns)}
    return {"features": frames.features_schema(columns), "examples": frames.examples_schema(columns)}
