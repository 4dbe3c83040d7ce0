"""One input partition inside a worker: its intake, inlet, task, sources and snapshots, opened and saved together."""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

import msgspec

from consumers.opening import Input, Start, decide_start
from consumers.role import Heard, Hearing, Inlet, Role, Skipping, Task
from streams.advice import rebuild_of
from streams.control import Control
from streams.errors import SnapshotError
from streams.frames import BEGINNING
from streams.kafka import Inbox
from streams.merging import Intake
from streams.pipeline import Pipeline
from streams.snapshots import Manifest, SnapshotStore, State, Witness, part_of
from streams.state_folder import Folder, Place, folder_of

LOG = logging.getLogger("consumers.station")
TASK, INLET = "task.", "inlet."


class TopicFacts(Protocol):
    """What a worker asks the broker about topics; kafka.Topics in production."""

    def uuid(self, topic: str) -> str | None:
        """Give the topic's UUID."""

    def partitions(self, topic: str) -> int:
        """Give the topic's partition count."""


class OutputReader(Protocol):
    """Reads a role's own output after a start (PROTOCOL 24)."""

    def end(self, topic: str, partition: int) -> int:
        """Give the offset after the last record."""

    def read(self, topic: str, partition: int, start: int) -> list[bytes]:
        """Give the values from `start` to the end as it is now."""


class Shop(NamedTuple):
    """Where a worker's parts come from; one per worker."""

    role: Role
    pipeline: Pipeline
    inbox: Inbox
    control: Control
    topics: TopicFacts
    outputs: OutputReader | None
    snapshots: Place


class Captured(NamedTuple):
    """The state of one input partition at one position, as a snapshot will hold it."""

    manifest: Manifest
    state: State


