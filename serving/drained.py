"""Whether a pipeline has taken everything that is inside it, and the state it has then.

Topics between roles may be made anew only when nothing on them is still to be read. Marks at their ends do not count:
they raise clocks that go on from raw topics.
"""

from __future__ import annotations

from typing import NamedTuple

from consumers.opening import Input, decide_start
from consumers.station import snapshot_folder, witness_in
from serving.rescale_doors import Doors
from serving.tail import fingerprint_of
from streams import frames
from streams.errors import SnapshotError, UnavailableError
from streams.frames import MARK
from streams.pipeline import Pipeline
from streams.served import ROLE, has_served
from streams.snapshots import Manifest, SnapshotStore, State
from streams.stages import stage_specs, stage_topic
from streams.state_folder import Folder, state_of

Offsets = dict[tuple[str, int], int]


class Reader(NamedTuple):
    """A role that reads a topic between roles. Topics are named without the pipeline's name."""

    role: str
    topic: str
    writes: tuple[str, ...]  # its manifests count the partitions of these, too


class Held(NamedTuple):
    """The newest snapshot of one input partition."""

    manifest: Manifest
    state: State


def readers(pipeline: Pipeline) -> list[Reader]:
    """Name those whose topics depend on the number of partitions, in the order rows flow; serve is the last."""
    stages = [
        Reader(spec.name, spec.reads, ("examples", "features") if spec.is_last else (stage_topic(spec.number),))
        for spec in stage_specs(pipeline)
    ]
    return [*stages, Reader("serve", "features", ())]


def readers_of_examples(pipeline: Pipeline) -> list[Reader]:
    """Name those who read the settled examples, which have one partition: all candidates, served, and train."""
    found = [Reader(f"learn.{model.name}", "examples", ()) for model in pipeline.models]
    found += [Reader(ROLE, "examples", ())] if has_served(pipeline) else []
    return found if pipeline.archive is None else [*found, Reader("train", "examples", ())]


def groups(pipeline: Pipeline) -> list[str]:
    """Name all consumer groups of a pipeline."""
    roles = ["ingest", *(reader.role for reader in readers(pipeline))]
    roles += [reader.role for reader in readers_of_examples(pipeline)]
    roles += [] if pipeline.select is None else ["select"]
    return [f"{pipeline.name}.{role}" for role in roles]


def refuse_members(pipeline: Pipeline, doors: Doors) -> None:
    """Refuse to touch a pipeline that runs.

    Raises:
        UnavailableError: a role is at work.
    """
    for group in groups(pipeline):
        count = doors.cluster.members(group)
        if count:
            text = f"group {group} has {count} member{'s' if count > 1 else ''}: stop all roles first"
            raise UnavailableError(f"{text}; a killed one is forgotten after group.consumer.session.timeout.ms")


def partition_counts(pipeline: Pipeline, reader: Reader, partitions: int) -> dict[str, int]:
    """Count the partitions that a reader's manifests name, if the pipeline has so many."""
    names = sorted({reader.topic, *reader.writes})
    return {f"{pipeline.name}.{name}": 1 if name == "examples" else partitions for name in names}


class Inside:
    """What lies inside a pipeline whose roles are stopped.

    Args:
        pipeline: the pipeline.
        doors: to its brokers.
        partitions: of its topics now.
    """

    def __init__(self, pipeline: Pipeline, doors: Doors, partitions: int) -> None:
        self._pipeline, self._doors, self._partitions = pipeline, doors, partitions
        self._state: Folder = state_of(pipeline) / "snapshots"

    def held(self, reader: Reader) -> list[Held]:
        """Give a reader's state of every partition, as it would start with it.

        Raises:
            SnapshotError: a role would not start with it either, or something is left to be read.
        """
        inbox = self._doors.inbox(f"{self._pipeline.name}.{reader.role}")
        try:
            topic = f"{self._pipeline.name}.{reader.topic}"
            commits = inbox.committed([(topic, partition) for partition in range(self._partitions)])
            found, left = [], []
            for partition in range(self._partitions):
                low, high = inbox.watermarks(topic, partition)
                _, metadata = commits.get((topic, partition), (0, ""))
                held = self._held(reader, partition, (low, high), metadata)
                position = low if held is None else held.manifest.position
                if self._has_rows(topic, partition, position, high):
                    left.append(
                        f"{topic} partition {partition}: {high - position:,} messages not taken by {reader.role}"
                    )
                elif held is None:
                    left.append(f"{topic} partition {partition}: {reader.role} has never been there")
                else:
                    found.append(held)
        finally:
            inbox.close()
        if left:
            raise SnapshotError("\n".join(left))
        return found

    def _held(self, reader: Reader, partition: int, ends: tuple[int, int], metadata: str) -> Held | None:
        topic = f"{self._pipeline.name}.{reader.topic}"
        found = SnapshotStore(snapshot_folder(self._state, reader.role, topic, partition)).find()
        witness = witness_in(metadata, f"{topic} partition {partition}", reader.role)
        counts = partition_counts(self._pipeline, reader, self._partitions)
        now = Input(topic, self._doors.cluster.uuid(topic) or "", partition, *ends, counts, "")
        start = decide_start(found, witness, now, "stop", role=reader.role)
        return None if start.manifest is None or start.state is None else Held(start.manifest, start.state)

    def _has_rows(self, topic: str, partition: int, start: int, end: int) -> bool:
        """Whether there is anything but marks; the first row found is enough."""
        if start >= end:
            return False
        for message in self._doors.read(topic, partition, start):
            schema = self._doors.control.schema(fingerprint_of(message))
            if (frames.decode(message.value() or b"", schema).numbers("kind") != MARK).any():
                return True
        return False

    def raw_offsets(self) -> Offsets:
        """Give where ingest goes on in every raw partition."""
        name, topics = self._pipeline.name, dict.fromkeys((self._pipeline.events.topic, self._pipeline.labels.topic))
        places = [(topic, partition) for topic in topics for partition in range(self._doors.cluster.partitions(topic))]
        inbox = self._doors.inbox(f"{name}.ingest")
        try:
            commits = inbox.committed(places)
        finally:
            inbox.close()
        return {place: commits[place][0] if place in commits else 0 for place in places}
