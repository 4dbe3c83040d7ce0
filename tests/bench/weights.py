"""How many events a message of an inner topic stands for: event rows of a frame, scored events of a scores record."""

from __future__ import annotations

import msgspec
import numpy as np
from confluent_kafka import Message

from streams import features, frames
from streams.frames import EVENT, FrameSchema
from streams.pipeline import Pipeline
from tests.bench.progress import Weight

BLOCK_EVENTS = 100


class _Scores(msgspec.Struct):
    candidate: str
    blocks: list[object]
    order: str = "number"

    @property
    def events(self) -> float:
        """Events of whole blocks by number; those by label are the same events once more."""
        return float(BLOCK_EVENTS * len(self.blocks)) if self.order == "number" else 0.0


def log_events(pipeline: Pipeline) -> Weight:
    """Weigh frames of P.log."""
    return _event_rows(frames.log_schema(pipeline))


def feature_events(pipeline: Pipeline) -> Weight:
    """Weigh frames of P.features."""
    return _event_rows(frames.features_schema(features.columns(pipeline)))


def scored_events(message: Message) -> float:
    """Weigh a record of P.scores: whole blocks of events whose label was learned."""
    value = message.value()
    return 0.0 if value is None else _SCORES.decode(value).events


def scored_by(candidate: str) -> Weight:
    """Weigh records of P.scores by their events, those of other candidates by 0."""

    def weigh(message: Message) -> float:
        value = message.value()
        scores = None if value is None else _SCORES.decode(value)
        return 0.0 if scores is None or scores.candidate != candidate else scores.events

    return weigh


def scored_in_blocks(events: int, partitions: int) -> int:
    """Give how many of N events leave in blocks for certain: the last block of each partition stays open."""
    return events // BLOCK_EVENTS * BLOCK_EVENTS - partitions * BLOCK_EVENTS


def _event_rows(schema: FrameSchema) -> Weight:
    def weigh(message: Message) -> float:
        value = message.value()
        if value is None:
            return 0.0
        return float(np.count_nonzero(frames.decode(value, schema).numbers("kind") == EVENT))

    return weigh


_SCORES = msgspec.json.Decoder(_Scores)
