"""Pending predictions in arrays, and the two kernels that go over examples rows (see models/blocks.py).

Per source a ring of open blocks leads to nodes; a node holds one block's 100 predictions, which become losses as label
rows come. `plan_kernel` enters events and finds labels' predictions, `settle_kernel` stores scores and losses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.drift import Detectors, observe_loss
from models.learner import LEARN, PREDICT, Actions, Vector
from models.scoring import Tally, add_score
from streams.compiled import bare, inlined
from streams.event_numbers import number_kernel, source_kernel
from streams.frames import AMENDED, EVENT, LABEL, MISSING, RETRACTED, SET

BLOCK_EVENTS = 100

COUNTERS = ("predicted", "scored", "unlabelled", "unseen", "repeated", "amended", "retracted", "dropped", "jumps")
PREDICTED, SCORED, UNLABELLED, UNSEEN, REPEATED, AMENDED_ROWS, RETRACTED_ROWS, DROPPED, JUMPS = range(len(COUNTERS))

ABSENT, PENDING, DUE, SETTLED = 0, 1, 2, 3  # an event's status inside its block; due: its label is in this batch
# Places in `sizes`: sources in use, unused nodes, why planning stopped, the row behind the last one settled.
SOURCES, FREE, STOPPED, SETTLED_TO = 0, 1, 2, 3
AT_END, NO_SOURCE, NO_NODE, NO_RING, AT_JUMP = 0, 1, 2, 3, 4

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """The columns of examples rows that the scoreboard looks at; all of length B."""

    kind: npt.NDArray[np.int8]
    source: Int32
    number: Int64
    time: Int64
    label: Vector
    outcome: npt.NDArray[np.int8]


class Sources(NamedTuple):
    """Per source, in the order of their first event."""

    name: Int32
    first: Int64  # the first number seen: labels of earlier ones find no prediction
    next: Int64
    head: Int64  # the oldest open block
    ring: Int32  # [S, R]: node of open block b at b % R, R a power of two
    since: Int64  # the first number that the model as it is now has predicted; what came before was another's


class Nodes(NamedTuple):
    """Per open block: what was said of each event, and its loss once its label has come. S numbers a prediction."""

    said: npt.NDArray[np.float64]  # [N * 100, S]
    loss: npt.NDArray[np.float64]  # [N, 100]
    status: npt.NDArray[np.uint8]  # [N, 100]
    first_time: Int64
    last_time: Int64
    block: Int64
    left: Int64  # events not settled yet
    owner: Int32  # place of its source
    free: Int32  # stack of unused nodes; its height is in `sizes`


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
        if block - sources.head[place] > mask:
            return -NO_RING
        if sizes[FREE] == 0:
            return -NO_NODE
        sizes[FREE] -= 1
        fresh = nodes.free[sizes[FREE]]
        sources.ring[place, block & mask] = fresh
        for k in range(BLOCK_EVENTS):
            nodes.loss[fresh, k] = np.nan
            nodes.status[fresh, k] = ABSENT
            for s in range(nodes.said.shape[1]):
                nodes.said[fresh * BLOCK_EVENTS + k, s] = np.nan
        nodes.first_time[fresh] = nodes.last_time[fresh] = rows.time[i]
        nodes.block[fresh] = block
        nodes.left[fresh] = BLOCK_EVENTS - offset
        nodes.owner[fresh] = place
    node = sources.ring[place, block & mask]
    nodes.status[node, offset] = PENDING
    nodes.first_time[node] = min(nodes.first_time[node], rows.time[i])
    nodes.last_time[node] = max(nodes.last_time[node], rows.time[i])
    sources.next[place] = number + 1
    return int(node * BLOCK_EVENTS + offset)


@inlined
def _find_event(number: int, place: int, sources: Sources, nodes: Nodes, counters: Int64) -> int:
    """Find a label's pending prediction; -1: its event was not seen, or is settled already."""
    if place < 0 or number < sources.first[place] or number >= sources.next[place]:
        counters[UNSEEN] += 1
        return -1
    block, offset = number // BLOCK_EVENTS, number % BLOCK_EVENTS
    node = sources.ring[place, block & (sources.ring.shape[1] - 1)] if block >= sources.head[place] else -1
    if node < 0 or nodes.status[node, offset] != PENDING:
        counters[REPEATED] += 1
        return -1
    nodes.status[node, offset] = DUE
    return int(node * BLOCK_EVENTS + offset)


@bare
def plan_kernel(
    rows: Rows,
    start: int,
    begin: int,
    sources: Sources,
    nodes: Nodes,
    sizes: Int64,
    counters: Int64,
    action: Actions,
    place_at: Int64,
) -> int:
    """Run `Scoreboard.plan` from row `begin`; stops, before changing anything for that row, where it needs room."""
    place = 0
    for i in range(begin, rows.kind.size):
        at = i - start
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
                sources.head[place] = number // BLOCK_EVENTS
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
            if rows.outcome[i] == AMENDED:
                counters[AMENDED_ROWS] += 1
            elif rows.outcome[i] == RETRACTED:
                counters[RETRACTED_ROWS] += 1
            elif rows.outcome[i] == SET or rows.outcome[i] == MISSING:
                place = _find(sources, sizes[SOURCES], source_kernel(rows.number[i], rows.source[i]), place)
                place_at[at] = _find_event(number_kernel(rows.number[i]), place, sources, nodes, counters)
                if place_at[at] >= 0 and not math.isnan(rows.label[i]):
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
    sources: Sources,
    nodes: Nodes,
    tally: Tally,
    counters: Int64,
    sizes: Int64,
    detectors: Detectors,
    ready_node: Int32,
    ready_row: Int64,
) -> int:
    """Run `Scoreboard.settle`; gives how many nodes are complete, named in `ready_node` with the rows that did it.

    It stops behind a row whose loss raises an alarm.
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
        has_alarm = False
        if math.isnan(rows.label[i]):
            counters[UNLABELLED] += 1
        else:
            loss = add_score(tally, nodes.said, place_at[at], rows.label[i])
            nodes.loss[node, offset] = loss
            counters[SCORED] += 1
            if nodes.block[node] * BLOCK_EVENTS + offset >= sources.since[nodes.owner[node]]:
                has_alarm = observe_loss(detectors, loss)
        nodes.status[node, offset] = SETTLED
        nodes.left[node] -= 1
        place = nodes.owner[node]
        while nodes.left[node] == 0 and nodes.block[node] == sources.head[place]:
            ready_node[ready] = node
            ready_row[ready] = i
            ready += 1
            head = sources.head[place]
            sources.ring[place, head & (sources.ring.shape[1] - 1)] = -1
            sources.head[place] = head + 1
            following = sources.ring[place, (head + 1) & (sources.ring.shape[1] - 1)]
            if following >= 0:
                node = following
        if has_alarm:
            sizes[SETTLED_TO] = i + 1
            break
    return ready
