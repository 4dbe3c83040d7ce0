"""What the selector remembers: one value, saved whole, so that it is of one moment (a point between two records).

It says how far P.scores and P.decisions were read, who reigns, what is known of each candidate, and of each pair its
evidence and its guard. It is plain JSON of some 3 KB for each challenger. Blocks that wait for their pair are not in
it; they are read again from P.scores, from `scores_from` on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from consumers.block_pairing import Seen
from consumers.gates import Known
from consumers.score_records import Order
from models.evidence import Evidence
from models.guard import Guard
from streams.errors import SnapshotError
from streams.reign import Promoted, Reign

FORMAT = 1


class Pair(msgspec.Struct):
    """A challenger against the champion: evidence, and the guard it would have as champion."""

    evidence: Evidence
    guard: Guard


class Place(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A block's place in P.scores: the offset of its record, and which one of that it is. Places are in order."""

    offset: int
    block: int


class SelectionState(msgspec.Struct):
    """See the module.

    Attributes:
        reign: as far as scores were weighed; decisions that come later in them wait in `ahead`.
        guard: of the champion against the last one.
        known: by candidate.
        pairs: by challenger.
        seen: of each order of blocks, what its pairing remembers.
        promoted_us: event time at which the reign began, 0 of the first.
        time_us: of the newest block.
        ahead: decisions that follow, one after the other, at places that were not reached yet.
        scores_to: offset of the next record of scores.
        scores_from: offset of the first one that has blocks which wait.
        decisions_to: offset of the next record of decisions.
        promotions: since the beginning, by why.
    """

    reign: Reign
    guard: Guard
    known: dict[str, Known]
    pairs: dict[str, Pair]
    seen: dict[Order, Seen]
    promoted_us: int = 0
    time_us: int = 0
    ahead: list[Promoted] = []
    scores_to: int = 0
    scores_from: int = 0
    decisions_to: int = 0
    promotions: dict[str, int] = {}
    format: int = FORMAT


def stored(state: SelectionState) -> dict[str, Any]:
    """Give the state as JSON has it."""
    found: dict[str, Any] = msgspec.to_builtins(state, str_keys=True)
    return found


def restored(value: dict[str, Any]) -> SelectionState:
    """Take a state back from `stored`.

    Raises:
        SnapshotError: it is none, or another release's.
    """
    try:
        state = msgspec.convert(value, SelectionState, strict=False)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"the selector's state cannot be read: {error}; run `millrace rebuild`") from error
    if state.format != FORMAT:
        found = f"format {state.format} found, {FORMAT} needed"
        raise SnapshotError(f"the selector's state was written by another release: {found}; run `millrace rebuild`")
    return state


def place_of(record: Promoted) -> Place | None:
    """Give the block behind which a decision counts, None of one that a person made: it counts at once."""
    offset, block = record.numbers.get("scores_offset"), record.numbers.get("scores_block")
    return None if offset is None or block is None else Place(int(offset), int(block))
