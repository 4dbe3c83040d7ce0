"""What one stage of features reads and writes, as a recomputation goes over it.

Where all features are of the events' key there is one: from the log to P.features. In a chain each stage stands between
two topics, and each is audited by itself, from its input as it was written.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.features import columns
from streams.frames import FrameSchema, features_schema, log_schema, stage_schema
from streams.pipeline import Pipeline
from streams.stages import StageSpec, stage_specs, stage_topic


class Hop(NamedTuple):
    """One stage between two topics.

    Attributes:
        spec: the stage.
        input: the frames of the topic that it reads.
        output: the frames of the topic that it writes; of the last stage P.features.
    """

    spec: StageSpec
    input: FrameSchema
    output: FrameSchema

    @property
    def reads(self) -> str:
        """The topic that it reads, without the pipeline's name."""
        return self.spec.reads

    @property
    def writes(self) -> str:
        """The topic that it writes, without the pipeline's name."""
        return "features" if self.spec.is_last else stage_topic(self.spec.number)

    @property
    def counted_by(self) -> str:
        """The column that numbers a source's rows in an output partition: those of P.features have their event's."""
        return "number" if self.spec.is_last else "sequence"

    @property
    def candidate(self) -> str:
        """What tells the stage apart in metrics, as the roles have it."""
        return "" if self.spec.number == 1 else stage_topic(self.spec.number)


def hops(pipeline: Pipeline) -> tuple[Hop, ...]:
    """Give the stages in the order in which rows pass them."""
    named = columns(pipeline)
    made, schema = [], log_schema(pipeline)
    for spec in stage_specs(pipeline):
        output = features_schema(named) if spec.is_last else stage_schema(spec, named)
        made.append(Hop(spec, schema, output))
        schema = output
    return tuple(made)
