"""Pending predictions in arrays, and the two kernels that go over examples rows (see models/blocks.py).

Per source a ring of blocks leads to nodes; a node holds one block's 100 predictions, which become losses as label
rows come. `plan_kernel` enters events and finds labels' predictions, `settle_kernel` stores scores and losses. A block
that has left stays in the ring until the clock has passed all that is remembered of it (block_arrays.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.block_arrays import BLOCK_EVENTS, CLOCK, FREE, SETTLED_TO, SOURCES, STOPPED, Int32, Int64, Nodes, Sources
from models.drift import Detectors, observe_loss
from models.learner import LEARN, PREDICT, Actions, Vector
from models.tally import CLUSTERING, Tally, add_score, give_score, take_score
from models.tally_delays import count_delay
from streams.compiled import bare, inlined
from streams.event_numbers import number_kernel, source_kernel
from streams.frames import AMENDED, BEGINNING, EVENT, LABEL, MISSING, SET

COUNTERS = (
    "predicted", "scored", "unlabelled", "unseen", "repeated", "amended", "retracted", "dropped", "jumps",
    "corrected", "relearned",
)  # fmt: skip
PREDICTED, SCORED, UNLABELLED, UNSEEN, REPEATED, AMENDED_ROWS, RETRACTED_ROWS, DROPPED, JUMPS = range(9)
CORRECTED, RELEARNED = 9, 10  # amended and retracted labels that changed the metrics; those learned once more

ABSENT, PENDING, DUE, SETTLED = 0, 1, 2, 3  # an event's status inside its block; due: its label is in this batch
AT_END, NO_SOURCE, NO_NODE, NO_RING, AT_JUMP = 0, 1, 2, 3, 4


class Rows(NamedTuple):
    """The columns of examples rows that the scoreboard looks at; all of length B."""

    kind: npt.NDArray[np.int8]
    source: Int32
    number: Int64
    time: Int64
    label: Vector
    outcome: npt.NDArray[np.int8]


@inlined
def _find(sources: Sources, used: int, name: int, guess: int) -> int:
    if 0 <= guess < used and sources.name[guess] == name:
        return guess
    for place in range(used):
        if sources.name[place] == name:
            return place
    return -1


@inlined
def _enter(rows: Rows, i: int, place: int, sources: Sources, nodes: Nodes, sizes: Int64) -> int:
    """Give an event its node; negative: minus the reason why there is none."""
    number = rows.number[i]
    block, offset = number // BLOCK_EVENTS, number % BLOCK_EVENTS
    mask = sources.ring.shape[1] - 1
    if offset == 0 or number == sources.first[place]:
        if block - sources.tail[place] > mask:
            return -NO_RING
        if sizes[FREE] == 0:
            return -NO_NODE
        sizes[FREE] -= 1
        fresh = nodes.free[sizes[FREE]]
        sources.ring[place, block & mask] = fresh
        for k in range(BLOCK_EVENTS):
            nodes.loss[fresh, k] = np.nan
            nodes.status[fresh, k] = ABSENT
            nodes.label[fresh, k] = np.nan
            nodes.until[fresh, k] = BEGINNING
            for s in range(nodes.said.shape[1]):
                nodes.said[fresh * BLOCK_EVENTS + k, s] = np.nan
        nodes.first_time[fresh] = nodes.last_time[fresh] = rows.time[i]
        nodes.last_until[fresh] = BEGINNING
        nodes.block[fresh] = block
        nodes.left[fresh] = BLOCK_EVENTS - offset
        nodes.owner[fresh] = place
    node = sources.ring[place, block & mask]
    nodes.status[node, offset] = PENDING
    nodes.until[node, offset] = rows.time[i]
    nodes.first_time[node] = min(nodes.first_time[node], rows.time[i])
    nodes.last_time[node] = max(nodes.last_time[node], rows.time[i])
    sources.next[place] = number + 1
    return int(node * BLOCK_EVENTS + offset)


@inlined
def _find_event(
    number: int, place: int, until_us: int, sources: Sources, nodes: Nodes, counters: Int64, time_at: Int64, at: int
) -> int:
    """Find a label's pending prediction; -1: its event was not seen, or is settled already.

    It is remembered until the clock has passed `until_us`, in the place of its event's time, which goes to `time_at`.
    """
    if place < 0 or number < sources.first[place] or number >= sources.next[place]:
        counters[UNSEEN] += 1
        return -1
    block, offset = number // BLOCK_EVENTS, number % BLOCK_EVENTS
    node = sources.ring[place, block & (sources.ring.shape[1] - 1)] if block >= sources.head[place] else -1
    if node < 0 or nodes.status[node, offset] != PENDING:
        counters[REPEATED] += 1
        return -1
    nodes.status[node, offset] = DUE
    time_at[at] = nodes.until[node, offset]
    nodes.until[node, offset] = until_us
    nodes.last_until[node] = max(nodes.last_until[node], until_us)
    return int(node * BLOCK_EVENTS + offset)


@inlined
def _find_settled(number: int, place: int, clock_us: int, sources: Sources, nodes: Nodes) -> int:
    """Find the prediction of an event that was settled; -1: it was not, or it is forgotten."""
    if place < 0 or number < sources.first[place] or number >= sources.next[place]:
        return -1
    block, offset = number // BLOCK_EVENTS, number % BLOCK_EVENTS
    node = sources.ring[place, block & (sources.ring.shape[1] - 1)] if block >= sources.tail[place] else -1
    if node < 0 or nodes.status[node, offset] < DUE or clock_us > nodes.until[node, offset]:
        return -1
    return int(node * BLOCK_EVENTS + offset)


@bare
def plan_kernel(
    rows: Rows,
    clock: Int64,
    keep_us: int,
    is_relearned: bool,
    start: int,
    begin: int,
    sources: Sources,
    nodes: Nodes,
    sizes: Int64,
    counters: Int64,
    action: Actions,
    place_at: Int64,
    time_at: Int64,
    learns_all: bool,
) -> int:
    """Run `Scoreboard.plan` from row `begin`; stops, before changing anything for that row, where it needs room."""
    place = 0
    for i in range(begin, rows.kind.size):
        at = i - start
        sizes[CLOCK] = max(sizes[CLOCK], clock[i])
        if rows.kind[i] == EVENT:
            number = rows.number[i]
            place = _find(sources, sizes[SOURCES], rows.source[i], place)
            if place < 0:
                if sizes[SOURCES] == sources.name.size:
                    sizes[STOPPED] = NO_SOURCE
                    return i
                place = sizes[SOURCES]
                sizes[SOURCES] += 1
                sources.name[place] = rows.source[i]
                sources.first[place] = sources.next[place] = sources.since[place] = number
                sources.head[place] = sources.tail[place] = number // BLOCK_EVENTS
            if number < sources.next[place]:
                counters[REPEATED] += 1
                continue
            if number > sources.next[place]:
                sizes[STOPPED] = AT_JUMP
                return i
            entered = _enter(rows, i, place, sources, nodes, sizes)
            if entered < 0:
                sizes[STOPPED] = -entered
                return i
            place_at[at] = entered
            action[at] = PREDICT
            counters[PREDICTED] += 1
        elif rows.kind[i] == LABEL:
            number, outcome = number_kernel(rows.number[i]), rows.outcome[i]
            place = _find(sources, sizes[SOURCES], source_kernel(rows.number[i], rows.source[i]), place)
            if outcome in (SET, MISSING):
                until = rows.time[i] + keep_us
                place_at[at] = _find_event(number, place, until, sources, nodes, counters, time_at, at)
                if place_at[at] >= 0 and (learns_all or not math.isnan(rows.label[i])):
                    action[at] = LEARN
            else:
                counters[AMENDED_ROWS if outcome == AMENDED else RETRACTED_ROWS] += 1
                place_at[at] = _find_settled(number, place, sizes[CLOCK], sources, nodes)
                is_known = place_at[at] >= 0 and not math.isnan(rows.label[i])
                if is_relearned and not learns_all and is_known and outcome == AMENDED:
                    action[at] = LEARN
    sizes[STOPPED] = AT_END
    return rows.kind.size


@bare
def settle_kernel(
    rows: Rows,
    start: int,
    stop: int,
    score_BS: npt.NDArray[np.float64],
    place_at: Int64,
    time_at: Int64,
    sources: Sources,
    nodes: Nodes,
    tally: Tally,
    counters: Int64,
    sizes: Int64,
    detectors: Detectors,
    ready_node: Int32,
    ready_row: Int64,
    learns_all: bool,
    may_be_silent: bool,
) -> int:
    """Run `Scoreboard.settle`; gives how many nodes are complete, named in `ready_node` with the rows that did it.

    It stops behind a row whose loss raises an alarm. Where events may have no prediction, NaN is none.
    """
    ready = 0
    sizes[SETTLED_TO] = stop
    for i in range(start, stop):
        at = i - start
        if place_at[at] < 0:
            continue
        node, offset = place_at[at] // BLOCK_EVENTS, place_at[at] % BLOCK_EVENTS
        if rows.kind[i] == EVENT:
            for place in range(score_BS.shape[1]):
                nodes.said[place_at[at], place] = score_BS[at, place]
            continue
        is_silent = may_be_silent and math.isnan(nodes.said[place_at[at], 0])
        if rows.outcome[i] not in (SET, MISSING):
            if not is_silent:
                _correct(tally, nodes, node, offset, rows.label[i], counters)
            continue
        has_alarm, has_label = False, not math.isnan(rows.label[i]) and not is_silent
        if has_label or (learns_all and not is_silent):
            loss = add_score(tally, nodes.said, place_at[at], rows.label[i])
            nodes.loss[node, offset] = loss
            if has_label:
                count_delay(tally.delays, rows.time[i] - time_at[at], loss)
            is_ours = nodes.block[node] * BLOCK_EVENTS + offset >= sources.since[nodes.owner[node]]
            if is_ours and not math.isnan(loss):
                has_alarm = observe_loss(detectors, loss)
        is_scored = has_label or (tally.code == CLUSTERING and not is_silent)
        counters[SCORED if is_scored else UNLABELLED] += 1
        nodes.status[node, offset] = SETTLED
        nodes.label[node, offset] = rows.label[i]
        nodes.left[node] -= 1
        place = nodes.owner[node]
        while nodes.left[node] == 0 and nodes.block[node] == sources.head[place]:
            ready_node[ready] = node
            ready_row[ready] = i
            ready += 1
            head = sources.head[place]
            sources.head[place] = head + 1
            following = sources.ring[place, (head + 1) & (sources.ring.shape[1] - 1)]
            if head + 1 <= (sources.next[place] - 1) // BLOCK_EVENTS:
                node = following
        if has_alarm:
            sizes[SETTLED_TO] = i + 1
            break
    return ready


@inlined
def _correct(tally: Tally, nodes: Nodes, node: int, offset: int, label: float, counters: Int64) -> None:
    """Let a settled event's newest label count in the metrics since the start; NaN: none counts any more.

    Blocks keep the first loss: what was evidence stays what it was.
    """
    place, before = node * BLOCK_EVENTS + offset, nodes.label[node, offset]
    if not math.isnan(before):
        take_score(tally, nodes.said, place, before)
    if not math.isnan(label):
        give_score(tally, nodes.said, place, label)
    nodes.label[node, offset] = label
    counters[CORRECTED] += 1
