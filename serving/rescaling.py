"""Another number of partitions for a pipeline that stands still, in steps that may be broken off anywhere.

    1. check: nobody is at work, and everything inside has been taken
    2. stage: part the state of all partitions, and write it under a name of its own
    3. record: from here on there is one way, forward; no role starts until the end of it
    4. aliases: say on the control topic who numbered what waits for its label
    5. topics: delete those whose rows lie by partition, and make them with the new number
    6. publish: write the staged state as snapshots of the new topics' beginnings
    7. remove the record, then what was staged

A kill before 3 leaves everything as it was. After it the command, run again, goes on from the record: each later step
may be done twice. Topics of one partition (examples, scores, control, …) stay as they are, and so does learn's state.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from consumers.station import INLET, TASK, snapshot_folder
from serving.brokers import RESCALE_RECORD, is_rebuilding
from serving.carried_memory import clock_of, memory, memory_of_log, memory_of_stage
from serving.drained import Held, Inside, Reader, partition_counts, readers, refuse_members
from serving.rescale_doors import Doors
from streams.advice import rebuild_of
from streams.control import Claim
from streams.errors import PipelineError, SnapshotError, UnavailableError
from streams.faults import fail_point
from streams.parting import part_states
from streams.pipeline import Pipeline
from streams.snapshots import Manifest, SnapshotStore, State, part_of
from streams.stages import StageSpec, stage_specs, stage_topics
from streams.state_folder import Folder, state_of
from streams.topic_specs import topic_specs

STAGED = "rescale"  # the folder of what is staged, in the state folder
CLOCK = "clock"  # beside a staged state: where the marks of its sources, which do not exist yet, are to begin


class Record(msgspec.Struct, frozen=True):
    """How far it came: this is there from the moment from which there is no way back."""

    before: int
    partitions: int
    generation: int
    topics: dict[str, str]  # those to be made anew, with the UUIDs they had
    aliases: dict[int, int]


class Rescaling:
    """One change of a pipeline's partitions.

    Args:
        pipeline: with the new number of partitions.
        doors: to its brokers.
        say: takes one line of news.
    """

    def __init__(self, pipeline: Pipeline, doors: Doors, say: Callable[[str], None]) -> None:
        self._pipeline, self._doors, self._say = pipeline, doors, say
        self._state: Folder = state_of(pipeline)
        self._readers = readers(pipeline)

    def run(self) -> None:
        """Do it, or finish what was begun.

        Raises:
            PipelineError: another number was begun, or the pipeline has so many partitions already.
            SnapshotError: something is left inside the pipeline, or its state does not fit.
            UnavailableError: a role is at work.
        """
        refuse_members(self._pipeline, self._doors)
        if is_rebuilding(self._state):
            raise PipelineError([f"{self._pipeline.name} is being rebuilt: finish `millrace rebuild` first"])
        record = read_record(self._state)
        if record is None:
            record = self._stage()
            self._publish_record(record)
            fail_point("after_staged")
        elif record.partitions != self._pipeline.partitions:
            text = f"a change to {record.partitions} partitions was begun; finish it first, with partitions ="
            raise PipelineError([f"{text} {record.partitions} in the file and --partitions {record.partitions}"])
        for alias, source in record.aliases.items():
            self._doors.control.name_alias(alias, source)
        self._make_topics(record)
        fail_point("after_topics")
        for reader in self._readers:
            self._publish(reader, record)
        fail_point("after_published")
        self._state.remove(RESCALE_RECORD)
        self._remove_staged(record)
        self._say(f"{self._pipeline.name} has {record.partitions} partitions now, it had {record.before}")

    # Up to the record

    def _stage(self) -> Record:
        name, cluster = self._pipeline.name, self._doors.cluster
        before = cluster.partitions(f"{name}.log")
        if before == self._pipeline.partitions:
            raise PipelineError([f"{name} has {before} partitions already"])
        self._say(f"parting the state of {before} partitions by key for {self._pipeline.partitions} …")
        inside = Inside(self._pipeline, self._doors, before)
        held, left = {}, []
        for reader in self._readers:
            try:
                held[reader] = inside.held(reader)
            except SnapshotError as error:
                left.append(str(error))
        if left:
            how = "start the pipeline with the old number and without publishers, wait until all is taken, stop it"
            raise SnapshotError("\n".join([*left, f"not everything inside {name} has been taken: {how}"]))
        record = self._plan(held, before)
        for spec, reader in zip(stage_specs(self._pipeline), self._readers, strict=False):
            self._stage_states(spec, reader, held[reader], record, inside)
        return record

    def _plan(self, held: dict[Reader, list[Held]], before: int) -> Record:
        name, control = self._pipeline.name, self._doors.control
        topics = [f"{name}.{topic}" for topic in ("log", *stage_topics(self._pipeline), "features")]
        generation = 1 + max(one.manifest.generation for some in held.values() for one in some)
        control.refresh()
        last, first = self._readers[-2], max(control.aliases, default=-1) + 1
        sources = [control.claim(_claim(last.role, one.manifest, before)) for one in held[last]]
        ids = {topic: self._doors.cluster.uuid(topic) or "" for topic in topics}
        return Record(before, self._pipeline.partitions, generation, ids, dict(enumerate(sources, first)))

    def _stage_states(self, spec: StageSpec, reader: Reader, held: list[Held], record: Record, inside: Inside) -> None:
        """Part the state of one stage; all of it is in memory meanwhile."""
        control, partitions = self._doors.control, record.partitions
        if spec.number == 1:
            raw = inside.raw_offsets()
            ids = {topic: self._doors.cluster.uuid(topic) or "" for topic, _ in raw}
            inlet = memory_of_log(held, control, raw, ids)
        else:
            inlet = {CLOCK: np.array(clock_of(held, control))}
        aliases = tuple(record.aliases) if spec.is_last else ()
        sequences = np.zeros(2 if spec.is_last else partitions, np.int64)
        parted = part_states([part_of(one.state, TASK) for one in held], partitions, aliases)
        for partition, state in enumerate(parted):
            task = state | {"sequences": sequences}
            self._save(self._staged(reader, partition), reader, partition, record, _joined(inlet, task), held[0])

    def _save(
        self, store: SnapshotStore, reader: Reader, partition: int, record: Record, state: State, held: Held
    ) -> None:
        manifest = self._manifest(reader, partition, record, held.manifest.schema)
        store.find()  # so that this one is numbered above all that are there
        store.save(manifest, state)

    def _manifest(self, reader: Reader, partition: int, record: Record, schema: str, topic_id: str = "") -> Manifest:
        return Manifest(
            number=0,
            topic=f"{self._pipeline.name}.{reader.topic}",
            topic_id=topic_id,
            partition=partition,
            partitions=partition_counts(self._pipeline, reader, record.partitions),
            position=0,
            generation=record.generation,
            schema=schema,
            part="",
            digest="",
            arrays=(),
            outputs={},
        )

    def _staged(self, reader: Reader, partition: int) -> SnapshotStore:
        return SnapshotStore(snapshot_folder(self._state / STAGED, reader.role, reader.topic, partition))

    def _publish_record(self, record: Record) -> None:
        try:
            self._state.publish(RESCALE_RECORD, msgspec.json.encode(record))
        except OSError as error:
            raise UnavailableError(f"cannot write to {self._state}: {error.strerror or error}") from None

    # Behind it

    def _make_topics(self, record: Record) -> None:
        """Make topics with the new number, unless they are not those of the record any more."""
        cluster = self._doors.cluster
        cluster.delete([topic for topic, uuid in record.topics.items() if cluster.uuid(topic) == uuid])
        fail_point("after_deleted")
        cluster.grow(f"{self._pipeline.name}.predictions", record.partitions)
        cluster.ensure(topic_specs(self._pipeline))

    def _publish(self, reader: Reader, record: Record) -> None:
        """Write the snapshots with which a role begins on the new topic."""
        topic = f"{self._pipeline.name}.{reader.topic}"
        topic_id = self._doors.cluster.uuid(topic) or ""
        for partition in range(record.partitions):
            manifest, state = self._begin(reader, partition, record)
            store = SnapshotStore(snapshot_folder(self._state / "snapshots", reader.role, topic, partition))
            store.adopt(store.find())
            store.save(msgspec.structs.replace(manifest, topic_id=topic_id), state)
            fail_point("after_one")

    def _begin(self, reader: Reader, partition: int, record: Record) -> tuple[Manifest, State]:
        if reader.role == "serve":
            return self._begin_answers(reader, partition, record)
        found = self._staged(reader, partition).find()
        if found.manifest is None or found.state is None:
            text = f"what was staged for {reader.topic} partition {partition} is not in {self._state / STAGED}"
            raise SnapshotError(f"{text}, or damaged; run `{rebuild_of()}`")
        state = found.state
        if INLET + CLOCK in state:
            inlet = memory_of_stage(self._writers(reader, record), self._doors.control, int(state[INLET + CLOCK]))
            state = _joined(inlet, part_of(state, TASK))
        return found.manifest, state

    def _begin_answers(self, reader: Reader, partition: int, record: Record) -> tuple[Manifest, State]:
        """Serve begins at the first new vector, and looks for answers behind those there are."""
        topic = f"{self._pipeline.name}.predictions"
        inbox = self._doors.inbox(f"{self._pipeline.name}.serve")
        try:
            _, end = inbox.watermarks(topic, partition)
        finally:
            inbox.close()
        manifest = self._manifest(reader, partition, record, "")
        state = _joined(memory({}, {}), {"passed": np.array([-1], np.int64)})
        return msgspec.structs.replace(manifest, outputs={topic: end}), state

    def _writers(self, reader: Reader, record: Record) -> list[Claim]:
        """Claims of the stage before, as it will make them itself."""
        before = self._readers[self._readers.index(reader) - 1]
        topic_id = self._doors.cluster.uuid(f"{self._pipeline.name}.{before.topic}") or ""
        count = record.partitions
        return [
            Claim(before.role, topic_id, partition, "rows", record.generation, count, is_gapless=True)
            for partition in range(count)
        ]

    def _remove_staged(self, record: Record) -> None:
        for reader in self._readers:
            for partition in range(record.partitions):
                folder = self._staged(reader, partition).folder
                for name in folder.names():
                    folder.remove(name)


def read_record(state: Folder) -> Record | None:
    """Read how far a change of partitions came; None if none is under way."""
    try:
        return msgspec.json.decode(state.read(RESCALE_RECORD), type=Record)
    except OSError:
        return None


def _claim(role: str, manifest: Manifest, siblings: int) -> Claim:
    topic_id, generation = manifest.topic_id, manifest.generation
    return Claim(role, topic_id, manifest.partition, "rows", generation, siblings, is_gapless=True)


def _joined(inlet: State, task: State) -> State:
    parts = {INLET: inlet, TASK: task}
    return {prefix + name: array for prefix, arrays in parts.items() for name, array in arrays.items()}
