"""Roles of a pipeline that stands still begin anew, in steps that may be broken off anywhere.

    1. plan: who begins anew, in which generation, and which lineages candidates have had
    2. record: from here on there is one way, forward; no role starts until the end of it
    3. topics: those whose rows are to be computed again are deleted, and made anew
    4. archive: set aside, where its rows are to be other ones
    5. snapshots: of every partition one that says "begin here", above all that were there; these are removed
    6. groups: their commits, which speak of snapshots that are gone
    7. remove the record

A kill before 2 leaves everything as it was. After it the command, run again, goes on from the record: each later step
may be done twice. The next generation tells what is written from now on from all before, and lets the new snapshots
win over those of a frozen worker that wakes up; candidates begin their next lineage, so that no two models have one
name.
"""

from __future__ import annotations

import re

import msgspec
import numpy as np

from consumers.learn_snapshot import lineage_of
from consumers.opening import beginning_state
from consumers.station import INLET, TASK, snapshot_folder
from models.registry import versions_of
from models.version import Version, decode_record, encode_record
from serving.brokers import REBUILD_RECORD, is_rescaling
from serving.carried_memory import memory
from serving.drained import Reader, partition_counts, refuse_members
from serving.rebuild_readers import readers_of, refuse_cut, topics_of
from serving.rebuild_record import Record, generation_in, read_record, trained_line
from serving.rescale_doors import Doors
from streams.archive import archive_of
from streams.archive_aside import has_archive, name_aside, set_aside
from streams.errors import PipelineError, SnapshotError, UnavailableError
from streams.faults import fail_point
from streams.pipeline import Pipeline
from streams.served import ROLE as SERVED_ROLE
from streams.snapshots import Manifest, SnapshotStore, State, Witness, part_of
from streams.state_folder import Folder, state_of
from streams.topic_specs import topic_specs

_FILE = re.compile(r"(?:manifest|part)-(\d+)-\w+\.(?:json|bin)")
_BLOB = re.compile(r"(\d+)-\d+-\w+\.(?:npz|safetensors)")


