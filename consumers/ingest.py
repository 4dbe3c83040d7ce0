"""Ingest: raw events and labels in, numbered rows of the log out, dead letters for what cannot be used.

It has no state: a row's source is (raw topic, partition, kind) and its sequence the raw offset, so going back after a
crash repeats rows that every reader drops (PROTOCOL 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from consumers.dead_letters import KEPT_KEY_BYTES, dead_letter
from consumers.inlet_raw import RecordInlet
from consumers.inlet_together import decode_together
from consumers.role import Inlet, OpenPartition, Pieces, Task
from streams import frames
from streams.control import Claim
from streams.decoding import Bad
from streams.frames import BEGINNING, Batch, FrameSchema, Spread
from streams.kafka import Outbox
from streams.metrics import RoleMetrics
from streams.pipeline import Pipeline
from streams.records import Records
from streams.routing import place_rows
from streams.snapshots import State

IDLE_EVERY_US = 1_000_000


class IngestTask:
    """Sends each row of one raw partition to the log partition of its key, or of its id. Stateless."""

    def __init__(self, partitions: int, inlet: RecordInlet, name: Literal["key", "id"] = "key") -> None:
        self._partitions = partitions
        self._inlet = inlet
        self._name = name

    def process(self, batch: Batch) -> list[Spread]:
        """Send rows by key or id: XXH64 of its text modulo the log's partitions; publishers' marks end here."""
        rows = batch.rows
        targets = place_rows(rows, self._name, self._partitions)
        return [Spread("log", self._partitions, targets, rows)]

    def state(self) -> State:
        """Nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""

    def is_sound(self) -> bool:
        """Always."""
        return True

    def measure(self, metrics: RoleMetrics) -> None:
        """Set the account of this assignment."""
        inlet = self._inlet
        states = {"ignored": inlet.ignored, "dead": inlet.dead, "taken": inlet.taken}
        metrics.account(f"records:{inlet.topic}", inlet.partition, inlet.records, states)


class IngestRole:
    """The ingest role of a pipeline.

    Args:
        pipeline: the pipeline.
        outbox: dead letters go here.
        metrics: counts dead letters.
        is_replay: then idle partitions never raise their mark by the clock.
    """

    name = "ingest"
    has_state = False
    start = "earliest"
    is_renewable = False
    gathers = 1.0
    ahead_kib = 1_024  # a raw record takes three times its size in the client
    most_rows = 10_000
    is_full = False
    answers_to: str | None = None
    reads: FrameSchema | None = None

    def __init__(self, pipeline: Pipeline, outbox: Outbox, metrics: RoleMetrics, *, is_replay: bool) -> None:
        self._pipeline = pipeline
        self._outbox = outbox
        self._metrics = metrics
        self._is_replay = is_replay
        self._schema = frames.log_schema(pipeline)
        self.inputs = tuple(dict.fromkeys((pipeline.events.topic, pipeline.labels.topic)))
        self.writes: Mapping[str, FrameSchema] = {"log": self._schema}
        self._next_idle_us = 0

    def _kinds(self, topic: str) -> list[str]:
        events, labels = self._pipeline.events, self._pipeline.labels
        return ["events"] * (events.topic == topic) + ["labels"] * (labels.is_declared and labels.topic == topic)

    def claims(self, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> list[Claim]:
        """One source for events and one for labels, as far as the topic carries them."""
        kinds = self._kinds(topic)
        return [Claim("ingest", topic_id, partition, kind, generation, siblings, is_gapless=False) for kind in kinds]

    def inlet(self, topic: str, partition: int, sources: list[int]) -> RecordInlet:
        """A decoder of JSON records."""
        numbers = dict(zip(self._kinds(topic), sources, strict=True))
        return RecordInlet(self._pipeline, topic, partition, numbers, self._schema, self._bury)

    def decode(self, found: Sequence[tuple[Inlet, Records]]) -> list[Pieces]:
        """All partitions of a topic at once, as far as their records are plain."""
        made = decode_together([(inlet, records) for inlet, records in found if isinstance(inlet, RecordInlet)])
        for _, records in found:
            records.release()
        return [[decoded] for decoded in made]

    def task(self, inlet: Inlet, partition: int, sources: list[int], generation: int) -> IngestTask:
        """A splitter by key, or by id where labels have no key."""
        assert isinstance(inlet, RecordInlet)  # noqa: S101 - made by `inlet` above
        return IngestTask(self._pipeline.partitions, inlet, "id" if self._pipeline.labels.match == "id" else "key")

    def _bury(self, records: Records, i: int, bad: Bad) -> None:
        key = (records.key(i) or b"")[:KEPT_KEY_BYTES]
        self._outbox.produce(f"{self._pipeline.name}.deadletters", 0, dead_letter(records, i, bad), key or None)
        self._metrics.dead_letter(bad.error)

    def renew(self, task: Task, given_up: State, reason: str) -> None:
        """Never: it has no state."""

    def mark_targets(self, partition: int) -> list[tuple[str, int]]:
        """Every log partition hears how far every raw partition is."""
        return [("log", out) for out in range(self._pipeline.partitions)]

    def tick(self, now_us: int, partitions: Sequence[OpenPartition]) -> None:
        """Raise the marks of idle partitions by the clock, so that labels that never come can be settled.

        Live only. The mark is the partition's largest time + (now - that record's Kafka timestamp) - `idle`, so that
        history published today does not jump to the present; an unheard partition takes the smallest of its topic,
        those included that other workers have, as of their last commits.
        """
        if self._is_replay or now_us < self._next_idle_us:
            return
        self._next_idle_us = now_us + IDLE_EVERY_US
        for topic in self.inputs:
            ours = [(p, p.inlet) for p in partitions if p.topic == topic and isinstance(p.inlet, RecordInlet)]
            known = [(inlet.largest_time, inlet.largest_stamp) for _, inlet in ours]
            if any(time == BEGINNING for time, _ in known):
                known += [(heard.time_us, heard.stamp_us) for heard in ours[0][0].heard()]
            least = min((self._idle_mark(*pair, now_us) for pair in known if pair[0] > BEGINNING), default=BEGINNING)
            for partition, inlet in ours:
                is_heard = inlet.largest_time > BEGINNING
                mark = self._idle_mark(inlet.largest_time, inlet.largest_stamp, now_us) if is_heard else least
                if mark > inlet.mark() and partition.is_at_end():  # a busy partition is not asked about
                    inlet.raise_mark(mark)

    def _idle_mark(self, time_us: int, stamp_us: int, now_us: int) -> int:
        return time_us + max(0, now_us - stamp_us) - int(self._pipeline.run.idle_s * 1e6)