class Station:
    """One input partition of a running worker."""

    def __init__(self, shop: Shop, topic: str, partition: int) -> None:
        self._shop = shop
        self.topic = topic
        self.partition = partition
        self.intake = Intake(shop.role.inputs.index(topic), partition)
        self.mark_sent = BEGINNING
        self._store = SnapshotStore(snapshot_folder(shop.snapshots, shop.role.name, topic, partition))
        self.has_changed = True
        self.rows_a_record = 1.0  # of what was read last: how large its frames are
        self._asked = (-1, -1, False)  # what `is_at_end` found last: position, end, whether all between is void
        self._open()
        self._jumps = getattr(getattr(self.inlet, "memory", None), "jumps", 0)

    def _open(self) -> None:
        shop, role = self._shop, self._shop.role
        now = self._look()
        self.topic_id = now.topic_id
        self._partitions = now.partitions
        self._schema = now.schema
        start = self._start(now)
        self.position = start.position
        self.generation = start.generation
        siblings = now.partitions[self.topic]
        claims = role.claims(self.topic, now.topic_id, self.partition, start.generation, siblings)
        self.sources = [shop.control.claim(claim) for claim in claims]
        self.inlet: Inlet = role.inlet(self.topic, self.partition, self.sources)
        self.task: Task = role.task(self.inlet, self.partition, self.sources, start.generation)
        self._outputs = dict(start.manifest.outputs) if start.manifest else self._output_ends()
        if start.manifest is not None and start.state is not None:
            self.inlet.restore(part_of(start.state, INLET))
            self.task.restore(part_of(start.state, TASK))
            self._skip_answered()
        elif not role.has_state:
            hearing: Hearing = self.inlet  # type: ignore[assignment]  # roles without state read raw records
            hearing.largest_time, hearing.largest_stamp = start.heard
        else:
            self._begin_memory(is_from_start=start.is_from_start)
            if start.restart:
                role.renew(self.task, part_of(start.state or {}, TASK), start.restart)
            self.save()
            if start.generation:
                where = f"{self.topic} partition {self.partition}"
                why = f"{start.restart}; " if start.restart else ""
                text = "%s: %sgoing on without state as generation %d; events may repeat"
                LOG.warning(text, where, why, start.generation)

    def _look(self) -> Input:
        shop = self._shop
        topic_id = shop.topics.uuid(self.topic) or ""
        low, high = shop.inbox.watermarks(self.topic, self.partition)
        names = {self.topic, *(f"{shop.pipeline.name}.{name}" for name in shop.role.writes)}
        counts = {name: shop.topics.partitions(name) for name in sorted(names)}
        schemas = (shop.role.reads, *shop.role.writes.values())
        schema = "+".join(one.fingerprint for one in schemas if one is not None)
        return Input(self.topic, topic_id, self.partition, low, high, counts, schema)

    def _start(self, now: Input) -> Start:
        role, run = self._shop.role, self._shop.pipeline.run
        committed = self._shop.inbox.committed([(self.topic, self.partition)]).get((self.topic, self.partition))
        if not role.has_state:
            claims = role.claims(self.topic, now.topic_id, self.partition, 0, now.partitions[self.topic])
            before = {topic_id for claim in claims for topic_id in self._shop.control.predecessors(claim)}
            return _start_stateless(now, committed, before, run.on_gap)
        found = self._store.find()
        self._store.adopt(found)
        witness = witness_in(committed[1], f"{self.topic} partition {self.partition}", role.name) if committed else None
        if witness is not None:
            self._store.count_from(witness.number)
        return decide_start(found, witness, now, run.on_gap, role.start, is_renewable=role.is_renewable, role=role.name)

    def _begin_memory(self, *, is_from_start: bool) -> None:
        memory = getattr(self.inlet, "memory", None)
        if memory is not None:
            memory.is_from_start = is_from_start

    def new_jumps(self) -> int:
        """Count the jumps of sources since the last call, in a partition whose reading began in the middle."""
        jumps = getattr(getattr(self.inlet, "memory", None), "jumps", 0)
        new, self._jumps = jumps - self._jumps, jumps
        return int(new)

    @property
    def reached(self) -> int:
        """The offset of the first message not wholly taken."""
        return self.intake.position if self.intake.position >= 0 else self.position

    def is_at_end(self) -> bool:
        """Ask the broker whether everything there is now was read and taken."""
        if self.intake.rows:
            return False
        end, reached = self._shop.inbox.watermarks(self.topic, self.partition)[1], self.reached
        if end == reached:
            return True
        before, self._asked = self._asked, (reached, end, False)
        if before[:2] == (reached, end):  # nothing has come since: what is left may hold no record
            is_void = before[2] or self._shop.inbox.is_void(self.topic, self.partition, reached, end)
            self._asked = (reached, end, is_void)
            if is_void:  # so that the commit covers it: retention may leave nothing but the end of a transaction
                self.intake.pass_to(end)
                self.has_changed = True
        return self._asked[2]

    def heard(self) -> list[Heard]:
        """Ask the group what it has heard of the topic's partitions, as of their last commits."""
        partitions = [(self.topic, partition) for partition in range(self._partitions[self.topic])]
        commits = self._shop.inbox.committed(partitions).values()
        return [heard for heard in (_heard(metadata) for _, metadata in commits) if heard.topic_id == self.topic_id]

    def progress(self) -> tuple[int, str]:
        """Give the offset and metadata to commit for a role without state."""
        hearing: Hearing = self.inlet  # type: ignore[assignment]  # as in `_open`
        heard = Heard(self.topic_id, hearing.largest_time, hearing.largest_stamp)
        return self.intake.position, msgspec.json.encode(heard).decode()

    def save(self) -> tuple[int, str]:
        """Write a snapshot (outputs are flushed already); gives the offset and metadata to commit."""
        return self.write(self.capture())

    def capture(self) -> Captured:
        """Copy the state as it is (outputs are flushed already); the stream may go on while it is written."""
        position = self.reached
        state: State = {INLET + name: array for name, array in self.inlet.state().items()}
        state |= {TASK + name: array for name, array in self.task.state().items()}
        if self._is_skip_done():
            self._outputs = self._output_ends()
        manifest = Manifest(
            number=0,
            topic=self.topic,
            topic_id=self.topic_id,
            partition=self.partition,
            partitions=self._partitions,
            position=position,
            generation=self.generation,
            schema=self._schema,
            part="",
            digest="",
            arrays=(),
            outputs=self._outputs,
        )
        self.has_changed = False
        return Captured(manifest, state)

    def write(self, captured: Captured) -> tuple[int, str]:
        """Write what was captured, one after the other; gives the offset and metadata to commit. Any thread may."""
        manifest, state = captured
        witness = self._store.save(manifest, state)
        self.saved_bytes = sum(array.nbytes for array in state.values())
        return manifest.position, msgspec.json.encode(witness).decode()

    def _output_ends(self) -> dict[str, int]:
        shop = self._shop
        if shop.role.answers_to is None or shop.outputs is None:
            return {}
        topic = f"{shop.pipeline.name}.{shop.role.answers_to}"
        return {topic: shop.outputs.end(topic, self.partition)}

    def _skip_answered(self) -> None:
        if self._shop.outputs is not None:
            skipping: Skipping = self.task  # type: ignore[assignment]  # roles with `answers_to` give such tasks
            for topic, offset in self._outputs.items():
                skipping.answered(self._shop.outputs.read(topic, self.partition, offset))

    def _is_skip_done(self) -> bool:
        skipping: Skipping = self.task  # type: ignore[assignment]  # as above
        return self._shop.role.answers_to is not None and skipping.is_skip_done()


