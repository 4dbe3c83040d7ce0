"""What roles have in common that read P.examples and write no numbered rows: learn and train."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.inlet import FrameInlet, locate_each
from consumers.role import Inlet, Pieces
from streams import features, frames
from streams.control import Claim, Control
from streams.frames import FrameSchema
from streams.pipeline import Pipeline
from streams.records import Records
from streams.sources import SourceMemory
from streams.state_folder import state_of


class ExamplesRole:
    """One partition of examples in.

    Args:
        pipeline: the pipeline.
        control: resolves sources.
    """

    has_state = True
    start = "earliest"
    is_renewable = True
    gathers = 3.0  # nobody waits for a score, or for an archived row
    answers_to: str | None = None

    def __init__(self, pipeline: Pipeline, control: Control) -> None:
        self._pipeline, self._control = pipeline, control
        self._columns = features.columns(pipeline)
        self._schema = frames.examples_schema(self._columns)
        self._state = state_of(pipeline)
        self.inputs: tuple[str, ...] = (f"{pipeline.name}.examples",)
        self.reads: FrameSchema | None = self._schema

    @property
    def is_full(self) -> bool:
        """Never: what it reads it can take."""
        return False

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        """None: scores are told apart by their blocks, and version rows have no source."""
        return []

    def inlet(self, topic: str, partition: int, sources: list[int]) -> FrameInlet:
        """Examples are written by every partition of features."""
        return FrameInlet(self._schema, self._control, SourceMemory(self._control))

    def decode(self, found: Sequence[tuple[Inlet, Records]]) -> list[Pieces]:
        """Frames stay in their records until their rows are taken."""
        return locate_each(found)

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        """None: scores are JSON records, and a version row has no mark."""
        return []
