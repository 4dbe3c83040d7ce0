"""What programs wrote about the events of the sample: frames of features of ours, JSON of a peer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np
from confluent_kafka import Message

from streams import frames
from streams.frames import EVENT, FrameSchema
from streams.layouts import Text
from tests.bench.kafka import Broker, read
from tests.bench.windows import Answer, is_sampled

COUNT, MEAN = 0, 1  # columns of window.toml


class _Result(msgspec.Struct):
    id: str
    count: int
    mean: float


def in_frames(broker: Broker, topic: str, schema: FrameSchema) -> Iterator[tuple[str, Answer]]:
    """Give the window of each event of the sample from its feature vector."""
    for message in _written(broker, topic):
        table = frames.decode(message.value() or b"", schema)
        ids, keys, vectors_BF = _texts(table.text("id")), _texts(table.text("key")), table.matrix()
        for row in np.flatnonzero(table.numbers("kind") == EVENT).tolist():
            if is_sampled(keys[row]):
                yield ids[row].decode(), Answer(int(vectors_BF[row, COUNT]), float(vectors_BF[row, MEAN]))


def in_json(broker: Broker, topic: str) -> Iterator[tuple[str, Answer]]:
    """Give the window of each event of the sample from its JSON record."""
    decode = msgspec.json.Decoder(_Result).decode
    for message in _written(broker, topic):
        if is_sampled(message.key()):
            result = decode(message.value() or b"")
            yield result.id, Answer(result.count, result.mean)


def _written(broker: Broker, topic: str) -> Iterator[Message]:
    partitions = broker.partitions(topic)
    return read(broker, topic, [0] * partitions, broker.end_offsets(topic, partitions))


def _texts(column: Text) -> list[bytes]:
    offsets, data = column.offsets.tolist(), column.data.tobytes()
    return [data[start:stop] for start, stop in pairwise(offsets)]