def snapshot_folder(place: Place, role: str, topic: str, partition: int) -> Folder:
    """Give the folder of the snapshots of a role's input partition."""
    return folder_of(place) / role / f"{topic.rsplit('.', 1)[-1]}-p{partition}"


def witness_in(metadata: str, where: str, role: str) -> Witness | None:
    """Read what the group's commit says beside the offset; None if it says nothing.

    Raises:
        SnapshotError: it is not Millrace's.
    """
    try:
        return msgspec.json.decode(metadata, type=Witness) if metadata else None
    except msgspec.MsgspecError:
        text = f"{where}: the group's commit was not made by Millrace: its metadata is {metadata[:60]!r}"
        raise SnapshotError(f"{text}; run `{rebuild_of(role)}`") from None


def _heard(metadata: str) -> Heard:
    try:
        return msgspec.json.decode(metadata, type=Heard)
    except msgspec.MsgspecError:  # not ours: the caller says so, with what stands there in the topic's place
        return Heard(metadata, BEGINNING, 0)


def _start_stateless(now: Input, committed: tuple[int, str] | None, before: set[str], on_gap: str) -> Start:
    """Ingest starts at its committed offset, without one at the earliest (PROTOCOL 4).

    Kafka forgets a topic's commits with the topic: that there was another one before only the claims tell.
    """
    position, metadata = committed or (now.low, "")
    heard = _heard(metadata) if committed else Heard(now.topic_id, BEGINNING, 0)
    topic_id = heard.topic_id
    problem = None
    if committed is None and before:
        problem = f"the topic was recreated: rows of {max(before)} were read before, topic is {now.topic_id}"
    elif topic_id != now.topic_id:
        problem = f"the topic was recreated: committed for {topic_id}, topic is {now.topic_id}"
    elif position < now.low:
        problem = f"the input was cut by retention: committed offset {position}, earliest is {now.low}"
    elif position > now.high:
        problem = f"the input ends early: committed offset {position}, the topic ends at {now.high}"
    if problem is None:
        known = (heard.time_us, heard.stamp_us)
        return Start(position, 0, is_from_start=committed is None and position == 0, heard=known)
    if on_gap == "stop":
        raise SnapshotError(f'{now.topic} partition {now.partition}: {problem}; set [run] on_gap = "continue" to go on')
    return Start(now.low, 0, is_from_start=now.low == 0)