class Rebuilding:
    """One rebuild.

    Args:
        pipeline: the pipeline.
        doors: to its brokers.
        role: `features`, `serve`, `learn`, `learn.NAME`, `train`; empty for all that is behind the raw topics.
    """

    def __init__(self, pipeline: Pipeline, doors: Doors, role: str = "") -> None:
        self._pipeline, self._doors, self._role = pipeline, doors, role
        self._state: Folder = state_of(pipeline)
        self._readers = readers_of(pipeline, role)
        self._batch = {model.name for model in pipeline.models if model.retrain is not None}

    def plan(self, *, is_from_retained: bool = False) -> Record:
        """Say what is to be done, or what was begun and has to be finished.

        Args:
            is_from_retained: begin at the earliest row there is where the first are gone.

        Raises:
            PipelineError: something else was begun and has to be finished first.
            SnapshotError: the input does not begin with its first row.
            UnavailableError: a role is at work.
        """
        refuse_members(self._pipeline, self._doors)
        if is_rescaling(self._state):
            raise PipelineError(["the number of partitions is being changed: finish `millrace rescale` first"])
        begun = read_record(self._state)
        if begun is not None:
            if begun.role != self._role:
                how = f"`millrace rebuild FILE{f' --role {begun.role}' if begun.role else ''}`"
                raise PipelineError([f"another rebuild was begun: finish it first by {how}"])
            return begun
        self._doors.control.refresh()
        topics = topics_of(self._pipeline, self._role)
        if topics and not is_from_retained:
            refuse_cut(self._pipeline, self._doors, self._role)
        ids = {topic: self._doors.cluster.uuid(topic) for topic in topics}
        generations = [self._generation(reader) for reader in self._readers]
        generation = 1 + max(generations)
        learners = [reader.role for reader in self._readers if reader.role.startswith("learn.")]
        candidates = [role.removeprefix("learn.") for role in learners if role != SERVED_ROLE]
        return Record(
            self._role,
            generation,
            {topic: uuid for topic, uuid in ids.items() if uuid},
            {name: self._lineage(name) for name in candidates if name not in self._batch},
            self._aside(generation, is_made_anew=bool(topics)),
            {name: self._trained(name, is_made_anew=bool(topics)) for name in candidates if name in self._batch},
        )

    def lines(self, record: Record) -> list[str]:
        """Say what is deleted, what begins anew, and what that means; a line each."""
        name, roles = self._pipeline.name, ", ".join(reader.role for reader in self._readers)
        lines = [f"delete topic {topic} with all its rows" for topic in record.topics]
        lines += [f"delete what group {group} has committed" for group in self._groups()]
        where = self._state / "snapshots"
        lines += [f"delete the snapshots in {where / reader.role}" for reader in self._readers]
        lines += self._archive_lines(record)
        lines += [f"{roles}: begin at the earliest row, as generation {record.generation}"]
        told = ", ".join(f"{one} as lineage {known + 1}" for one, known in record.lineages.items())
        lines += [f"learned again: {told}; versions there are stay, and answer until the first new one"] if told else []
        lines += [trained_line(*one) for one in record.trained.items()]
        if record.topics:
            lines.append(f"events are answered again on {name}.predictions, as generation {record.generation}")
        return lines

    def run(self, record: Record) -> None:
        """Do it."""
        try:
            self._state.publish(REBUILD_RECORD, msgspec.json.encode(record))
        except OSError as error:
            raise UnavailableError(f"cannot write to {self._state}: {error.strerror or error}") from None
        fail_point("after_recorded")
        cluster = self._doors.cluster
        cluster.delete([topic for topic, uuid in record.topics.items() if cluster.uuid(topic) == uuid])
        fail_point("after_deleted")
        cluster.ensure(topic_specs(self._pipeline))
        fail_point("after_topics")
        self._set_aside(record)
        fail_point("after_aside")
        for reader in self._readers:
            for partition in range(self._partitions(reader)):
                self._begin(reader, partition, record)
                fail_point("after_one")
        for group in self._groups():
            cluster.forget(group)
        fail_point("after_published")
        self._state.remove(REBUILD_RECORD)

    # What there was

    def _groups(self) -> list[str]:
        """Name the groups whose commits speak of what is deleted; ingest's say how far the raw topics were read."""
        roles = (["ingest"] if not self._role else []) + [reader.role for reader in self._readers]
        return [f"{self._pipeline.name}.{role}" for role in roles]

    def _generation(self, reader: Reader) -> int:
        """Give the newest generation that anything knows of: manifests, commits, or claims of sources."""
        found = [0]
        for partition in range(self._partitions(reader)):
            folder = self._folder(reader, partition)
            found += [generation_in(folder, name) for name in folder.names() if name.startswith("manifest-")]
            witness = self._witness(reader, partition)
            found.append(witness.generation if witness else 0)
        return max([*found, *self._doors.control.generations(reader.role)])

    def _has_train(self) -> bool:
        return any(reader.role == "train" for reader in self._readers)

    def _aside(self, generation: int, *, is_made_anew: bool) -> str:
        """Name the folder for the archive; none where nobody makes it again, or its first rows are nowhere else."""
        if not self._has_train() or not has_archive(self._state):
            return ""
        is_whole = is_made_anew or self._ends("train", "examples", 0)[0] == 0
        return name_aside(self._state, generation) if is_whole else ""

    def _archive_lines(self, record: Record) -> list[str]:
        archive = archive_of(self._state)
        if record.archive:
            return [
                f"set the archive {archive} aside as {self._state / record.archive}, which nothing reads or removes"
            ]
        if self._has_train() and has_archive(self._state):
            cut = f"{self._pipeline.name}.examples does not begin with its first row"
            return [f"keep the archive {archive}, for {cut}: it goes on behind its last row"]
        return []

    def _set_aside(self, record: Record) -> None:
        if not record.archive:
            return
        try:
            set_aside(self._state, record.archive)
        except OSError as error:
            where = self._state / record.archive
            raise UnavailableError(f"cannot move the archive to {where}: {error.strerror or error}") from None

    def _ends(self, role: str, topic: str, partition: int) -> tuple[int, int]:
        """Give the first and the next offset of a partition."""
        inbox = self._doors.inbox(f"{self._pipeline.name}.{role}")
        try:
            return inbox.watermarks(f"{self._pipeline.name}.{topic}", partition)
        finally:
            inbox.close()

    def _witness(self, reader: Reader, partition: int) -> Witness | None:
        inbox = self._doors.inbox(f"{self._pipeline.name}.{reader.role}")
        try:
            place = (f"{self._pipeline.name}.{reader.topic}", partition)
            _, metadata = inbox.committed([place]).get(place, (0, ""))
        finally:
            inbox.close()
        try:
            return msgspec.json.decode(metadata, type=Witness) if metadata else None
        except msgspec.MsgspecError:  # not ours; it is deleted
            return None

    def _lineage(self, candidate: str) -> int:
        """Give the newest lineage of a candidate that its snapshots, its files or the control topic know of."""
        found = [0]
        published = self._doors.control.versions.get(candidate)
        if published is not None:
            found.append(decode_record(published).lineage)
        names = (self._state / "models" / candidate).names()
        found += [int(match[1]) for match in map(_BLOB.match, names) if match]
        reader = next(one for one in self._readers if one.role == f"learn.{candidate}")
        try:
            state = SnapshotStore(self._folder(reader, 0)).find().state
        except SnapshotError:  # another release's
            state = None
        return max([*found, lineage_of(part_of(state or {}, TASK))])

    def _trained(self, candidate: str, *, is_made_anew: bool) -> str:
        """Give the record of the newest trained version, where rows that announce versions are gone or may be."""
        if not is_made_anew and self._ends(f"learn.{candidate}", "examples", 0)[0] == 0:
            return ""
        versions = [one for one in versions_of(self._state, candidate) if one.training and _fits(one, self._pipeline)]
        return encode_record(versions[-1]).decode() if versions else ""

    # What begins

    def _partitions(self, reader: Reader) -> int:
        return 1 if reader.topic == "examples" else self._pipeline.partitions

    def _folder(self, reader: Reader, partition: int) -> Folder:
        return snapshot_folder(self._state / "snapshots", reader.role, reader.topic, partition)

    def _begin(self, reader: Reader, partition: int, record: Record) -> None:
        """Write with what a role begins, above all snapshots there are, and remove these."""
        folder = self._folder(reader, partition)
        old = [name for name in folder.names() if _FILE.fullmatch(name)]
        witness = self._witness(reader, partition)
        store = SnapshotStore(folder)
        store.count_from(max([*(int(name.split("-")[1]) for name in old), witness.number if witness else 0]))
        store.save(*self._beginning(reader, partition, record))
        for name in old:
            folder.remove(name)

    def _beginning(self, reader: Reader, partition: int, record: Record) -> tuple[Manifest, State]:
        topic = f"{self._pipeline.name}.{reader.topic}"
        low, _ = self._ends(reader.role, reader.topic, partition)
        candidate, outputs = reader.role.removeprefix("learn."), dict[str, int]()
        state = beginning_state(record.lineages.get(candidate, 0), record.trained.get(candidate, "").encode())
        if reader.role == "serve":
            state, outputs = _unanswered(low == 0), self._answered(partition, record)
        elif reader.role == "train":  # alarms there were are of models as they were
            state[TASK + "decisions_read"] = np.array([self._ends("train", "decisions", 0)[1]], np.int64)
        manifest = Manifest(
            number=0,
            topic=topic,
            topic_id=self._doors.cluster.uuid(topic) or "",
            partition=partition,
            partitions=partition_counts(self._pipeline, reader, self._pipeline.partitions),
            position=low,
            generation=record.generation,
            schema="",
            part="",
            digest="",
            arrays=(),
            outputs=outputs,
        )
        return manifest, state

    def _answered(self, partition: int, record: Record) -> dict[str, int]:
        """Say from where serve looks for answers it has given: all of them, unless events have other numbers now."""
        topic = f"{self._pipeline.name}.predictions"
        return {topic: self._ends("serve", "predictions", partition)[1] if record.topics else 0}


def _fits(version: Version, pipeline: Pipeline) -> bool:
    """Whether a version is one of a candidate's as the file has it now."""
    kinds = {model.name: model.kind for model in pipeline.models}
    return (version.task, version.kind) == (pipeline.task, kinds.get(version.candidate))


def _unanswered(is_from_start: bool) -> State:
    inlet = memory({}, {})
    inlet["flags"][0] = is_from_start
    return {**{INLET + name: array for name, array in inlet.items()}, TASK + "passed": np.array([-1], np.int64)}
