"""What readers of topics made anew remember of their sources, so that no row counts twice and no clock falls back.

Ingest goes on where it was, under the sources it had: the first stage keeps them, each with the newest row and mark
that any partition has seen. Whoever writes between stages is a new source in a new topic; its mark begins where the old
ones were, for everything up to there has been taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from consumers.station import INLET
from serving.drained import Held, Offsets
from streams.control import Claim, Control
from streams.errors import SnapshotError
from streams.frames import BEGINNING
from streams.snapshots import State, part_of
from streams.sources import SourceMemory


def memory_of_log(held: Sequence[Held], control: Control, raw: Offsets, topic_ids: Mapping[str, str]) -> State:
    """Give what all partitions together remember of ingest's sources.

    Args:
        held: the first stage's snapshots.
        control: resolves sources.
        raw: where ingest goes on in each raw partition; rows before are in the log, so they would be repeats.
        topic_ids: of the raw topics.

    Raises:
        SnapshotError: ingest would send rows again that the log has; they would be other partitions' then.
    """
    last, marks = _newest(held)
    ends = {(topic_ids[topic], partition): offset for (topic, partition), offset in raw.items()}
    for number, sequence in last.items():
        claim = control.source(number)
        end = ends.get((claim.topic_id, claim.partition))
        if end is not None and sequence >= end:
            where = f"{claim.kind} partition {claim.partition}"
            text = f"ingest has not committed what it has read: {where} to offset {sequence}, committed is {end}"
            raise SnapshotError(f"{text}; start the pipeline once more and stop it")
        last[number] = sequence if end is None else end - 1
    return memory(last, marks)


def clock_of(held: Sequence[Held], control: Control) -> int:
    """Give the time that all sources of a topic between stages have passed, as whoever is furthest ahead knows it."""
    clocks = [BEGINNING]
    for one in held:
        found = SourceMemory(control)
        found.restore(part_of(one.state, INLET))
        clocks.append(found.clock)
    return max(clocks)


def memory_of_stage(claims: Sequence[Claim], control: Control, clock: int) -> State:
    """Give the memory of a topic that nobody has written to yet: its sources' marks are where the clock was."""
    numbers = [control.claim(claim) for claim in claims]
    return memory(dict.fromkeys(numbers, -1), dict.fromkeys(numbers, clock))


def memory(last: Mapping[int, int], marks: Mapping[int, int]) -> State:
    """Lay out a memory of sources as a snapshot has it, in a topic that is read from its first row."""
    order = sorted(last)
    return {
        "numbers": np.array(order, np.int32),
        "last": np.array([last[number] for number in order], np.int64),
        "marks": np.array([marks[number] for number in order], np.int64),
        "flags": np.array([1, 0, 0], np.int64),
    }


def _newest(held: Sequence[Held]) -> tuple[dict[int, int], dict[int, int]]:
    last: dict[int, int] = {}
    marks: dict[int, int] = {}
    for one in held:
        known = part_of(one.state, INLET)
        for number, sequence, mark in zip(
            *(known[name].tolist() for name in ("numbers", "last", "marks")), strict=True
        ):
            last[number] = max(last.get(number, -1), sequence)
            marks[number] = max(marks.get(number, BEGINNING), mark)
    return last, marks
