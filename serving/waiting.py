"""Events that wait for their label, as the newest snapshots have them; nothing has to run for it.

They wait in the ledger with their vectors, in a chain of stages with these in the last; and in each candidate, as
predictions that are not scored yet. A candidate knows the time of a block of events, not of each.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from consumers.opening import REBUILT
from consumers.station import TASK, snapshot_folder
from models.pending import PENDING
from streams import pending as kept
from streams.accounts import CLOCK, LABEL_CLOCK
from streams.deadlines import chosen_deadlines
from streams.frames import BEGINNING, END
from streams.pipeline import Pipeline
from streams.snapshots import SnapshotStore, State, part_of
from streams.stages import StageSpec, stage_specs
from streams.state_folder import Folder, state_of

AGE_SHARES = (24, 6, 2, 1)  # buckets of age end at the wait divided by these: of a day 1, 4, 12 and 24 hours


class Waiting(msgspec.Struct, frozen=True):
    """What waits in one place of one partition.

    Attributes:
        where: "ledger", "vectors" of a chain's last stage, or "learn" and the candidate.
        partition: of the events' key; of learn, of P.examples.
        snapshot_age_s: how long ago the snapshot was written; None: there is none, and nothing else is known.
        events: how many wait.
        ages: how many by age, as `age_edges_us` has them, and those older than all; None where no times are known.
        clock_us: where the clock stands that ages go by.
        oldest_id: of the event that is due first.
        oldest_us: its time; of a candidate, the earliest of its open blocks.
        early_labels: labels that wait for their event.
        open_blocks: of a candidate.
    """

    where: str
    partition: int
    snapshot_age_s: float | None = None
    events: int = 0
    ages: tuple[int, ...] | None = None
    clock_us: int | None = None
    oldest_id: str | None = None
    oldest_us: int | None = None
    early_labels: int | None = None
    open_blocks: int | None = None


def find_waiting(pipeline: Pipeline, clock: Callable[[], float] = time.time) -> Iterator[Waiting]:
    """Read the newest snapshot of every partition that keeps events, and of every candidate, one after the other.

    Args:
        pipeline: the pipeline.
        clock: seconds since 1970.

    Raises:
        SnapshotError: another release has written them.
        UnavailableError: an object store does not answer.
    """
    snapshots = state_of(pipeline) / "snapshots"
    for spec in stage_specs(pipeline):
        if spec.number == 1 or spec.is_last:
            where = "ledger" if spec.number == 1 else "vectors"
            for partition in range(pipeline.partitions):
                age_s, state = _newest(snapshots, spec.name, f"{pipeline.name}.{spec.reads}", partition, clock)
                yield _of_stage(pipeline, spec, Waiting(where, partition, age_s), state)
    for model in pipeline.models:
        age_s, state = _newest(snapshots, f"learn.{model.name}", f"{pipeline.name}.examples", 0, clock)
        yield _of_candidate(Waiting(f"learn {model.name}", 0, age_s), state)


def age_edges_us(pipeline: Pipeline) -> tuple[int, ...]:
    """Say where buckets of age end; there are none without labels, for nothing waits."""
    if not pipeline.labels.is_declared:
        return ()
    return tuple(-(-pipeline.labels.wait_us // share) for share in AGE_SHARES)


def _newest(
    snapshots: Folder, role: str, topic: str, partition: int, clock: Callable[[], float]
) -> tuple[float | None, State]:
    """Give the newest snapshot of a role's input partition and how old it is; None and nothing where it begins anew."""
    folder = snapshot_folder(snapshots, role, topic, partition)
    found = SnapshotStore(folder).find()
    if found.manifest is None or found.state is None or REBUILT in found.state:
        return None, {}
    written_s = clock()
    with contextlib.suppress(OSError):  # a running role has removed it meanwhile: then it is young enough
        written_s = folder.written_s(found.manifest.part)
    return max(0.0, clock() - written_s), part_of(found.state, TASK)


def _of_stage(pipeline: Pipeline, spec: StageSpec, waiting: Waiting, state: State) -> Waiting:
    if not state:
        return waiting
    slots, _ = chosen_deadlines(state, "pending.waiting.", lambda slots: np.ones(slots.size, np.bool_))
    times = state["pending.rows"][slots, kept.TIME]
    clock_us = int(state["counters"][LABEL_CLOCK if spec.number == 1 else CLOCK])
    if clock_us in (BEGINNING, END) and times.size:
        clock_us = int(times.max())  # not all labels' partitions are heard of yet, or all is over
    has_clock = clock_us not in (BEGINNING, END)
    edges = np.array(age_edges_us(pipeline), np.int64)
    found: dict[str, Any] = {"events": slots.size, "clock_us": clock_us if has_clock else None}
    bucket = np.searchsorted(edges, clock_us - times if has_clock else times, "right")
    if edges.size:
        found["ages"] = tuple(np.bincount(bucket, minlength=edges.size + 1).tolist())
    if slots.size:
        found |= {"oldest_id": _id_at(state, int(slots[0])), "oldest_us": int(times[0])}
    if spec.number == 1:
        found["early_labels"] = int(state["early.waiting.sizes"][0])
    return msgspec.structs.replace(waiting, **found)


def _id_at(state: State, slot: int) -> str:
    row = state["pending.rows"][slot]
    text: npt.NDArray[np.uint8] = state["pending.arena"][row[kept.TEXT] : row[kept.TEXT] + row[kept.ID_SIZE]]
    return text.tobytes().decode(errors="replace")


def _of_candidate(waiting: Waiting, state: State) -> Waiting:
    if not state:
        return waiting
    waits = state["board.nodes.status"] == PENDING
    first_us = state["board.nodes.first_time"][waits.any(axis=1)]
    return msgspec.structs.replace(
        waiting,
        events=int(waits.sum()),
        open_blocks=int((state["board.nodes.left"] > 0).sum()),
        oldest_us=int(first_us.min()) if first_us.size else None,
    )
