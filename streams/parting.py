"""Parting a stage's state by key: from the states of all its partitions to those of any other number of them.

Every key's state goes to the partition to which its rows go from then on: entity with windows and trails, events that
wait, early and held labels, what was settled. What is known of no key in particular is told once: sums of counters by
partition 0, the clocks by all, as far as the furthest has come. The old partitions must have taken all of their input;
then marks that one of them has seen hold for all. Entities that are bounded stand in their list as they stood, those of
several partitions by the time of what touched them or one behind them; a cap holds for each partition.

Events are numbered on from above all old numbers. What was numbered before keeps its name: where numbers are seen
outside, each holds an alias of its old source from then on (event_numbers.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streams import accounts as count
from streams.errors import SnapshotError
from streams.outline import read_outline
from streams.parted_entities import joined, parted
from streams.parted_events import Rule, parted_events

NUMBERS_START_AT = 100  # a multiple of it, so that no block of evidence is begun in the middle
CLOCKS = [count.CLOCK, count.LABEL_CLOCK, count.LATEST, count.IDLE_CLOCK]

State = dict[str, npt.NDArray[Any]]


def part_states(
    states: Sequence[Mapping[str, npt.NDArray[Any]]], partitions: int, aliases: tuple[int, ...] = ()
) -> list[State]:
    """Give the states of `partitions` partitions that know together what the given ones do.

    Args:
        states: of one stage, by partition, as `stage.stage_state` gave them.
        partitions: how many there are to be.
        aliases: of the last stage: for what each old partition has numbered; no reader may know them yet.

    Raises:
        SnapshotError: when they were not written for one list of features.
    """
    outline = read_outline(states[0]["plan"])
    if any(read_outline(state["plan"]) != outline for state in states):
        raise SnapshotError("the partitions' snapshots are of several lists of features; start the features role once")
    whole = [dict(state) for state in states]
    every = joined(whole, outline)
    sums = np.sum([state["counters"] for state in whole], axis=0)
    clocks = np.max([state["counters"][CLOCKS] for state in whole], axis=0)
    most = int(np.max([state["counters"][count.NUMBERED] for state in whole]))
    late = np.sum([state["windows.late"] for state in whole], axis=0)
    made = []
    for partition in range(partitions):
        state = parted(every, outline, partition, partitions)
        rule = Rule(partition, partitions, aliases)
        state |= parted_events(whole, rule, len(outline.delays), int(clocks[0]))
        state |= {"plan": outline.to_array(), "windows.late": late if partition == 0 else np.zeros_like(late)}
        made.append(state)
    return _with_counters(made, sums, clocks, most)


def _with_counters(made: list[State], sums: npt.NDArray[np.int64], clocks: Any, most: int) -> list[State]:
    """Count what waits where it waits now, and everything else in partition 0, so that all accounts still add up."""
    waiting = np.array([[state[f"{part}.waiting.orders"].size for part in ("pending", "early")] for state in made])
    start = -(-max(most, int(waiting.max(initial=0))) // NUMBERS_START_AT) * NUMBERS_START_AT
    for partition, state in enumerate(made):
        pending, early = waiting[partition].tolist()
        counters = sums.copy() if partition == 0 else np.zeros_like(sums)
        for total, part, here, everywhere in (
            (count.EVENTS, count.PENDING, pending, waiting[:, 0].sum()),
            (count.LABELS, count.WAITING, early, waiting[:, 1].sum()),
        ):
            if sums[total]:
                counters[total] += here - (everywhere if partition == 0 else 0)
            counters[part] = here
        counters[[count.NUMBERED, count.LABEL_ROWS]] = start, start - pending
        counters[CLOCKS] = clocks
        state["counters"] = counters
    return made
