"""Standings: who reigns, and how each challenger stands, for people.

The selector writes them, `millrace models` reads them: a file of the state folder, so that it can be read without
Kafka, from wherever models can. Nothing is decided by it; it is what the selector saw when it wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from consumers.gates import closed_gates
from consumers.judging import is_cooling
from consumers.selection import Selection
from models.evidence import verdict
from models.guard import GuardVerdict, guard_verdict
from models.outlook import events_to_go
from streams.reign import Reign
from streams.state_folder import Folder
from streams.told import tell, told

FOLDER, FILE = "selection", "standings.json"


class Standing(msgspec.Struct, frozen=True):
    """A challenger: the verdict's word, what is proven, and what is missing.

    Attributes:
        word: of the evidence; `gated` or `cooling` if it is proven and may not come yet.
        mean: how much smaller its loss is on average.
        bound: what that is above, but for a chance of alpha.
        events: weighed in this epoch.
        events_to_go: how many more it takes if it goes on so; None: this epoch does not end in a promotion.
        gates: what keeps it out, in words.
        uncompared: blocks that had no pair.
    """

    candidate: str
    lineage: int
    word: str
    mean: float | None
    bound: float | None
    threshold: float
    champion_loss: float | None
    challenger_loss: float | None
    events: int
    events_to_go: int | None
    epoch: int
    gates: tuple[str, ...]
    uncompared: int


class Standings(msgspec.Struct, frozen=True):
    """Everything the selector has to say; `time_us` is event time of the newest block it has seen."""

    reign: Reign
    time_us: int
    guard: GuardVerdict
    challengers: tuple[Standing, ...]
    promotions: Mapping[str, int]


def standings_of(selection: Selection) -> Standings:
    """Say how everybody stands. About a millisecond for each challenger."""
    state, settings = selection.state, selection.settings
    return Standings(
        state.reign,
        state.time_us,
        guard_verdict(state.guard, settings),
        tuple(_standing(selection, name) for name in selection.challengers),
        dict(state.promotions),
    )


def _standing(selection: Selection, name: str) -> Standing:
    state, settings = selection.state, selection.settings
    evidence, known = state.pairs[name].evidence, state.known[name]
    found = verdict(evidence, settings)
    gates = tuple(str(gate) for gate in closed_gates(known, state.time_us, settings))
    word: str = found.word
    if word == "promoted":
        word = "gated" if gates else "cooling" if is_cooling(state, settings) else "proven"
    return Standing(
        candidate=name,
        lineage=known.lineage,
        word=word,
        mean=found.mean,
        bound=found.bound,
        threshold=found.threshold,
        champion_loss=found.champion_loss,
        challenger_loss=found.challenger_loss,
        events=found.events,
        events_to_go=events_to_go(evidence, settings),
        epoch=found.epoch,
        gates=gates,
        uncompared=state.seen["number"].uncompared.get(name, 0),
    )


def write_standings(state: Folder, standings: Standings) -> None:
    """Write them where others find them. Raises as `tell`."""
    tell(state / FOLDER, FILE, standings)


def read_standings(state: Folder) -> Standings | None:
    """Read them, if there are any. Raises as `told`."""
    return told(state / FOLDER, FILE, Standings)
