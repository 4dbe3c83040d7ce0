"""What a report reads of the topics: losses of every candidate, what was served, and the texts of categories.

Losses (P.scores) and answers (P.predictions) were written when the events passed, so they are what the models really
said. Topics are read once, in order, and only what belongs to the sampled events is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.score_records import Block, ScoresRecord
from models.block_arrays import BLOCK_EVENTS
from serving.feed import KafkaFeed, bounds
from serving.report_data import Events, Period, in_share
from serving.tail import rows
from streams.computed_steps import category_number
from streams.errors import PipelineError
from streams.kafka import Topics
from streams.pipeline import Pipeline, Task
from streams.records import value

NAMED_ROWS = 20_000  # of P.log from its beginning, for the texts of categories
CONNECT_S = 5.0

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Names = dict[str, dict[float, str]]
"""Texts of a category column by their codes."""


class Topic(Protocol):
    """Where records are read; KafkaTopics is one."""

    def values(self, what: str) -> Iterator[bytes]:
        """Yield the values of all records of one of the pipeline's topics, each partition in order."""

    def logged(self) -> Iterator[dict[str, Any]]:
        """Yield the first rows of P.log, as `millrace tail` shows them."""


class KafkaTopics:
    """The topics of a pipeline on its brokers.

    Raises:
        PipelineError: the file names no brokers.
        UnavailableError: none of them answers.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        servers = pipeline.kafka.get("bootstrap.servers")
        if not servers:
            raise PipelineError(["the file names no brokers and none is running"])
        topics = Topics(pipeline.kafka)
        try:
            if not topics.brokers(CONNECT_S):
                raise PipelineError([f"no broker answers at {servers}"])
        finally:
            topics.close()

    def values(self, what: str) -> Iterator[bytes]:
        """See `Topic.values`.

        Raises:
            TopicError: there is no such topic.
        """
        topic, topics = f"{self._pipeline.name}.{what}", Topics(self._pipeline.kafka)
        try:
            partitions = list(range(topics.partitions(topic)))
        finally:
            topics.close()
        for partition, (start, end) in bounds(self._pipeline.kafka, topic, partitions).items():
            for records in KafkaFeed(self._pipeline.kafka, topic, partition, start).read(end):
                for i in range(records.offsets.size):
                    found = value(records, i)
                    if found is not None:
                        yield found

    def logged(self) -> Iterator[dict[str, Any]]:
        """See `Topic.logged`."""
        for row in islice(rows(self._pipeline, "log", is_from_start=True, is_following=False), NAMED_ROWS):
            if isinstance(row, dict):
                yield row


class Losses(NamedTuple):
    """The losses of one candidate: of B blocks in all, and of those M sampled events that have one.

    `event_M` are places among the sampled events. `predict_us` is what its records last said a prediction took (p99).
    """

    time_us_B: Int64s
    count_B: Int64s
    sum_B: Floats
    event_M: Int64s
    loss_M: Floats
    predict_us: float

    @property
    def events(self) -> int:
        """Give how many losses there are in all blocks."""
        return int(self.count_B.sum())

    @property
    def mean(self) -> float:
        """Give the mean of all losses."""
        return float(self.sum_B.sum() / self.events) if self.events else float("nan")


class Answers(NamedTuple):
    """What was served to M of the sampled events; the S numbers of an answer are as a learner gives them.

    `version_M` are model and version, as `logistic@0.1200`.
    """

    event_M: Int64s
    said_MS: Floats
    prediction_M: Floats
    latency_ms_M: Floats
    version_M: npt.NDArray[np.object_]


class Answered(msgspec.Struct):
    """What is read of an answer (serving/answers.py)."""

    id: str
    number: int
    prediction: float | int | str
    model: str
    version: str
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    score: float | None = None
    distance: float | None = None
    latency_ms: float | None = None


def read_losses(topic: Topic, events: Events, share: float, period: Period) -> dict[str, Losses]:
    """Read P.scores: what each candidate lost, in blocks whose middle lies in the period."""
    blocks: dict[str, dict[tuple[int, int], _Kept]] = {}
    predict_us: dict[str, float] = {}
    decoder = msgspec.json.Decoder(ScoresRecord)
    for found in topic.values("scores"):
        record = decoder.decode(found)
        if record.order != "number":
            continue  # the same losses once more, in the order of labels
        kept = blocks.setdefault(record.candidate, {})
        predict_us[record.candidate] = record.predict_p99_us
        for block in record.blocks:
            middle_us = (block.first_time_us + block.last_time_us) // 2
            if period.has(middle_us):
                kept[block.source, block.block] = _kept(block, middle_us, share)  # after a crash one comes again
    places = _Places(events)
    return {name: _losses(list(kept.values()), places, predict_us[name]) for name, kept in blocks.items() if kept}


def read_answers(topic: Topic, events: Events, task: Task) -> Answers:
    """Read P.predictions: what was served to the sampled events, of several answers the first."""
    place = {key: at for at, key in enumerate(zip(events.id_N.tolist(), events.number_N.tolist(), strict=True))}
    decoder = msgspec.json.Decoder(Answered)
    found: dict[int, Answered] = {}
    for text in topic.values("predictions"):
        answer = decoder.decode(text)
        at = place.get((answer.id, answer.number))
        if at is not None:
            found.setdefault(at, answer)
    event_M = np.array(sorted(found), np.int64)
    said = [found[at] for at in event_M.tolist()]
    return Answers(
        event_M,
        np.array([_numbers(one, task) for one in said], np.float64).reshape(len(said), -1),
        np.array([_prediction(one, task) for one in said], np.float64),
        np.array([np.nan if one.latency_ms is None else one.latency_ms for one in said], np.float64),
        np.array([f"{one.model}@{one.version}" for one in said], np.object_),
    )


def read_names(topic: Topic, pipeline: Pipeline) -> Names:
    """Read the texts of categories from the first rows of P.log, by column; a rare one may have none there."""
    fields = [field.name for field in pipeline.events.fields if field.kind == "category"]
    texts: dict[str, set[str]] = {name: set() for name in fields}
    for row in topic.logged() if fields else ():
        for name in fields:
            text = row.get(f"field.{name}")
            if isinstance(text, str):
                texts[name].add(text)
    return {name: {category_number(text): text for text in sorted(found)} for name, found in texts.items()}


class _Kept(NamedTuple):
    """Of a block what is kept: its sums, and the losses of sampled events by their numbers."""

    source: int
    time_us: int
    losses: int
    total: float
    number_M: Int64s
    loss_M: npt.NDArray[np.float32]


def _kept(block: Block, middle_us: int, share: float) -> _Kept:
    loss_N = block.values()
    number_N = block.block * BLOCK_EVENTS + np.arange(loss_N.size, dtype=np.int64)
    has_loss = np.isfinite(loss_N)
    taken = has_loss & in_share(np.full(loss_N.size, block.source, np.int64), number_N, share)
    total = float(loss_N[has_loss].astype(np.float64).sum())
    return _Kept(block.source, middle_us, int(has_loss.sum()), total, number_N[taken], loss_N[taken])


class _Places:
    """Finds sampled events by (source, number)."""

    def __init__(self, events: Events) -> None:
        self._order = np.lexsort((events.number_N, events.source_N))
        self._sources = events.source_N[self._order]
        self._numbers = events.number_N[self._order]

    def of(self, source: int, number_M: Int64s) -> Int64s:
        """Give the places of a source's numbers, -1 for one that is not there."""
        start, stop = np.searchsorted(self._sources, [source, source + 1])
        mine = self._numbers[start:stop]
        if not mine.size:
            return np.full(number_M.size, -1, np.int64)
        at = np.minimum(np.searchsorted(mine, number_M), mine.size - 1)
        return np.where(mine[at] == number_M, self._order[start:stop][at], -1)


def _losses(kept: list[_Kept], places: _Places, predict_us: float) -> Losses:
    event_M = np.concatenate([places.of(one.source, one.number_M) for one in kept])
    loss_M = np.concatenate([one.loss_M for one in kept]).astype(np.float64)
    is_known = event_M >= 0
    return Losses(
        np.array([one.time_us for one in kept], np.int64),
        np.array([one.losses for one in kept], np.int64),
        np.array([one.total for one in kept], np.float64),
        event_M[is_known],
        loss_M[is_known],
        predict_us,
    )


def _numbers(answer: Answered, task: Task) -> list[float]:
    if task.classes:
        said = answer.probabilities or {}
        return [said.get(name, np.nan) for name in task.classes]
    one = {"anomaly": answer.score, "clustering": answer.distance, "regression": answer.prediction}
    found = one.get(task.kind, answer.probability)
    return [float(found) if isinstance(found, int | float) else np.nan]


def _prediction(answer: Answered, task: Task) -> float:
    if not isinstance(answer.prediction, str):
        return float(answer.prediction)
    return float(task.classes.index(answer.prediction)) if answer.prediction in task.classes else np.nan
