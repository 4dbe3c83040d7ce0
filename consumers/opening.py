"""Where a worker begins on a partition it is given: the decision of PROTOCOL 22, as a pure function.

The newest manifest that verifies decides. The witness (what the group commit names) is compared with the newest
manifest present, valid or not, so that a lost or swapped state directory is noticed instead of silently doubling rows.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from streams.advice import rebuild_of
from streams.errors import SnapshotError
from streams.frames import BEGINNING
from streams.snapshots import Found, Manifest, State, Witness

CUT = "the input was cut by retention"
REBUILT = "rebuilt"  # the array of a snapshot with which a role is to begin anew: `millrace rebuild` writes such
_OF_INPUT = (CUT, "the topic was recreated", "the input ends early")  # what its own state cannot be blamed for
REBUILT_REASON = "it was rebuilt by `millrace rebuild`"


class Input(msgspec.Struct, frozen=True):
    """The input partition as the broker has it now, and what the role reads and writes now.

    `partitions` counts those of the topics it reads and writes; `schema` names the columns of their frames.
    """

    topic: str
    topic_id: str
    partition: int
    low: int
    high: int
    partitions: dict[str, int]
    schema: str


class Start(msgspec.Struct, frozen=True):
    """Where to begin. `manifest` and `state` are None when beginning without state."""

    position: int
    generation: int
    is_from_start: bool
    manifest: Manifest | None = None
    state: State | None = None
    restart: str = ""  # why a role that may begin anew does so
    heard: tuple[int, int] = (BEGINNING, 0)  # without state: the largest time heard of before, and its record's stamp


def decide_start(
    found: Found,
    witness: Witness | None,
    now: Input,
    on_gap: Literal["stop", "continue"],
    start: str = "earliest",
    *,
    is_renewable: bool = False,
    role: str = "",
) -> Start:
    """Decide where to begin.

    Args:
        found: what the snapshot directory holds.
        witness: what the group commit says.
        now: the input as it is.
        on_gap: what to do when something is missing.
        start: where to begin without state and witness.
        is_renewable: whether the role goes on by itself when its input was cut: a candidate, as a new lineage. Its
            `Start` has the state that is given up, but no manifest.
        role: whose state it is, to name the command that helps.

    Raises:
        SnapshotError: when state, witness and input do not fit, unless `on_gap` is "continue"; always when the topics
            have other partition counts than recorded.
    """
    where = f"{now.topic} partition {now.partition}"
    misfit = _misfit(found.manifest, now)
    if misfit is not None:
        raise SnapshotError(f"{where}: {misfit}; run `{rebuild_of()}`")
    problem = _problem(found, witness, now)
    if problem is None and found.manifest is not None:
        manifest = found.manifest
        if REBUILT in (found.state or {}):
            position, generation = manifest.position, manifest.generation
            return Start(position, generation, position == 0, state=found.state, restart=REBUILT_REASON)
        return Start(manifest.position, manifest.generation, is_from_start=False, manifest=manifest, state=found.state)
    if problem is None:
        position = now.high if start == "latest" else now.low
        return Start(position, 0, is_from_start=position == 0)
    known = [found.generation, *([witness.generation] if witness else [])]
    is_renewed = is_renewable and (problem.startswith(CUT) or on_gap == "continue")
    if is_renewed:
        return Start(now.low, max(known) + 1, is_from_start=now.low == 0, state=found.state, restart=problem)
    if on_gap == "stop":
        is_log_lost = role == "features" and problem.startswith(_OF_INPUT)
        command = rebuild_of("" if is_log_lost else role)
        raise SnapshotError(
            f'{where}: {problem}; run `{command}`, or set [run] on_gap = "continue" to go on with a gap'
        )
    return Start(now.low, max(known) + 1, is_from_start=now.low == 0)


def beginning_state(lineage: int = 0, trained: bytes = b"") -> State:
    """Give what a snapshot holds with which a role begins anew at its position.

    Args:
        lineage: the newest that a candidate has had; its next one begins.
        trained: the record of the version with which one that is trained in batches begins, where its row is gone.
    """
    state: State = {REBUILT: np.ones(1, np.bool_), "task.version": np.array([lineage, 0], np.int64)}
    return {**state, "task.trained": np.frombuffer(trained, np.uint8)} if trained else state


def _misfit(manifest: Manifest | None, now: Input) -> str | None:
    """What no gap explains: inner topics keep their partitions (PROTOCOL 8)."""
    if manifest is None or manifest.topic_id != now.topic_id:
        return None
    if manifest.partitions != now.partitions:
        return f"partition counts changed: snapshot has {manifest.partitions}, topics have {now.partitions}"
    return None


def _problem(found: Found, witness: Witness | None, now: Input) -> str | None:
    if witness is not None and found.newest_number < witness.number:
        if found.newest_number == 0:
            return f"the snapshots are gone: the group commit names {witness.manifest}, none is present"
        newest = f"the newest present is number {found.newest_number}"
        return f"snapshots are missing: the group commit names {witness.manifest}, {newest}"
    if witness is not None and found.digests.get(witness.manifest, witness.digest) != witness.digest:
        return f"the snapshots were exchanged: {witness.manifest} is not the one that the group commit names"
    manifest = found.manifest
    if manifest is None:
        return None if found.newest_number == 0 else "no snapshot verifies: all manifests or parts are damaged"
    if manifest.topic_id != now.topic_id:
        return f"the topic was recreated: snapshot of {manifest.topic_id}, topic is {now.topic_id}"
    if witness is not None and manifest.generation < witness.generation:
        return f"only snapshots of generation {manifest.generation} verify, the group commit is of {witness.generation}"
    if manifest.position < now.low:
        return f"{CUT}: snapshot at offset {manifest.position}, earliest is {now.low}"
    if manifest.position > now.high:
        return f"the input ends early: snapshot at offset {manifest.position}, the topic ends at {now.high}"
    return None
