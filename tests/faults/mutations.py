"""The protocol's rules, each broken on purpose. A test suite that lets one pass cannot see."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

import consumers.outlet
import consumers.saving
from consumers.chain_tasks import LastTask, MiddleTask
from consumers.features_role import FeaturesRole
from consumers.featurize import FeatureTask
from consumers.outlet import Outlet
from consumers.stage_task import StageTask
from consumers.worker import Worker
from serving.predict import ServeTask
from streams import frames
from streams.building import Builder
from streams.control import Claim
from streams.frames import MISSING
from streams.merging import Aligner, Int64s, Intake
from streams.sources import SourceMemory


def no_dedupe(patch: pytest.MonkeyPatch) -> None:
    """Readers forget what they have taken."""
    admit = SourceMemory.admit

    def forgetful(self: SourceMemory, rows: Any) -> Any:
        self.last[:] = -1
        self.is_from_start = False
        return admit(self, rows)

    patch.setattr(SourceMemory, "admit", forgetful)


def snapshot_before_flush(patch: pytest.MonkeyPatch) -> None:
    """State is saved and committed while outputs are still on their way."""
    _commit_first(patch, has_state=True)


def ingest_commits_first(patch: pytest.MonkeyPatch) -> None:
    """Ingest commits offsets whose rows are still on their way."""
    _commit_first(patch, has_state=False)


def _commit_first(patch: pytest.MonkeyPatch, *, has_state: bool) -> None:
    snapshot = Worker.snapshot

    def early(self: Worker) -> None:
        if self.shop.role.has_state != has_state:
            snapshot(self)
            return
        changed = [station for station in self.stations if station.has_changed]
        self._saver._commit(self._saver._saved(changed), changed)
        getattr(consumers.saving, "fail_point")("after_commit")  # noqa: B009 - the one the world installed
        self._outbox.flush()

    patch.setattr(Worker, "snapshot", early)


def memory_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The sequences taken are not saved with the state."""
    patch.setattr(SourceMemory, "restore", lambda self, state: setattr(self, "is_from_start", False))


def counters_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The writer's own counters start at 0 again."""
    _restored_without(patch, {"sequences"}, FeatureTask)


def _restored_without(patch: pytest.MonkeyPatch, names: set[str], of: type[StageTask]) -> None:
    restore = of.restore

    def without(self: StageTask, state: dict[str, Any]) -> None:
        restore(self, {name: array * 0 if name in names else array for name, array in state.items()})

    patch.setattr(of, "restore", without)


def counters_of_a_middle_stage_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The numbers of the rows for the next stage start at 0 again."""
    _restored_without(patch, {"sequences"}, MiddleTask)


def held_labels_of_a_middle_stage_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Labels that wait for their time become 0."""
    _restored_without(patch, {"held.labels"}, MiddleTask)


def entities_of_waiting_events_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Label rows of events before the snapshot have no entities, and go by the key."""
    _restored_without(patch, {"pending.others"}, FeatureTask)


def entities_of_settled_events_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Amended labels of events before the snapshot do not follow their event."""
    _restored_without(patch, {"ledger.others"}, FeatureTask)


