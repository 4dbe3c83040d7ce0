"""What leaves a stage: feature rows and examples from the last, rows for the next stage's partitions from any other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.features import columns
from streams.frames import EVENT, LABEL, Rows, examples_schema, features_schema, stage_schema
from streams.inputs import Input
from streams.outputs import ROWS, Room
from streams.pipeline import Pipeline
from streams.plan import FeaturePlan
from streams.routing import NOWHERE, part, place_by_entity, place_by_key
from streams.stages import stage_topic
from streams.tables import Overlay, Table

Int64s = npt.NDArray[np.int64]


class ExamplesDelivery:
    """Rows for P.features and P.examples, each numbered.

    Args:
        pipeline: the pipeline.
        partition: of P.features.
        source: numbers the rows.
        examples_partition: of P.examples.
    """

    def __init__(self, pipeline: Pipeline, partition: int, source: int, examples_partition: int) -> None:
        self._partition, self._source, self._examples_partition = partition, source, examples_partition
        self._features = features_schema(columns(pipeline)).layout
        self.layout = examples_schema(columns(pipeline)).layout
        self._places = np.array([self.layout.places[name] for name in self._features.names], np.int64)
        self.sequences = np.zeros(2, np.int64)  # the next of P.features and of P.examples

    def send(self, room: Room, _: Input) -> list[Rows]:
        """Give the rows that a kernel has put out."""
        output = room.output
        count = int(output.sizes[ROWS])
        if not count:
            return []
        next_feature, next_example = self.sequences.tolist()
        examples = room.table(self._source)
        features, events = room.features(self._features, self._places, examples, next_feature, next_example)
        self.sequences[:] = next_feature + events.size, next_example + count
        cause = output.cause[:count]
        made = [Rows("examples", self._examples_partition, examples, np.arange(count), cause)]
        if events.size:
            made.insert(0, Rows("features", self._partition, features, events, cause[events]))
        return made


class StageDelivery:
    """Rows for the next stage, to the partition of its entity.

    Args:
        pipeline: the pipeline.
        plan: of this stage.
        source: numbers the rows, in each partition by themselves.
    """

    def __init__(self, pipeline: Pipeline, plan: FeaturePlan, source: int) -> None:
        self._spec = plan.stage
        self._source, self._partitions = source, pipeline.partitions
        self._topic = stage_topic(plan.stage.number)
        self.layout = stage_schema(plan.stage, plan.columns).layout
        self._carried: dict[str, int] = {}  # column → place among the fields; later stages pass these columns on
        if plan.stage.number == 1:
            places = {field.name: place for place, field in enumerate(plan.fields)}
            self._carried = {f"field.{field.name}": places[field.name] for field in plan.stage.carried}
        self.sequences = np.zeros(pipeline.partitions, np.int64)  # the next of each partition

    def send(self, room: Room, rows: Input) -> list[Rows]:
        """Give the rows that the first stage's kernel has put out for `rows`."""
        output = room.output
        count = int(output.sizes[ROWS])
        cause, is_event = output.cause[:count], output.kind[:count] == EVENT
        for place, number in enumerate(self._spec.entities):
            room.column(f"entity.{number}")[:count] = output.others[:count, place]
        for name, place in self._carried.items():
            room.column(name)[:count] = np.where(is_event, rows.values_KB[place, cause], np.nan)
        table = room.table(self._source)
        parts = part(self._targets(table), self.sequences, room.column("sequence"))
        return [Rows(self._topic, to, table, index, cause[index]) for to, index in parts]

    def pass_on(self, rows: Table, vectors_BF: npt.NDArray[np.float64]) -> list[Rows]:
        """Give the event and label rows of a middle stage, with these vectors."""
        targets = self._targets(rows)
        targets[rows.numbers("kind") > LABEL] = NOWHERE
        sequence, source = np.zeros(rows.num_rows, np.int64), np.full(rows.num_rows, self._source, np.int32)
        parts = part(targets, self.sequences, sequence)
        table = Overlay(self.layout, rows, {"source": source, "sequence": sequence, "vector": vectors_BF})
        return [Rows(self._topic, to, table, index, index) for to, index in parts]

    def _targets(self, rows: Table) -> Int64s:
        following = self._spec.number + 1
        if following not in self._spec.entities:
            return place_by_key(rows.text("key"), self._partitions)
        return place_by_entity(rows.numbers(f"entity.{following}"), rows.text("key"), self._partitions)