def vectors_of_the_last_stage_not_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Label rows of events before the snapshot have vectors of 0."""
    _restored_without(patch, {"pending.vectors"}, LastTask)


def marks_numbered(patch: pytest.MonkeyPatch) -> None:
    """A mark uses up a sequence of its source."""
    measure, send = FeatureTask.process, Outlet.put_mark
    tasks: list[FeatureTask] = []

    def process(self: FeatureTask, batch: frames.Batch) -> Any:
        tasks[:] = [task for task in tasks if task is not self] + [self]
        return measure(self, batch)

    def put_mark(self: Outlet, target: Any, source: int, time_us: int) -> None:
        send(self, target, source, time_us)
        for task in tasks:
            if task._delivery._source == source:
                task._delivery.sequences += 1

    patch.setattr(FeatureTask, "process", process)
    patch.setattr(Outlet, "put_mark", put_mark)


def wall_clock_in_a_stage(patch: pytest.MonkeyPatch) -> None:
    """Missing labels are settled by the time of processing."""
    process = FeatureTask.process

    def hasty(self: FeatureTask, batch: frames.Batch) -> Any:
        now = np.full_like(batch.label_clock, batch.rows.numbers("produced").max() + random.randrange(10**8))
        return process(self, batch._replace(label_clock=np.maximum(batch.label_clock, now)))

    patch.setattr(FeatureTask, "process", hasty)


def settling_in_hash_order(patch: pytest.MonkeyPatch) -> None:
    """Missing labels settled together leave in the order of a hash table."""
    process = FeatureTask.process

    def shuffled(self: FeatureTask, batch: frames.Batch) -> Any:
        return [_shuffle_missing(output) for output in process(self, batch)]

    patch.setattr(FeatureTask, "process", shuffled)


def _shuffle_missing(output: frames.Rows) -> frames.Rows:
    if output.topic != "examples":
        return output
    table = output.table
    index = np.arange(table.num_rows)
    ids = table.to_arrow().column("id").to_pylist()
    places = np.flatnonzero(table.numbers("outcome") == MISSING)
    index[places] = sorted(places.tolist(), key=lambda i: (hash_of(ids[i]), i))
    moved = table.take(index)
    columns = {
        name: moved.text(name) if name in ("id", "key") else moved.numbers(name) for name in moved.layout.names[:-1]
    }
    columns |= {"vector": moved.matrix(), "sequence": table.numbers("sequence")}
    return output._replace(table=Builder(table.layout, {}).build(columns, table.num_rows))


def hash_of(text: str) -> int:
    """A hash that has nothing to do with order."""
    return int(sum(ord(c) * 31**i for i, c in enumerate(text)) % 1009)


def source_per_worker(patch: pytest.MonkeyPatch) -> None:
    """A worker numbers its rows under its own name instead of its partition's."""
    names = itertools.count()

    def claims(self: FeaturesRole, topic: str, topic_id: str, partition: int, generation: int, siblings: int) -> Any:
        return [Claim(f"features-{next(names)}", topic_id, partition, "rows", generation, siblings, is_gapless=True)]

    patch.setattr(FeaturesRole, "claims", claims)


def commit_of_delivered_offsets(patch: pytest.MonkeyPatch) -> None:
    """Positions are what the consumer was given, not what was taken."""
    patch.setattr(Intake, "position", property(lambda self: self._end))


def one_row_lost(patch: pytest.MonkeyPatch) -> None:
    """One row of one frame is dropped."""
    encode, rng = frames.encode, random.Random(5)

    def lossy(stack: Any, index: Any) -> Any:
        lost = rng.randrange(40) == 0 and index.size > 1
        return encode(stack, index[:-1] if lost else index)

    patch.setattr(frames, "encode", lossy)


def no_output_skip(patch: pytest.MonkeyPatch) -> None:
    """Serve answers again what it had answered before the crash."""
    patch.setattr(ServeTask, "answered", lambda self, values: None)


def merge_off(patch: pytest.MonkeyPatch) -> None:
    """Partitions are taken as they come."""
    patch.setattr(Aligner, "counts", lambda self, intakes, now_us: [intake.rows for intake in intakes])
    patch.setattr(consumers.outlet, "merge_order", lambda keys, intakes: None)
    patch.setattr(consumers.outlet, "spread_order", _unmerged)


def _unmerged(
    keys: list[Int64s], targets: list[Int64s], intakes: list[Intake], partitions: int
) -> tuple[Int64s, Int64s]:
    """Rows by target, partition after partition."""
    going = np.concatenate(targets)
    order = np.argsort(going, kind="stable")[np.count_nonzero(going < 0) :]
    return order, np.cumsum(np.bincount(going[order], minlength=partitions))


def whole_batch_merge(patch: pytest.MonkeyPatch) -> None:
    """The partition with the smallest head gives all it has."""

    def counts(self: Aligner, intakes: list[Intake], now_us: int) -> list[int]:
        full = [intake for intake in intakes if intake.rows]
        first = min(full, key=lambda intake: intake.head, default=None)
        return [intake.rows if intake is first else 0 for intake in intakes]

    patch.setattr(Aligner, "counts", counts)


OF_A_CHAIN = (
    counters_of_a_middle_stage_not_in_snapshot,
    held_labels_of_a_middle_stage_not_in_snapshot,
    entities_of_waiting_events_not_in_snapshot,
    entities_of_settled_events_not_in_snapshot,
    vectors_of_the_last_stage_not_in_snapshot,
)
OF_THE_MERGE = (merge_off, whole_batch_merge)
ALL = (
    no_dedupe,
    snapshot_before_flush,
    ingest_commits_first,
    memory_not_in_snapshot,
    counters_not_in_snapshot,
    marks_numbered,
    wall_clock_in_a_stage,
    settling_in_hash_order,
    source_per_worker,
    commit_of_delivered_offsets,
    one_row_lost,
    no_output_skip,
    *OF_THE_MERGE,
)
